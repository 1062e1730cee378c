//! What developers do, done by the real agent's Bash tool within the walls, for two accounts at once: one
//! table. What is refused is in it as well, with the words of the refusal.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    time::Instant,
};

use kai_emulators::{
    agent,
    messages_api::{MessagesApi, MessagesApiOptions, Reply},
    prerequisite::found_or_skipped,
};
use kai_playground::ground::Agent;
use kai_tests::{ALICE, BOB, Kai, is_root, skipped};

/// What becomes of a command.
#[derive(Debug, Clone, Copy)]
enum Expected {
    /// Status 0, and these words among what it writes.
    Works(&'static str),
    /// Another status, and these words.
    Refused(&'static str),
}
use Expected::{Refused, Works};

/// The program that has to be there, the command, what becomes of it. Each begins in the home.
const TABLE: &[(&str, &str, Expected)] = &[
    // Versions and their neighbours.
    (
        "git",
        "git init -q repo && cd repo && git config user.email a@b && git config user.name a && echo one > file && git add . && git commit -qm first && git log --oneline",
        Works("first"),
    ),
    (
        "git",
        "cd repo && git checkout -qb topic && echo two >> file && git commit -qam second && git checkout -q - && git merge -q topic && git diff HEAD~1 --stat",
        Works("1 file changed"),
    ),
    (
        "git",
        "git clone -q repo copy && cd copy && git stash list && git blame file && git worktree add -q ../tree && ls ../tree",
        Works("file"),
    ),
    (
        "patch",
        "cd copy && echo three >> file && diff -u ../repo/file file > ../change; cd ../repo && patch -p0 file < ../change && cat file",
        Works("three"),
    ),
    // Building.
    (
        "make",
        "mkdir -p made && cd made && printf 'all: a b\\na b:\\n\\t@echo made $@ > $@\\n' > Makefile && make -j4 && cat a b",
        Works("made b"),
    ),
    (
        "gcc",
        "printf '#include <stdio.h>\\nint main(void){puts(\"compiled\");return 0;}\\n' > c.c && gcc -O2 -o c c.c && ./c",
        Works("compiled"),
    ),
    (
        "gcc",
        "printf '#include <pthread.h>\\n#include <stdio.h>\\nvoid*f(void*x){return x;}int main(void){pthread_t t[50];for(int i=0;i<50;i++)pthread_create(t+i,0,f,0);for(int i=0;i<50;i++)pthread_join(t[i],0);puts(\"joined\");}\\n' > t.c && gcc -pthread -o t t.c && ./t",
        Works("joined"),
    ),
    // The compiler of this test, as a developer has one: @compiler@ is where it was put.
    (
        "cc",
        "PATH=@compiler@/bin:$PATH; cargo new -q --vcs none program && cd program && cargo build -q --offline && ./target/debug/program && cargo test -q --offline 2>&1 | tail -3",
        Works("Hello, world!"),
    ),
    // Interpreters.
    (
        "python3",
        "python3 -c 'import multiprocessing as m, hashlib; print(sum(m.Pool(4).map(abs, range(-9, 0))))'",
        Works("45"),
    ),
    (
        "python3",
        "python3 -c 'from multiprocessing import shared_memory as s; m = s.SharedMemory(create=True, size=9); m.buf[0] = 7; print(\"shared\", m.buf[0]); m.close(); m.unlink()'",
        Works("shared 7"),
    ),
    (
        "python3",
        "python3 -c 'import asyncio; print(asyncio.run(asyncio.sleep(0, \"slept\")))' && python3 -c 'import sqlite3; print(sqlite3.connect(\"p.db\").execute(\"select 6*7\").fetchone())'",
        Works("42"),
    ),
    (
        "perl",
        "perl -MPOSIX -e 'print \"perl \", join(\",\", map { $_ * 2 } 1..3), \"\\n\"'",
        Works("2,4,6"),
    ),
    (
        "node",
        "node -e 'const w=require(\"worker_threads\"); new w.Worker(\"require(\\\"worker_threads\\\").parentPort.postMessage(6*7)\",{eval:true}).on(\"message\",m=>console.log(\"worker\",m))'",
        Works("worker 42"),
    ),
    (
        "npm",
        "mkdir -p pack && cd pack && npm init -y --offline >/dev/null && npm pkg set scripts.hi='echo from npm' && npm run --offline --silent hi",
        Works("from npm"),
    ),
    // Network of one's own.
    (
        "python3",
        "cd made; port=$((20000 + $(id -u) % 20000)); python3 -m http.server --bind 127.0.0.1 $port >/dev/null 2>&1 & sleep 1; curl -sS --max-time 5 http://127.0.0.1:$((20000 + $(id -u) % 20000))/a; status=$?; kill %1; [ $status = 0 ]",
        Works("made a"),
    ),
    // Terminals.
    (
        "tmux",
        "tmux -f /dev/null -S ./tmux.sock new-session -d 'echo within > tmux.out' && i=0; until [ -s tmux.out ] || [ $i -gt 50 ]; do sleep 0.1; i=$((i+1)); done; cat tmux.out; tmux -S ./tmux.sock kill-server 2>/dev/null; true",
        Works("within"),
    ),
    (
        "script",
        "script -qec 'tty; stty size; echo typed' /dev/null",
        Works("/dev/pts/"),
    ),
    ("less", "seq 3 | less | tail -1", Works("3")),
    (
        "vi",
        "printf 'a\\n' > v.txt && vi -es -u NONE -c 's/a/edited/' -c wq v.txt < /dev/null; cat v.txt",
        Works("edited"),
    ),
    // Files.
    (
        "tar",
        "mkdir -p d/e && echo x > d/e/f && ln -sf e/f d/l && tar czf d.tgz d && rm -rf d && tar xzf d.tgz && cat d/l",
        Works("x"),
    ),
    (
        "cp",
        "cp -a d d2 && cp -r --reflink=auto d d3 && ln -f d/e/f d/hard && stat -c %h d/hard",
        Works("2"),
    ),
    (
        "find",
        "find d -type f -name f -exec cat {} + && find . -newer c.c -print -quit",
        Works("x"),
    ),
    (
        "sed",
        "echo abc | sed -E 's/(b)/[\\1]/' && sed -i 's/x/y/' d/e/f && cat d/e/f",
        Works("a[b]c"),
    ),
    (
        "awk",
        "seq 4 | awk '{s+=$1} END {print \"sum\", s}'",
        Works("sum 10"),
    ),
    (
        "sort",
        "seq 20000 | shuf | sort -n --parallel=2 -S 1M | tail -1 && seq 9 | xargs -P 3 -n 3 echo | wc -l",
        Works("20000"),
    ),
    (
        "mv",
        "mkdir -p m1 m2 && echo mv > m1/f && mv m1/f m2/ && mktemp -d && cat m2/f && df . | wc -l",
        Works("mv"),
    ),
    (
        "flock",
        "flock lock echo locked && mkfifo -m 600 pipe && { echo through > pipe & cat pipe; } && rm pipe",
        Works("through"),
    ),
    (
        "dd",
        "dd if=/dev/zero of=big bs=1M count=20 status=none && truncate -s 5M big && stat -c %s big && rm big",
        Works("5242880"),
    ),
    (
        "sha256sum",
        "sha256sum c.c > s && sha256sum -c s",
        Works("OK"),
    ),
    (
        "setfattr",
        "echo x > xattr && setfattr -n user.a -v b xattr && getfattr -n user.a --only-values xattr && cp -a xattr xattr2",
        Works("b"),
    ),
    // Processes.
    (
        "ps",
        "sleep 30 & ps -o pid,comm,args | grep -q 'sleep 30' && kill %1 && echo seen",
        Works("seen"),
    ),
    (
        "bash",
        "trap 'echo trapped' USR1; kill -USR1 $$; echo $((6*7)) <(echo x) | tr ' ' '\\n' | head -1; wait; ulimit -n",
        Works("trapped"),
    ),
    (
        "nice",
        "nice -n 5 nice && taskset -c 0 nproc && timeout 1 sleep 5; [ $? = 124 ] && echo timed",
        Works("timed"),
    ),
    (
        "time",
        "bash -c 'time true' 2>&1 && nohup true && setsid -w echo own-session",
        Works("own-session"),
    ),
    // Data.
    ("jq", "echo '{\"a\":[1,2]}' | jq -c '.a|add'", Works("3")),
    (
        "sqlite3",
        "sqlite3 s.db 'create table if not exists t(a); insert into t values (42); pragma journal_mode=wal; select a from t limit 1'",
        Works("42"),
    ),
    (
        "openssl",
        "openssl rand -hex 8 && echo hi | openssl dgst -sha256",
        Works("98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4"),
    ),
    // Keys, and what is asked of the system.
    (
        "ssh-keygen",
        "rm -f id && ssh-keygen -q -t ed25519 -N '' -f id && ssh-keygen -lf id.pub",
        Works("ED25519"),
    ),
    (
        "gpg",
        "gpg --version | head -1 && echo secret | gpg --batch --pinentry-mode loopback --passphrase p -c -o g.gpg --yes && gpg --batch --pinentry-mode loopback --passphrase p -d g.gpg 2>/dev/null",
        Works("secret"),
    ),
    ("man", "man -w man || man --version", Works("man")),
    (
        "id",
        "id -un && getent passwd $(id -u) | cut -d: -f1 && hostname && date +%Z && locale | head -1",
        Works("kai-"),
    ),
    (
        "nproc",
        "nproc && free -m | head -2 && uname -r && cat /proc/loadavg && python3 -c 'import os; print(os.cpu_count() > 0)'",
        Works("True"),
    ),
    (
        "curl",
        "curl -sS --max-time 5 file:///etc/hostname",
        Works(""),
    ),
    // What nobody may: by which wall is in SECURITY.md.
    ("crontab", "echo '* * * * * true' | crontab -", Refused("")),
    ("sudo", "sudo -n id", Refused("no new privileges")),
    ("su", "su -c id root < /dev/null", Refused("")),
    (
        "unshare",
        "unshare -Ur id",
        Refused("Operation not permitted"),
    ),
    ("mount", "mount -t tmpfs none made", Refused("")),
    (
        "strace",
        "strace -f true",
        Refused("Operation not permitted"),
    ),
    ("dmesg", "dmesg", Refused("Operation not permitted")),
    ("chroot", "chroot / id", Refused("Operation not permitted")),
    ("cat", "cat /etc/shadow", Refused("/etc/shadow")),
    ("systemctl", "systemctl --user status", Refused("")),
];

/// A second name for the compiler that builds this test, where accounts may read it: root's home is
/// closed to them, and /opt is open.
fn compiler() -> tempfile::TempDir {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let found = Command::new(rustc)
        .args(["--print", "sysroot"])
        .output()
        .unwrap();
    let from = String::from_utf8(found.stdout).unwrap();
    let place = tempfile::tempdir_in("/opt").unwrap();
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    for part in ["bin", "lib"] {
        let from = format!("{}/{part}", from.trim());
        let linked = |how: &str| {
            Command::new("cp")
                .args([how, from.as_str()])
                .arg(place.path())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        };
        // Another file system takes no links.
        assert!(linked("-al") || linked("-a"), "{from}");
    }
    place
}

/// A kai with the real agent; a prompt `run COMMAND` has it use its Bash tool.
fn start() -> Option<(Kai, MessagesApi)> {
    let program = found_or_skipped(agent::program())?;
    if !is_root() {
        return None;
    }
    let api = MessagesApi::start(MessagesApiOptions::default()).unwrap();
    api.script(|turn| {
        let command = turn.prompt.strip_prefix("run ")?;
        turn.tool_results.is_empty().then(|| Reply::bash(command))
    });
    let kai = Kai::start(|options| {
        options.agent = Agent::Program {
            path: program,
            arguments: Vec::new(),
        };
        options.base_url = Some(api.url());
        // Landlock knows ports and no addresses: with a list of them, a development server on another
        // port cannot be looked at.
        options
            .agent_keys
            .push(("connect_ports".into(), "any".into()));
        for person in &mut options.people {
            person.api_key = Some(format!("sk-ant-made-up-for-{}", person.name));
        }
    });
    Some((kai, api))
}

/// True if the host has the program.
fn is_there(program: &str) -> bool {
    Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        .output()
        .is_ok_and(|found| found.status.success())
}

/// What is wrong with what `command` said, if anything.
fn judge(said: &str, expected: Expected) -> Option<String> {
    let worked = said.contains("[status 0]");
    let (fits, words) = match expected {
        Works(words) => (worked, words),
        Refused(words) => (!worked, words),
    };
    (!fits || !said.contains(words))
        .then(|| format!("{expected:?} was expected, and it said: {said}"))
}

#[test]
fn what_developers_do_works_for_two_accounts_and_what_nobody_may_is_refused() {
    let compiler = compiler();
    let Some((kai, _api)) = start() else {
        return;
    };
    let begin = Instant::now();
    let (mut wrong, mut tried, mut missing) = (Vec::new(), 0, Vec::new());
    for (program, command, expected) in TABLE {
        if !is_there(program) {
            missing.push(*program);
            continue;
        }
        let command = command.replace("@compiler@", compiler.path().to_str().unwrap());
        let prompt = format!("run cd ~; {{ {command} ; }} 2>&1; echo \"[status $?]\"");
        let asked = [ALICE, BOB].map(|who| (who, kai.say(who, &prompt)));
        for (who, asked) in asked {
            let answer = kai.answer(who, asked, |message| message.text().contains("[status "));
            if let Some(problem) = judge(answer.text(), *expected) {
                wrong.push(format!("{who:?}: {command}\n    {problem}"));
            }
        }
        tried += 1;
    }
    eprintln!("{tried} commands for two accounts in {:?}", begin.elapsed());
    assert!(
        wrong.is_empty(),
        "{} of {tried}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(tried >= 40, "too few to mean anything: {tried}");
    if !missing.is_empty() {
        let _ = skipped(&format!("not installed here: {}", missing.join(", ")));
    }
}
