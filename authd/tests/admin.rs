//! `kai-auth` and `kai-authd` together, as an admin meets them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod ground;

use std::fs;

use ground::{
    Ground, authenticator,
    members::granted,
    peers::{Admin, Broker, Gateway, user},
    programs::is_root,
};
use kai_proto::{
    broker_authd::GrantEnd,
    code::Code,
    gateway_authd::{Standing, Verdict},
    sockets,
};

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
