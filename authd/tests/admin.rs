//! `kai-auth` and `kai-authd` together, as an admin meets them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod ground;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{MetadataExt, PermissionsExt},
            net::UnixStream,
        },
    },
    process::{Command, Stdio},
    thread,
    time::Instant,
};

use ground::{
    Ground, PATIENCE,
    authenticator::{self, Authenticator},
    has, is_root,
    peers::{Admin, Broker, Gateway, user},
};
use kai_proto::{
    admin_broker::{BrokerStatus, Reply, Request, UserStatus},
    broker_authd::GrantEnd,
    code::Code,
    codec,
    connection::Connection,
    gateway_authd::{Standing, Verdict},
    gateway_broker::SecondFactor,
    hello::Hello,
    ids::Role,
    sockets,
};
use nix::pty::{Winsize, openpty};

fn granted(verdict: Verdict) -> kai_proto::grant::Grant {
    match verdict {
        Verdict::Granted { grant, .. } => grant,
        other => panic!("{other:?}"),
    }
}

#[test]
fn init_makes_the_database_once_and_leaves_it_alone_then() {
    if !is_root() {
        return;
    }
    let ground = Ground::bare("");

    let said = ground.done(&["init"]);

    assert!(
        said.contains("kai-auth enroll") && said.lines().count() == 1,
        "{said}"
    );
    let found = fs::metadata(ground.database()).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o7777), (0, 0o600));
    let directory = fs::metadata(ground.state()).unwrap();
    assert_eq!((directory.uid(), directory.mode() & 0o7777), (0, 0o700));
    let before = fs::read(ground.database()).unwrap();
    let (status, said) = ground.not_done(&["init"]);
    assert_eq!(status, 1, "{said}");
    let after = fs::metadata(ground.database()).unwrap();
    assert_eq!(fs::read(ground.database()).unwrap(), before);
    assert_eq!(
        (found.ino(), found.mtime_nsec()),
        (after.ino(), after.mtime_nsec())
    );
}

#[test]
fn an_enrolment_is_confirmed_proved_and_removed() {
    if !is_root() {
        return;
    }
    let ground = Ground::started("");
    let alice = user("alice", 1001);
    let mut gateway = Gateway::connect(&ground.run()).unwrap();
    let mut broker = Broker::connect(&ground.run());
    assert_eq!(gateway.standing(&alice, None), Standing::NotEnrolled);

    let enrolled = ground.enroll("alice", 1001);

    assert_eq!(enrolled.recovery.len(), 10);
    assert_eq!(broker.ended(), GrantEnd::Enrolment);
    assert_eq!(gateway.standing(&alice, None), Standing::CodeNeeded);
    assert_eq!(broker.check(&alice, None), Standing::CodeNeeded);
    for other in [user("alice", 1002), user("alicia", 1001)] {
        assert_eq!(broker.check(&other, None), Standing::Changed);
    }
    let used = gateway
        .totp(&alice, enrolled.authenticator.totp(enrolled.step))
        .unwrap();
    assert_eq!(
        used,
        Verdict::Refused,
        "the code that confirmed is a used one"
    );
    let code = enrolled.authenticator.totp(authenticator::step());
    let grant = granted(gateway.totp(&alice, code.clone()).unwrap());
    assert!(matches!(
        broker.check(&alice, Some(&grant)),
        Standing::Proven { .. }
    ));
    assert_eq!(
        gateway.totp(&alice, code).unwrap(),
        Verdict::Refused,
        "a used code"
    );
    let shown = ground.status_of("alice");
    assert_eq!(shown["telegram_id"], 1001);
    assert!(shown["authenticated_until"].is_u64(), "{shown}");
    assert_eq!(
        (&shown["recovery_left"], &shown["ahead_of_clock"]),
        (&10.into(), &false.into())
    );
    let table = ground.done(&["status"]);
    assert!(
        table.contains("gateway    connected") && table.contains("10 of 10"),
        "{table}"
    );

    let said = ground.done(&["remove", "alice"]);

    assert!(
        said.contains("alice has no second factor any more"),
        "{said}"
    );
    assert_eq!(broker.ended(), GrantEnd::Enrolment);
    assert_eq!(broker.check(&alice, Some(&grant)), Standing::NotEnrolled);
    assert!(ground.status_of("alice").is_null());
    let (status, said) = ground.not_done(&["remove", "alice"]);
    assert_eq!(status, 1);
    assert!(
        said.contains("alice: no second factor is enrolled"),
        "{said}"
    );
    for event in [
        "enrolment.confirmed",
        "enrolment.removed",
        "code.accepted",
        "grant.made",
        "grant.ended",
    ] {
        assert_eq!(ground.audited(event), 1, "{event}");
    }
    assert_eq!(ground.audited("code.refused"), 2);
}

/// Begins an enrolment and gives the command once it waits for the code.
fn begin(ground: &Ground, name: &str, id: &str) -> (std::process::Child, Authenticator) {
    let mut child = ground
        .command(&["enroll", name, "--telegram-id", id])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let uri = lines
        .find_map(|line| line.ok().filter(|l| l.starts_with("otpauth://")))
        .unwrap();
    let authenticator = Authenticator::of(&uri);
    (child, authenticator)
}

#[test]
fn nothing_changes_before_a_code_confirms_it() {
    if !is_root() {
        return;
    }
    let ground = Ground::started("");
    let alice = user("alice", 1001);
    let mut gateway = Gateway::connect(&ground.run()).unwrap();

    // The end of the command, as by Ctrl-C or with its terminal.
    let (mut child, _) = begin(&ground, "alice", "1001");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(gateway.standing(&alice, None), Standing::NotEnrolled);

    // The end of the input, a wrong code, and what is no code.
    let wrong = |authenticator: &Authenticator| format!("{}\n", authenticator.wrong().digits());
    let inputs: [&dyn Fn(&Authenticator) -> String; 3] =
        [&|_| String::new(), &wrong, &|_| "hunter2\n".to_owned()];
    for input in inputs {
        let (mut child, authenticator) = begin(&ground, "alice", "1001");
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input(&authenticator).as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(
            said.contains("nothing has changed") && said.lines().count() == 1,
            "{said}"
        );
        assert!(!said.contains("hunter2"), "{said}");
        assert_eq!(gateway.standing(&alice, None), Standing::NotEnrolled);
    }
    assert_eq!(ground.audited("enrolment.confirmed"), 0);
}

#[test]
fn an_enrolment_is_replaced_only_when_that_is_said() {
    if !is_root() {
        return;
    }
    let ground = Ground::started("");
    let alice = user("alice", 1001);
    let mut gateway = Gateway::connect(&ground.run()).unwrap();
    let old = ground.enroll("alice", 1001);

    for (name, id) in [("alice", "1001"), ("alice", "1002"), ("alicia", "1001")] {
        let (status, said) = ground.not_done(&["enroll", name, "--telegram-id", id]);
        assert!(status == 1 && said.contains("--replace"), "{said}");
    }
    let new = ground.enroll_with("alice", 1001, &["--replace"]);

    let step = authenticator::step();
    let refused = gateway.totp(&alice, old.authenticator.totp(step)).unwrap();
    assert_eq!(refused, Verdict::Refused);
    let old_recovery = Code::parse(&old.recovery[0]).unwrap();
    assert_eq!(
        gateway.verify(&alice, old_recovery).unwrap(),
        Verdict::Refused
    );
    granted(gateway.totp(&alice, new.authenticator.totp(step)).unwrap());
}

#[test]
fn a_locked_user_is_let_in_again_by_unlock_and_by_nothing_else() {
    if !is_root() {
        return;
    }
    let mut ground = Ground::started("");
    let alice = user("alice", 1001);
    let enrolled = ground.enroll("alice", 1001);
    let mut gateway = Gateway::connect(&ground.run()).unwrap();
    for _ in 0..2 {
        let wrong = enrolled.authenticator.wrong();
        assert_eq!(gateway.totp(&alice, wrong).unwrap(), Verdict::Refused);
    }
    assert_eq!(ground.status_of("alice")["failures"], 2);
    let wrong = enrolled.authenticator.wrong();
    assert!(matches!(
        gateway.totp(&alice, wrong).unwrap(),
        Verdict::Locked { .. }
    ));

    let right = enrolled.authenticator.totp(authenticator::step());
    assert!(matches!(
        gateway.totp(&alice, right).unwrap(),
        Verdict::Locked { .. }
    ));
    assert!(ground.status_of("alice")["locked_until"].is_u64());
    ground.stop();
    ground.start();
    let mut gateway = Gateway::connect(&ground.run()).unwrap();
    assert!(matches!(
        gateway.standing(&alice, None),
        Standing::Locked { .. }
    ));

    let said = ground.done(&["unlock", "alice"]);

    assert!(said.contains("codes of alice are taken again"), "{said}");
    let shown = ground.status_of("alice");
    assert!(
        shown["locked_until"].is_null() && shown["failures"] == 0,
        "{shown}"
    );
    let right = enrolled.authenticator.totp(authenticator::step());
    granted(gateway.totp(&alice, right).unwrap());
    let (status, said) = ground.not_done(&["unlock", "bob"]);
    assert!(
        status == 1 && said.contains("bob: no second factor"),
        "{said}"
    );
}

#[test]
fn a_recovery_code_is_taken_once_where_a_code_is() {
    if !is_root() {
        return;
    }
    let ground = Ground::started("");
    let alice = user("alice", 1001);
    let enrolled = ground.enroll("alice", 1001);
    let mut gateway = Gateway::connect(&ground.run()).unwrap();
    let code = || Code::parse(&enrolled.recovery[3].to_lowercase()).unwrap();

    let first = gateway.verify(&alice, code()).unwrap();
    let second = gateway.verify(&alice, code()).unwrap();

    assert!(
        matches!(
            first,
            Verdict::Granted {
                recovery_left: Some(9),
                ..
            }
        ),
        "{first:?}"
    );
    assert_eq!(second, Verdict::Refused);
    assert_eq!(ground.status_of("alice")["recovery_left"], 9);
}

#[test]
fn a_restored_copy_keeps_no_used_code_usable_and_the_database_that_was_there() {
    if !is_root() {
        return;
    }
    let mut ground = Ground::started("");
    let (alice, bob) = (user("alice", 1001), user("bob", 1002));
    let enrolled = ground.enroll("alice", 1001);
    let locked = ground.enroll("bob", 1002);
    let mut gateway = Gateway::connect(&ground.run()).unwrap();
    for _ in 0..3 {
        gateway.totp(&bob, locked.authenticator.wrong()).unwrap();
    }
    ground.stop();
    let copy = ground.path("copy.sqlite");
    fs::copy(ground.database(), &copy).unwrap();
    fs::set_permissions(&copy, PermissionsExt::from_mode(0o600)).unwrap();
    ground.start();
    let mut gateway = Gateway::connect(&ground.run()).unwrap();
    let code = enrolled.authenticator.totp(authenticator::step());
    granted(gateway.totp(&alice, code.clone()).unwrap());
    let restore = ["init", "--restore", copy.to_str().unwrap()];
    let (status, said) = ground.not_done(&restore);
    assert!(status == 1 && said.contains("stop it first"), "{said}");
    ground.stop();
    let before = fs::read(ground.database()).unwrap();

    ground.done(&restore);

    let kept = fs::read_dir(ground.state()).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        path != ground.database() && fs::read(path).unwrap() == before
    });
    assert!(kept, "the database that was there is gone");
    assert_eq!(
        fs::metadata(ground.database()).unwrap().mode() & 0o7777,
        0o600
    );
    ground.start();
    let mut gateway = Gateway::connect(&ground.run()).unwrap();
    assert_eq!(gateway.totp(&alice, code).unwrap(), Verdict::Refused);
    assert!(matches!(
        gateway.standing(&bob, None),
        Standing::Locked { .. }
    ));
}

#[test]
fn a_copy_that_is_no_database_of_ours_changes_nothing() {
    if !is_root() {
        return;
    }
    let ground = Ground::new("");
    let before = fs::read(ground.database()).unwrap();
    let copy = ground.path("copy.sqlite");
    fs::write(&copy, "not a database").unwrap();
    fs::set_permissions(&copy, PermissionsExt::from_mode(0o600)).unwrap();

    for file in [copy, ground.path("nowhere")] {
        let (status, said) = ground.not_done(&["init", "--restore", file.to_str().unwrap()]);
        assert_eq!(status, 1, "{said}");
        assert_eq!(fs::read(ground.database()).unwrap(), before);
    }
}

/// A broker with one user, bob, that answers one command.
fn broker_for_one_command(ground: &Ground) -> thread::JoinHandle<()> {
    let listener = sockets::listen(&sockets::admin_broker(&ground.run()), None).unwrap();
    thread::spawn(move || {
        listener.set_nonblocking(false).unwrap();
        let (mut stream, _): (UnixStream, _) = listener.accept().unwrap();
        let mut connection = Connection::new(stream.try_clone().unwrap(), Instant::now()).unwrap();
        let mut receive = || -> Request {
            let due = Instant::now() + PATIENCE;
            loop {
                if let Some(request) = connection.receive(Instant::now()).unwrap() {
                    return request;
                }
                assert!(Instant::now() < due);
                thread::yield_now();
            }
        };
        assert!(matches!(receive(), Request::Hello(_)));
        assert_eq!(receive(), Request::Status);
        let bob = UserStatus {
            id: 1002.try_into().unwrap(),
            name: "bob".to_owned().try_into().unwrap(),
            role: Role::User,
            account: "bob".to_owned().try_into().unwrap(),
            uid: 1002,
            second_factor: SecondFactor::Optional,
            login: false,
            weakened: Vec::new(),
            own_key: false,
            worker: None,
        };
        let status = BrokerStatus {
            pid: 1,
            started: 0,
            workers: 0,
            workers_limit: 64,
            gateway_connected: false,
            authd_connected: false,
            shared_key: false,
        };
        let replies = [
            Reply::Hello(Hello::ours()),
            Reply::Broker(status),
            Reply::User(bob),
            Reply::StatusEnd,
        ];
        let mut bytes = Vec::new();
        for reply in &replies {
            codec::encode_frame(reply, &mut bytes).unwrap();
        }
        stream.set_nonblocking(false).unwrap();
        stream.write_all(&bytes).unwrap();
    })
}

#[test]
fn the_broker_says_who_a_user_is_on_telegram() {
    if !is_root() {
        return;
    }
    let ground = Ground::started("");
    let (status, said) = ground.not_done(&["enroll", "bob"]);
    assert!(
        status == 1 && said.contains("kai-brokerd") && said.contains("--telegram-id"),
        "{said}"
    );

    let broker = broker_for_one_command(&ground);
    let output = ground.auth(&["enroll", "bob"]);
    broker.join().unwrap();

    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("bob, Telegram id 1002"), "{said}");
    let broker = broker_for_one_command(&ground);
    let (status, said) = ground.not_done(&["enroll", "carol"]);
    broker.join().unwrap();
    assert!(status == 1 && said.contains("no user carol"), "{said}");
}

/// `oathtool`'s code for a moment.
fn oathtool(secret: &str, at: u64) -> String {
    let mut child = Command::new("oathtool")
        .args(["--totp", "-b", "--now", &format!("@{at}"), "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{secret}").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn an_independent_implementation_takes_the_secret_and_its_codes_are_taken_here() {
    if !is_root() || !has("oathtool", "oathtool") {
        return;
    }
    let ground = Ground::started("");
    let (mut child, authenticator) = begin(&ground, "alice", "1001");
    let step = authenticator::settled_step();

    let confirming = oathtool(&authenticator.secret, (step - 1) * 30);
    writeln!(child.stdin.take().unwrap(), "{confirming}").unwrap();

    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut gateway = Gateway::connect(&ground.run()).unwrap();
    let code = Code::parse(&oathtool(&authenticator.secret, step * 30)).unwrap();
    granted(gateway.verify(&user("alice", 1001), code).unwrap());
}

#[test]
fn no_log_holds_a_code_a_secret_or_a_grant() {
    if !is_root() {
        return;
    }
    let mut ground = Ground::started("");
    let alice = user("alice", 1001);
    let enrolled = ground.enroll("alice", 1001);
    let mut gateway = Gateway::connect(&ground.run()).unwrap();
    let wrong = enrolled.authenticator.wrong();
    gateway.totp(&alice, wrong.clone()).unwrap();
    let right = enrolled.authenticator.totp(authenticator::step());
    let grant = granted(gateway.totp(&alice, right.clone()).unwrap());
    gateway
        .verify(&alice, Code::parse(&enrolled.recovery[0]).unwrap())
        .unwrap();
    ground.stop();

    let audit: String = ground.audit().iter().map(ToString::to_string).collect();
    let logs = (audit + &ground.log()).to_lowercase();

    assert!(logs.contains("alice"));
    let hex: String = grant
        .bits()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let secrets = [
        enrolled.authenticator.secret.as_str(),
        &enrolled.recovery[0],
        &enrolled.recovery[0][4..9],
        &hex,
    ];
    for secret in secrets {
        assert!(!logs.contains(&secret.to_lowercase()), "{logs}");
    }
    // Six digits stand in every line, in times and hashes: codes are looked for as words.
    for code in [wrong.digits(), right.digits()] {
        let alone = |word: &str| word == code;
        assert!(
            !logs.split(|c: char| !c.is_ascii_alphanumeric()).any(alone),
            "{logs}"
        );
    }
}

/// A terminal of so many columns, `kai-auth` in it, and what it said when it ended.
fn at_a_terminal(
    ground: &Ground,
    columns: u16,
    arguments: &[&str],
    answers: impl Fn(&Authenticator) -> Vec<String>,
) -> (i32, String) {
    let size = Winsize {
        ws_row: 50,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let terminal = openpty(&size, None).unwrap();
    let slave = || -> OwnedFd { terminal.slave.try_clone().unwrap() };
    let mut child = ground
        .command(arguments)
        .stdin(slave())
        .stdout(slave())
        .stderr(slave())
        .spawn()
        .unwrap();
    drop(terminal.slave);
    let mut master = fs::File::from(terminal.master);
    let mut said = String::new();
    let mut answers_left: Option<Vec<String>> = None;
    let mut questions = 0;
    let mut chunk = [0; 4096];
    // The end of the last slave is an error to the master.
    while let Ok(read) = master.read(&mut chunk) {
        if read == 0 {
            break;
        }
        said.push_str(&String::from_utf8_lossy(&chunk[..read]));
        let asked = said.matches("The app's code: ").count();
        if asked > questions {
            questions = asked;
            let answers = answers_left.get_or_insert_with(|| {
                let uri = said
                    .lines()
                    .find(|line| line.starts_with("otpauth://"))
                    .unwrap();
                answers(&Authenticator::of(uri.trim()))
            });
            if answers.is_empty() {
                child.kill().unwrap();
            } else {
                writeln!(master, "{}", answers.remove(0)).unwrap();
            }
        }
    }
    (child.wait().unwrap().code().unwrap_or(-1), said)
}

#[test]
fn a_terminal_shows_the_qr_code_and_asks_up_to_five_times() {
    if !is_root() {
        return;
    }
    let ground = Ground::started("");
    let enroll = ["enroll", "alice", "--telegram-id", "1001"];
    let wrong = |authenticator: &Authenticator| authenticator.wrong().digits().to_owned();

    let (status, said) = at_a_terminal(&ground, 80, &enroll, |a| vec![wrong(a); 9]);
    assert_eq!(status, 1, "{said}");
    assert!(
        said.contains("▀") && said.contains("otpauth://totp/kai:alice%40"),
        "{said}"
    );
    assert_eq!(said.matches("The app's code: ").count(), 5, "{said}");
    assert!(ground.status_of("alice").is_null());

    let (_, said) = at_a_terminal(&ground, 80, &enroll, |_| Vec::new());
    assert!(said.contains("▀"));
    assert!(ground.status_of("alice").is_null(), "ended in the middle");

    let (_, said) = at_a_terminal(&ground, 40, &enroll, |_| Vec::new());
    assert!(!said.contains("▀") && said.contains("too narrow"), "{said}");

    let right = |authenticator: &Authenticator| {
        let code = authenticator.code(authenticator::settled_step());
        vec![
            wrong(authenticator),
            format!("{} {}", &code[..3], &code[3..]),
        ]
    };
    let (status, said) = at_a_terminal(
        &ground,
        80,
        &[enroll.as_slice(), &["--no-qr"]].concat(),
        right,
    );
    assert_eq!(status, 0, "{said}");
    assert!(!said.contains("▀"), "{said}");
    assert_eq!(
        said.lines()
            .filter(|line| line.trim().starts_with("kai-"))
            .count(),
        10,
        "{said}"
    );
    assert_eq!(ground.status_of("alice")["telegram_id"], 1001);
}

#[test]
fn the_running_daemon_stands_in_its_walls() {
    if !is_root() {
        return;
    }
    let mut ground = Ground::started("");

    let text = fs::read_to_string(format!("/proc/{}/status", ground.pid())).unwrap();

    let field = |name: &str| {
        let line = text
            .lines()
            .find(|line| line.split(':').next() == Some(name))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(field("Seccomp"), "2");
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Threads"), "1");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(u64::from_str_radix(&field(set), 16), Ok(0), "{set}");
    }
    assert!(ground.log().contains("Landlock ABI"), "{}", ground.log());
    let socket = sockets::admin_authd(&ground.run());
    drop(Admin::connect(&socket).unwrap());
    assert!(ground.stop().success());
}
