//! `kai-broker login` on a terminal of the test's own: whose account and walls the login has, who copies its
//! bytes, what of them is shown, and that nothing is left of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    os::unix::fs::{MetadataExt, chown},
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use kai_emulators::{agent, prerequisite::found_or_skipped};
use kai_playground::ground::Agent;
use kai_proto::{
    admin_broker::{Reply, Request},
    connection::Client,
    hello::AdminHello,
    sockets,
};
use kai_tests::{
    ALICE, Kai, Screen, is_root,
    login::{
        ADMIN, GROUP, QUESTION, SOON, asked, command, field, login, processes, ran, uid,
        wait_until_none,
    },
    skipped,
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Real, effective, saved and file system id, all the same.
fn four(id: u32) -> String {
    [id; 4].map(|id| id.to_string()).join(" ")
}

#[test]
fn a_login_has_its_users_account_and_walls_and_its_status_is_the_commands() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    let account = kai.ground.account("alice").unwrap();
    let before = kai.ground.status_json().unwrap();
    assert_eq!(before["users"][0]["login"], "no");

    let mut screen = asked(&kai);
    assert_eq!(ran(&mut screen, "id -u"), account.uid.to_string());
    assert_eq!(ran(&mut screen, "id -G"), account.gid.to_string());
    let status = ran(&mut screen, "cat /proc/self/status");
    let ids = four(account.uid);
    assert_eq!(field(&status, "Uid:"), ids);
    assert_eq!(field(&status, "NoNewPrivs:"), "1");
    assert_eq!(field(&status, "Seccomp:"), "2");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(&status, set), "0000000000000000");
    }
    for kind in ["pid", "mnt", "ipc", "uts", "cgroup"] {
        let theirs = ran(&mut screen, &format!("readlink /proc/self/ns/{kind}"));
        let ours = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_ne!(theirs, ours.to_str().unwrap(), "{kind}");
    }
    let bob = kai.ground.account("bob").unwrap();
    let denied = ran(&mut screen, &format!("ls {} 2>&1", bob.home.display()));
    assert!(denied.contains("No such file"), "{denied}");
    // Its terminal is its own, and there is no way from it to the admin's.
    let own = |pid: &str| ran_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).unwrap());
    let theirs = ran_stat(&ran(&mut screen, "cat /proc/$$/stat"));
    assert_ne!(theirs, own(&screen.pid().to_string()));
    let open = ran(&mut screen, "ls -l /proc/$PPID/fd");
    assert!(!open.contains("ptmx"), "{open}");
    assert_eq!(
        ran(&mut screen, "test -t 0 -a -t 1 && : >/dev/tty && echo yes"),
        "yes"
    );
    let typed = ran(
        &mut screen,
        "perl -e '$key = \"x\"; print ioctl(STDIN, 0x5412, $key) ? \"typed\" : \"denied: $!\"'",
    );
    assert!(typed.contains("denied"), "{typed}");
    let names = ran(&mut screen, "env | cut -d= -f1 | sort | tr '\\n' ' '");
    assert!(names.contains("HOME") && !names.contains("SUDO"), "{names}");

    screen.type_in("made-up-code\r");
    screen.wait_for("Login successful.");
    assert_eq!(screen.end().code(), Some(0));
    let file = account.home.join(".claude/.credentials.json");
    assert_eq!(fs::metadata(file).unwrap().uid(), account.uid);
    let after = kai.ground.status_json().unwrap();
    assert_eq!(after["users"][0]["login"], "yes");
    assert_eq!(after["users"][1]["login"], "no");
    let shown = kai.ground.broker_command(&["status"]).unwrap();
    assert!(
        shown.contains("bob: the agent has no login yet: sudo kai-broker login bob"),
        "{shown}"
    );

    let mut screen = asked(&kai);
    screen.type_in("wrong\r");
    assert_eq!(screen.end().code(), Some(1));
    wait_until_none(account.uid);
}

/// The terminal's number in /proc/PID/stat (proc(5)): the fifth field behind the name.
fn ran_stat(stat: &str) -> String {
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.split_whitespace().nth(4).unwrap().to_owned()
}

#[test]
fn who_copies_is_the_admin_for_good_and_holds_nothing_but_the_terminals() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    for (sudo, uid, gid) in [(true, ADMIN, GROUP), (false, 0, 0)] {
        let mut command = command(&kai, &["login", "alice"]);
        if !sudo {
            command.env_remove("SUDO_UID").env_remove("SUDO_GID");
        }
        let mut screen = Screen::start(&mut command, (30, 90));
        screen.wait_for(QUESTION);

        let status = fs::read_to_string(format!("/proc/{}/status", screen.pid())).unwrap();
        let uids = field(&status, "Uid:");
        if sudo {
            assert_eq!(uids, four(uid));
            assert_eq!(field(&status, "Gid:"), four(gid));
            assert_eq!(field(&status, "Groups:"), gid.to_string());
        } else {
            // Numbers that nobody has.
            let number: u32 = uids.split(' ').next().unwrap().parse().unwrap();
            assert!((59_000..60_000).contains(&number), "{uids}");
            let number = nix::unistd::Uid::from_raw(number);
            assert_eq!(nix::unistd::User::from_uid(number), Ok(None));
        }
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(field(&status, set), "0000000000000000");
        }
        assert_eq!(field(&status, "NoNewPrivs:"), "1");
        // Nobody of the account looks into it: its files in /proc are root's.
        let owner = fs::metadata(format!("/proc/{}/fd", screen.pid())).unwrap();
        assert_eq!(owner.uid(), 0);
        let open: Vec<_> = fs::read_dir(format!("/proc/{}/fd", screen.pid()))
            .unwrap()
            .map(|entry| fs::read_link(entry.unwrap().path()).unwrap())
            .collect();
        let strange: Vec<_> = open
            .iter()
            .map(|path| path.to_str().unwrap())
            .filter(|path| !path.starts_with("/dev/pt") && !path.starts_with("socket:"))
            .filter(|path| *path != "anon_inode:[signalfd]")
            .collect();
        assert!(strange.is_empty(), "{strange:?}");
        screen.type_in("\x1d\x1d\x1d");
        assert_eq!(screen.end().code(), Some(1));
    }
    wait_until_none(uid(&kai, "alice"));
}

#[test]
fn a_login_ends_when_a_login_file_is_replaced_outside() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    let alice = kai.ground.account("alice").unwrap().clone();
    // People log in to an account that has not expired.
    let opened = Command::new("usermod")
        .args(["--expiredate", "", &alice.name])
        .status();
    assert!(opened.unwrap().success());
    kai.ground.broker_command(&["reload"]).unwrap();
    // Also one that shows nothing any more.
    for stopped in ["", "stty ixon; setsid -f sh -c 'sleep 1000'; "] {
        let mut screen = asked(&kai);
        let refused = ran(&mut screen, "(echo evil >> ~/.bashrc) 2>&1");
        assert!(refused.contains("Read-only"), "{refused}");
        screen.type_in(&format!("!trap '' HUP INT TERM; {stopped}sleep 1000\r"));
        thread::sleep(Duration::from_millis(300));
        if !stopped.is_empty() {
            // Ctrl-S.
            screen.type_in("\x13");
            thread::sleep(Duration::from_millis(300));
        }

        // What an editor does.
        let (bashrc, new) = (alice.home.join(".bashrc"), alice.home.join(".bashrc.new"));
        fs::write(&new, "alias ll='ls -l'\n").unwrap();
        chown(&new, Some(alice.uid), Some(alice.gid)).unwrap();
        fs::rename(&new, &bashrc).unwrap();

        wait_until_none(alice.uid);
        assert_eq!(screen.end().code(), Some(71));
        if stopped.is_empty() {
            assert!(screen.text().contains("was replaced outside"));
        }
    }
}

/// A command without a terminal, or one that is refused.
fn refused(kai: &Kai, arguments: &[&str]) -> Output {
    command(kai, arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn what_cannot_be_is_one_sentence() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|options| {
        options.people[1].api_key = Some("sk-made-up".to_owned());
    });
    let output = refused(&kai, &["login", "alice"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("needs a terminal") && said.lines().count() == 1,
        "{said}"
    );

    for (name, words) in [
        (
            "mallory",
            "users.yaml has no user `mallory`; it has alice, bob",
        ),
        ("", "is no name of a user"),
        ("bob", "given a key by api_key_file"),
    ] {
        let mut screen = login(&kai, name);
        let before = screen.settings();
        assert_eq!(screen.end().code(), Some(1));
        assert!(screen.text().contains(words), "{}", screen.text());
        assert_eq!(screen.settings(), before);
    }
    let _first = asked(&kai);
    let mut second = login(&kai, "alice");
    assert_eq!(second.end().code(), Some(1));
    assert!(second.text().contains("runs already"), "{}", second.text());
    let status = kai.ground.status_json().unwrap();
    assert_eq!(status["users"][1]["login"], "yes", "by the key");
}

#[test]
fn a_login_runs_beside_its_users_worker_and_is_in_the_audit_log() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    kai.ask(ALICE, "echo before", "before");
    let mut screen = asked(&kai);
    kai.ask(ALICE, "echo mean''while", "meanwhile");
    // They share the account and not what they see.
    let own = ran(&mut screen, "readlink /proc/self/ns/pid");
    let workers = kai.ask(ALICE, "readlink /proc/self/ns/pid", "pid:[");
    assert!(!workers.text().contains(&own), "{own}");
    screen.type_in("a-secret-code\r");
    assert_eq!(screen.end().code(), Some(0));
    kai.ask(ALICE, "echo after", "after");

    let mut hung_up = asked(&kai);
    hung_up.signal(Signal::SIGKILL);
    hung_up.end();
    wait_until_one_login_less(&kai);
    let log = kai.ground.broker_command(&["audit", "--json"]).unwrap();
    assert!(!log.contains("a-secret-code") && !log.contains("login.example"));
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let events =
        |name: &str| -> Vec<&Value> { lines.iter().filter(|line| line["event"] == name).collect() };
    for event in ["admin.login", "login.started", "login.ended"] {
        assert_eq!(events(event).len(), 2, "{event}: {log}");
        for line in events(event) {
            assert_eq!(line["admin"], ADMIN);
            assert_eq!(line["user"], "alice");
        }
    }
    assert_eq!(events("login.ended")[0]["status"], 0);
    assert_eq!(events("login.ended")[0]["why"], "by_itself");
    assert_eq!(events("login.ended")[1]["why"], "hung_up");
}

#[test]
fn through_sudo_itself_it_is_the_same() {
    if !is_root() {
        return;
    }
    let sudo = Path::new("/usr/bin/sudo");
    if !sudo.exists() && !skipped("sudo is not installed") {
        return;
    }
    let kai = Kai::start(|_| {});
    let login = || {
        let mut command = Command::new(sudo);
        command
            .args(["-n", "-u", "root"])
            .arg(kai.ground.programs().join("kai-broker"))
            .args(["login", "alice", "--config"])
            .arg(kai.ground.config());
        let mut screen = Screen::start(&mut command, (30, 90));
        screen.wait_for(QUESTION);
        screen
    };
    let mut screen = login();
    assert_eq!(ran(&mut screen, "stty size"), "30 90");
    screen.type_in("wrong\r");
    assert_eq!(screen.end().code(), Some(1));

    let mut screen = login();
    screen.type_in("!trap '' HUP INT TERM; sleep 1000\r");
    thread::sleep(Duration::from_millis(300));
    let _ = screen.hang_up().end();
    wait_until_none(uid(&kai, "alice"));
}

#[test]
fn what_a_user_puts_in_the_place_of_the_login_is_not_opened() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    for (shell, standing) in [
        ("mkfifo .credentials.json", "unknown"),
        ("ln -s /etc/passwd .credentials.json", "unknown"),
        ("mkdir .credentials.json", "unknown"),
        (
            "echo {} > .credentials.json; chmod 0 .credentials.json",
            "yes",
        ),
        ("echo {} > .credentials.json; chmod 0 .", "unknown"),
        (": > .credentials.json", "no"),
        ("cd; rmdir .claude; ln -s /proc/1/cwd .claude", "unknown"),
        ("cd; rmdir .claude; : > .claude", "unknown"),
    ] {
        let anew = "chmod -f 700 ~/.claude; rm -rf ~/.claude; mkdir ~/.claude; cd ~/.claude";
        kai.ask(ALICE, &format!("{anew}; {shell}; echo do''ne"), "done");
        let began = Instant::now();
        let status = kai.ground.status_json().unwrap();
        assert_eq!(status["users"][0]["login"], standing, "{shell}");
        assert!(began.elapsed() < SOON, "{shell}");
    }
}

#[test]
fn nothing_can_be_asked_on_the_connection_of_a_login() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    let alice = uid(&kai, "alice");
    let socket = sockets::admin_broker(&kai.ground.run());
    let mut client = Client::connect(&socket, SOON).unwrap();
    client.send(&Request::Hello(AdminHello::of(ADMIN))).unwrap();
    assert!(matches!(client.receive(), Ok(Reply::Hello(_))));
    let name = "alice".to_owned().try_into().unwrap();
    client.send(&Request::Login(name)).unwrap();
    assert!(matches!(client.receive(), Ok(Reply::LoginBegins)));
    let due = Instant::now() + SOON;
    while processes(alice).is_empty() {
        assert!(Instant::now() < due);
    }

    // Behind the byte of the terminal, which a plain read drops.
    client.send(&Request::Reload).unwrap();

    wait_until_none(alice);
}

fn wait_until_one_login_less(kai: &Kai) {
    let due = Instant::now() + SOON;
    loop {
        let log = kai.ground.broker_command(&["audit", "--json"]).unwrap();
        if log.contains("hung_up") {
            return;
        }
        assert!(Instant::now() < due, "{log}");
    }
}

#[test]
fn the_real_agent_shows_its_address_or_says_why_not() {
    let Some(program) = found_or_skipped(agent::program()) else {
        return;
    };
    if !is_root() {
        return;
    }
    let kai = Kai::start(|options| {
        options.agent = Agent::Program {
            path: program,
            arguments: Vec::new(),
        };
    });
    // In the chat, too, she is told whom to ask for what.
    kai.ask(ALICE, "good morning", "sudo kai-broker login alice");
    kai.ask(ALICE, "/status", "sudo kai-broker login alice");

    let mut screen = login(&kai, "alice");
    screen.wait_for("https://claude.com/cai/oauth/authorize?");
    screen.wait_for(QUESTION);
    screen.type_in("no-code-at-all\r");
    screen.wait_for("Invalid code");
    screen.type_in("\x03");
    assert_eq!(screen.end().code(), Some(130));
    let status = kai.ground.status_json().unwrap();
    assert_eq!(status["users"][0]["login"], "no");
}
