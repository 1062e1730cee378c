//! `kai-auth enroll`: at a terminal and without one, and with an authenticator that is not ours.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod ground;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Command, Stdio},
    thread,
    time::Instant,
};

use ground::{
    Ground, PATIENCE,
    authenticator::{self, Authenticator},
    members::granted,
    peers::{Gateway, user},
    programs::{has, is_root},
};
use kai_proto::{
    admin_broker::{BrokerStatus, Reply, Request, UserStatus},
    code::Code,
    codec,
    connection::Connection,
    gateway_authd::Standing,
    gateway_broker::SecondFactor,
    hello::Hello,
    ids::Role,
    sockets,
};
use nix::pty::{Winsize, openpty};

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
