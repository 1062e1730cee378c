//! The state machine, over a database in memory.

mod codes;
mod enrolments;
mod grants;
mod stage;

use stage::*;

use super::*;

#[test]
fn nothing_is_answered_before_hello_and_none_said_twice() {
    let mut bench = Bench::new();
    let now = bench.now();
    let refused = Answer::end(gateway_authd::Reply::Refused(Refusal::NotPermitted));
    let hello = gateway_authd::Request::Hello(Hello::ours());
    let ask = gateway_authd::Request::Standing {
        user: user("alice", 1),
        grant: None,
        renew: true,
    };
    assert_eq!(bench.authority.to_gateway(State::Fresh, &ask, now), refused);
    assert_eq!(
        bench.authority.to_gateway(State::Greeted, &hello, now),
        refused
    );
    let answer = bench.authority.to_gateway(State::Fresh, &hello, now);
    assert_eq!(
        answer,
        Answer::go_on(gateway_authd::Reply::Hello(Hello::ours()))
    );

    let refused = Answer::end(broker_authd::Reply::Refused(Refusal::NotPermitted));
    let ask = broker_authd::Request::Check {
        user: user("alice", 1),
        grant: None,
    };
    assert_eq!(bench.authority.to_broker(State::Fresh, &ask, now), refused);

    let refused = Answer::end(admin_authd::Reply::Refused(Refusal::NotPermitted));
    let mut session = Session::default();
    for (state, request) in [
        (State::Fresh, admin_authd::Request::Status),
        (
            State::Greeted,
            admin_authd::Request::Hello(AdminHello::of(0)),
        ),
    ] {
        let answer = bench
            .authority
            .to_admin(state, &mut session, request, status(), now);
        assert_eq!(answer, refused);
    }
}

#[test]
fn another_version_is_refused() {
    let mut bench = Bench::new();
    let hello = Hello {
        protocol: Hello::ours().protocol + 1,
    };
    let now = bench.now();
    let request = gateway_authd::Request::Hello(hello);
    let answer = bench.authority.to_gateway(State::Fresh, &request, now);
    assert_eq!(
        answer,
        Answer::end(gateway_authd::Reply::Refused(Refusal::Version))
    );
}

#[test]
fn whoever_is_not_enrolled_or_changed_has_nothing_to_prove() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    for (who, standing) in [
        (user("bob", 2), Standing::NotEnrolled),
        (user("alice", 2), Standing::Changed),
        (user("bob", 1), Standing::Changed),
        (alice.user.clone(), Standing::CodeNeeded),
    ] {
        assert_eq!(bench.standing(&who, None), standing, "{who:?}");
        assert_eq!(bench.check(&who, None), standing, "{who:?}");
        if standing != Standing::CodeNeeded {
            let code = bench.right(&alice);
            assert_eq!(bench.verify(&who, code), Verdict::NotEnrolled);
        }
    }
    assert_eq!(bench.events(), [""; 0], "nothing of this was an attempt");
}

#[test]
fn without_random_numbers_nothing_is_given() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    bench.authority.random = |_| Err(getrandom::Error::UNSUPPORTED);
    let code = bench.right(&alice);
    assert_eq!(bench.verify(&alice.user, code), Verdict::Unavailable);
    assert_eq!(
        bench.begin(&user("bob", 2), false),
        Err(NotDone::Unavailable)
    );
}

#[test]
fn a_line_names_the_user_and_the_admin_and_holds_no_code() {
    let mut bench = Bench::new();
    let now = bench.now();
    let hello = admin_authd::Request::Hello(AdminHello::of(1000));
    let session = &mut bench.session;
    let _ = bench
        .authority
        .to_admin(State::Fresh, session, hello, status(), now);
    let secret = bench.begin(&user("alice", 7), false).unwrap();
    let code = digits(&secret, bench.step());
    bench.confirm(code.clone()).unwrap();
    bench.verify(&user("alice", 7), Code::Totp(code.clone()));

    let lines = bench.lines.0.borrow();
    for line in &lines.written {
        assert!(line.contains("alice") && line.contains('7'), "{line}");
        assert!(!line.contains(code.digits()), "{line}");
    }
    assert!(lines.written[1].contains("1000"), "{}", lines.written[1]);
    assert!(lines.written[2].contains("used"), "{}", lines.written[2]);
}
