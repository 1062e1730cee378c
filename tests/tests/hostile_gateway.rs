//! A gateway that is wholly hostile: its account and its two sockets, and nothing that the real one
//! would do. It attaches nobody who has a second factor without that person's code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    io::Write,
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use kai_emulators::bot_api::UserId;
use kai_playground::ground::{Daemon, accounts::Account};
use kai_proto::{
    code::Code,
    connection::{Client, ConnectionError},
    conversation::FromWorker,
    gateway_authd::{Reply, Request, Standing, User, Verdict},
    gateway_broker,
    grant::Grant,
    hello::Hello,
    ids::{TelegramId, UserName},
    sockets,
};
use kai_tests::{ALICE, BOB, Enrolled, Kai, as_account, is_root};

const PATIENCE: Duration = Duration::from_secs(10);

/// A kai without its gateway, whose place the test takes; alice and bob are enrolled.
struct Hijacked {
    kai: Kai,
    account: Account,
    alice: Enrolled,
    bob: Enrolled,
}

impl Hijacked {
    fn start(second_factor: &[(&str, &str)]) -> Self {
        let kai = Kai::start(|options| {
            let keys = second_factor.iter();
            options.second_factor = keys
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect();
        });
        let (alice, bob) = (kai.enroll("alice"), kai.enroll("bob"));
        kai.ground.stop_one(Daemon::Gateway).unwrap();
        let account = kai.ground.gateway_account().clone();
        Self {
            kai,
            account,
            alice,
            bob,
        }
    }

    /// A connection to authd, greeted.
    fn authd(&self) -> Client {
        let mut client = self.raw_authd();
        client.send(&Request::Hello(Hello::ours())).unwrap();
        assert_eq!(
            client.receive::<Reply>().unwrap(),
            Reply::Hello(Hello::ours())
        );
        client
    }

    fn raw_authd(&self) -> Client {
        let socket = sockets::gateway_authd(&self.kai.ground.run());
        as_account(&self.account, || Client::connect(&socket, PATIENCE)).unwrap()
    }

    fn ask(&self, request: &Request) -> Reply {
        let mut client = self.authd();
        client.send(request).unwrap();
        client.receive().unwrap()
    }

    fn verify(&self, who: User, code: &str) -> Verdict {
        let code = Code::parse(code).unwrap();
        match self.ask(&Request::Verify { user: who, code }) {
            Reply::Verdict(verdict) => verdict,
            other => panic!("{other:?}"),
        }
    }

    fn prove(&self, who: User, enrolled: &Enrolled) -> Grant {
        match self.verify(who, &enrolled.authenticator.code()) {
            Verdict::Granted { grant, .. } => grant,
            other => panic!("{other:?}"),
        }
    }

    fn standing(&self, who: User, grant: Option<Grant>) -> Standing {
        let renew = true;
        match self.ask(&Request::Standing {
            user: who,
            grant,
            renew,
        }) {
            Reply::Standing(standing) => standing,
            other => panic!("{other:?}"),
        }
    }

    /// What an attach brings: the worker's Hello, or the broker's refusal, in place of the worker.
    fn attach(&self, who: UserId, grant: Option<Grant>) -> FromWorker {
        self.attached(who, grant).1
    }

    fn attached(&self, who: UserId, grant: Option<Grant>) -> (Client, FromWorker) {
        let mut client = self.broker();
        client
            .send(&gateway_broker::Request::Hello(Hello::ours()))
            .unwrap();
        let hello: gateway_broker::Reply = client.receive().unwrap();
        assert_eq!(hello, gateway_broker::Reply::Hello(Hello::ours()));
        let user = TelegramId::try_from(who.0).unwrap();
        client
            .send(&gateway_broker::Request::Attach { user, grant })
            .unwrap();
        let answer = client.receive().unwrap();
        (client, answer)
    }

    fn broker(&self) -> Client {
        let socket = sockets::gateway_broker(&self.kai.ground.run());
        as_account(&self.account, || Client::connect(&socket, PATIENCE)).unwrap()
    }

    fn assert_refused(&self, who: UserId, grant: Option<Grant>, what: &str) {
        let answer = self.attach(who, grant);
        assert_eq!(
            answer,
            FromWorker::Refused(gateway_broker::Refusal::SecondFactor),
            "{what}"
        );
    }

    fn has_worker(&self, name: &str) -> bool {
        self.kai.ground.status().unwrap().worker(name).is_some()
    }
}

fn user(name: &str, id: UserId) -> User {
    User {
        name: UserName::try_from(name.to_owned()).unwrap(),
        id: TelegramId::try_from(id.0).unwrap(),
    }
}

fn alice() -> User {
    user("alice", ALICE)
}

fn bob() -> User {
    user("bob", BOB)
}

fn is_hello(answer: &FromWorker) -> bool {
    matches!(answer, FromWorker::Hello(hello) if hello.matches())
}

#[test]
fn forged_guessed_and_anothers_grants_attach_nobody() {
    if !is_root() {
        return;
    }
    let hijacked = Hijacked::start(&[]);
    let bobs = hijacked.prove(bob(), &hijacked.bob);
    let mut nearly = *bobs.bits();
    nearly[31] ^= 1;
    hijacked.assert_refused(ALICE, None, "no grant");
    hijacked.assert_refused(ALICE, Some(Grant::from_random([0; 32])), "zeros");
    hijacked.assert_refused(ALICE, Some(Grant::from_random([0xff; 32])), "ones");
    hijacked.assert_refused(ALICE, Some(bobs.clone()), "bob's");
    hijacked.assert_refused(BOB, Some(Grant::from_random(nearly)), "one bit off");
    for guess in 0..200_u8 {
        hijacked.assert_refused(ALICE, Some(Grant::from_random([guess; 32])), "a guess");
    }
    assert!(!hijacked.has_worker("alice") && !hijacked.has_worker("bob"));
    // The same hands, with what bob's code gave, get bob's worker.
    assert!(is_hello(&hijacked.attach(BOB, Some(bobs))));
    assert!(!hijacked.has_worker("alice"));
}

#[test]
fn a_lie_about_a_name_or_an_id_attaches_nobody() {
    if !is_root() {
        return;
    }
    let hijacked = Hijacked::start(&[]);
    for liar in [
        user("mallory", ALICE),
        user("alice", UserId(6666)),
        user("bob", ALICE),
    ] {
        assert_eq!(hijacked.standing(liar.clone(), None), Standing::Changed);
        let verdict = hijacked.verify(liar, &hijacked.alice.authenticator.used());
        assert_eq!(verdict, Verdict::NotEnrolled);
    }
    // The broker asks by its own table, and not by what the gateway says.
    hijacked.assert_refused(ALICE, None, "after the lies");
}

#[test]
fn an_accepted_code_is_accepted_once_also_by_two_at_the_same_moment() {
    if !is_root() {
        return;
    }
    let hijacked = Hijacked::start(&[("failures", "10")]);
    let code = Code::parse(&hijacked.alice.authenticator.code()).unwrap();
    let mut clients: Vec<Client> = (0..8).map(|_| hijacked.authd()).collect();
    for client in &mut clients {
        let user = alice();
        let code = code.clone();
        client.send(&Request::Verify { user, code }).unwrap();
    }
    let verdicts: Vec<Reply> = clients.iter_mut().map(|c| c.receive().unwrap()).collect();
    let granted = |reply: &&Reply| matches!(reply, Reply::Verdict(Verdict::Granted { .. }));
    assert_eq!(verdicts.iter().filter(granted).count(), 1, "{verdicts:?}");

    // Nor later, and nor the code that confirmed the enrolment.
    let used = hijacked.alice.authenticator.used();
    assert_eq!(hijacked.verify(alice(), &used), Verdict::Refused);
}

#[test]
fn grants_that_are_locked_expired_or_older_than_authd_attach_nobody() {
    if !is_root() {
        return;
    }
    let hijacked = Hijacked::start(&[("idle", "3s")]);
    let grant = hijacked.prove(alice(), &hijacked.alice);
    let (mut held, hello) = hijacked.attached(ALICE, Some(grant.clone()));
    assert!(is_hello(&hello));
    assert_eq!(
        hijacked.ask(&Request::Lock { user: alice() }),
        Reply::Locked
    );
    let locked = Instant::now();
    // What it holds ends with the grant, whether it closes it or not.
    assert!(matches!(
        held.receive::<FromWorker>(),
        Err(ConnectionError::Closed | ConnectionError::Io(_))
    ));
    assert!(locked.elapsed() < Duration::from_secs(1));
    hijacked.assert_refused(ALICE, Some(grant), "locked");

    let grant = hijacked.prove(alice(), &hijacked.alice);
    thread::sleep(Duration::from_secs(4));
    hijacked.assert_refused(ALICE, Some(grant), "expired");
    let due = Instant::now() + Duration::from_secs(2);
    while hijacked.has_worker("alice") {
        assert!(Instant::now() < due, "the worker outlived the grant");
        thread::sleep(Duration::from_millis(20));
    }

    let grant = hijacked.prove(bob(), &hijacked.bob);
    hijacked.kai.ground.kill(Daemon::Authd).unwrap();
    thread::sleep(Duration::from_millis(300));
    hijacked.kai.ground.wait_until_ready(Daemon::Authd).unwrap();
    hijacked.assert_refused(BOB, Some(grant), "older than authd");
}

#[test]
fn a_locked_user_is_locked_for_a_right_code_too() {
    if !is_root() {
        return;
    }
    let hijacked = Hijacked::start(&[]);
    for _ in 0..2 {
        let wrong = hijacked.alice.authenticator.wrong();
        assert_eq!(hijacked.verify(alice(), &wrong), Verdict::Refused);
    }
    let third = hijacked.verify(alice(), &hijacked.alice.authenticator.wrong());
    assert!(matches!(third, Verdict::Locked { .. }), "{third:?}");
    let right = hijacked.verify(alice(), &hijacked.alice.authenticator.code());
    assert_eq!(right, third);
    let recovery = hijacked.verify(alice(), &hijacked.alice.recovery[0]);
    assert_eq!(recovery, third);
    hijacked.assert_refused(ALICE, None, "locked out");
    // bob is not.
    hijacked.prove(bob(), &hijacked.bob);
}

#[test]
fn frames_out_of_their_order_end_the_connection_and_nothing_else() {
    if !is_root() {
        return;
    }
    let hijacked = Hijacked::start(&[]);
    let code = Code::parse(&hijacked.alice.authenticator.code()).unwrap();
    let verify = Request::Verify {
        user: alice(),
        code: code.clone(),
    };
    let hello = Request::Hello(Hello::ours());
    for order in [
        vec![&verify],
        vec![&hello, &hello],
        vec![&hello, &hello, &verify],
    ] {
        let mut client = hijacked.raw_authd();
        for request in order {
            // Of a connection that has ended already it may say so.
            let _ = client.send(request);
        }
        let mut last = client.receive::<Reply>();
        if matches!(last, Ok(Reply::Hello(_))) {
            last = client.receive();
        }
        assert!(matches!(last, Ok(Reply::Refused(_))), "{last:?}");
    }
    let mut client = hijacked.broker();
    let attach = gateway_broker::Request::Attach {
        user: TelegramId::try_from(ALICE.0).unwrap(),
        grant: None,
    };
    client.send(&attach).unwrap();
    let answer = client.receive::<gateway_broker::Reply>();
    assert!(matches!(
        answer,
        Ok(gateway_broker::Reply::Refused(_)) | Err(_)
    ));

    // The code that came too early was not even charged.
    match hijacked.ask(&verify) {
        Reply::Verdict(Verdict::Granted { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn garbage_giants_and_half_frames_do_authd_no_harm() {
    if !is_root() {
        return;
    }
    let hijacked = Hijacked::start(&[]);
    let socket = sockets::gateway_authd(&hijacked.kai.ground.run());
    let pid = hijacked.kai.ground.pid(Daemon::Authd);
    let pieces: [&[u8]; 5] = [
        &[0xff; 64],
        &[0xff, 0xff, 0xff, 0x7f],
        &[4, 0, 0, 0, 9, 9, 9, 9],
        &[1, 0],
        &[0, 0, 0, 0],
    ];
    for piece in pieces {
        let mut stream = as_account(&hijacked.account, || UnixStream::connect(&socket)).unwrap();
        let _ = stream.write_all(piece);
    }
    let mut open = Vec::new();
    for _ in 0..100 {
        open.push(as_account(&hijacked.account, || UnixStream::connect(&socket)).unwrap());
    }
    hijacked.prove(alice(), &hijacked.alice);
    assert_eq!(hijacked.kai.ground.pid(Daemon::Authd), pid);
}

#[test]
fn a_grant_that_another_took_the_place_of_ends_its_connection_within_a_second() {
    if !is_root() {
        return;
    }
    let hijacked = Hijacked::start(&[]);
    let again = |code: &str| match hijacked.verify(alice(), code) {
        Verdict::Granted { grant, .. } => grant,
        other => panic!("{other:?}"),
    };
    let first = hijacked.prove(alice(), &hijacked.alice);
    let (mut held, hello) = hijacked.attached(ALICE, Some(first));
    assert!(is_hello(&hello));
    let pid = || {
        let status = hijacked.kai.ground.status().unwrap();
        status.worker("alice").map(|worker| worker.pid)
    };
    let started = pid();
    assert!(started.is_some());

    let second = again(&hijacked.alice.recovery[0]);
    let replaced = Instant::now();
    assert!(matches!(
        held.receive::<FromWorker>(),
        Err(ConnectionError::Closed | ConnectionError::Io(_))
    ));
    assert!(replaced.elapsed() < Duration::from_secs(1));
    // The worker stays for whoever presents the other one, and for nobody else.
    let (_held, hello) = hijacked.attached(ALICE, Some(second));
    assert!(is_hello(&hello));
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(pid(), started);
    again(&hijacked.alice.recovery[1]);
    thread::sleep(Duration::from_secs(1));
    assert!(!hijacked.has_worker("alice"));
}
