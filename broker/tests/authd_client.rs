//! The broker's side of the conversation with authd, against an authd that the test plays.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    io::Write,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use kai_brokerd::authd::{Authd, Purpose, Said};
use kai_proto::{
    broker_authd::{GrantEnd, Reply, Request, Standing, User},
    codec,
    connection::Connection,
    grant::Grant,
    hello::Hello,
    sockets,
};

const ALICE: i64 = 11;
const BOB: i64 = 12;
const PROVEN: Standing = Standing::Proven { until: 9 };

fn user(id: i64) -> User {
    User {
        name: format!("user{id}").try_into().unwrap(),
        id: id.try_into().unwrap(),
    }
}

fn checked(id: i64, standing: Standing) -> Reply {
    let user = user(id).id;
    Reply::Checked { user, standing }
}

fn ended(id: i64, end: GrantEnd) -> Reply {
    let user = user(id).id;
    Reply::Ended { user, end }
}

/// Both sides; the test says when either does something.
struct Pair {
    _directory: tempfile::TempDir,
    listener: UnixListener,
    broker: Authd,
    authd: Option<Connection>,
}

impl Pair {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let run: &Path = directory.path();
        let listener = sockets::listen(&sockets::broker_authd(run), None).unwrap();
        let broker = Authd::new(run, Instant::now());
        let mut pair = Self {
            _directory: directory,
            listener,
            broker,
            authd: None,
        };
        pair.connect();
        pair
    }

    /// The broker connects, and both say Hello.
    fn connect(&mut self) {
        let due = Instant::now() + Duration::from_secs(5);
        let stream = loop {
            assert!(self.broker.tick(Instant::now()).is_empty());
            match self.listener.accept() {
                Ok((stream, _)) => break stream,
                Err(_) => assert!(Instant::now() < due, "the broker does not connect"),
            }
            thread::sleep(Duration::from_millis(5));
        };
        self.authd = Some(Connection::new(stream, Instant::now()).unwrap());
        assert_eq!(self.asked(), [Request::Hello(Hello::ours())]);
        self.say(&[Reply::Hello(Hello::ours())]);
        assert_eq!(self.heard(), [Said::Hello]);
    }

    fn ask(&mut self, id: i64, byte: u8) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let grant = Some(Grant::from_random([byte; 32]));
        let purpose = Purpose::Attach(ours);
        self.broker.ask(user(id), grant, purpose, Instant::now());
        theirs
    }

    /// What authd has been asked and not read yet.
    fn asked(&mut self) -> Vec<Request> {
        let authd = self.authd.as_mut().unwrap();
        let mut asked = Vec::new();
        while let Some(request) = authd.receive(Instant::now()).unwrap() {
            asked.push(request);
        }
        asked
    }

    fn say(&mut self, replies: &[Reply]) {
        let authd = self.authd.as_mut().unwrap();
        for reply in replies {
            authd.send(reply).unwrap();
        }
    }

    fn heard(&mut self) -> Vec<Said> {
        self.broker.receive(Instant::now())
    }

    fn next_answer(&mut self) -> Option<(i64, Standing)> {
        let (question, standing) = self.broker.next_answer()?;
        Some((question.user.id.into(), standing))
    }
}

#[test]
fn answers_come_in_the_order_of_the_questions_whatever_is_said_between() {
    let mut pair = Pair::new();
    let _connections = [pair.ask(ALICE, 1), pair.ask(BOB, 2), pair.ask(ALICE, 3)];

    pair.say(&[
        ended(7, GrantEnd::Idle),
        checked(ALICE, Standing::CodeNeeded),
        ended(8, GrantEnd::Locked),
        checked(BOB, Standing::NotEnrolled),
        checked(ALICE, PROVEN),
        ended(9, GrantEnd::Absolute),
    ]);
    let heard = pair.heard();

    let said = |id, end| Said::Ended(user(id).id, end);
    assert_eq!(
        heard,
        [
            said(7, GrantEnd::Idle),
            said(8, GrantEnd::Locked),
            said(9, GrantEnd::Absolute)
        ]
    );
    assert_eq!(pair.next_answer(), Some((ALICE, Standing::CodeNeeded)));
    assert_eq!(pair.next_answer(), Some((BOB, Standing::NotEnrolled)));
    assert_eq!(pair.next_answer(), Some((ALICE, PROVEN)));
    assert_eq!(pair.next_answer(), None);
}

#[test]
fn the_end_of_a_proof_is_heard_before_a_hundred_answers_are_taken() {
    let mut pair = Pair::new();
    let _connections: Vec<_> = (0..100).map(|_| pair.ask(ALICE, 1)).collect();
    let mut replies = vec![checked(ALICE, PROVEN); 100];
    replies.push(ended(ALICE, GrantEnd::Locked));

    pair.say(&replies);

    assert_eq!(
        pair.heard(),
        [Said::Ended(user(ALICE).id, GrantEnd::Locked)]
    );
    assert_eq!(pair.broker.waiting(), 100);
    while let Some((_, standing)) = pair.next_answer() {
        assert_eq!(standing, Standing::CodeNeeded, "void since the end");
    }
}

#[test]
fn an_answer_that_came_after_the_end_stands() {
    let mut pair = Pair::new();
    let _connections = [pair.ask(ALICE, 1), pair.ask(ALICE, 2)];

    pair.say(&[
        checked(ALICE, PROVEN),
        ended(ALICE, GrantEnd::Idle),
        checked(ALICE, PROVEN),
    ]);
    pair.heard();

    assert_eq!(pair.next_answer(), Some((ALICE, Standing::CodeNeeded)));
    assert_eq!(pair.next_answer(), Some((ALICE, PROVEN)));
}

#[test]
fn an_answer_that_was_not_taken_is_asked_for_again_when_authd_is_lost() {
    let mut pair = Pair::new();
    let _connections = [pair.ask(ALICE, 1), pair.ask(BOB, 2)];
    let asked = pair.asked();
    pair.say(&[checked(ALICE, PROVEN)]);
    pair.heard();

    pair.authd = None;
    pair.heard();
    assert_eq!(pair.next_answer(), None);
    pair.connect();

    assert_eq!(pair.asked(), asked);
}

#[test]
fn what_was_not_asked_and_what_comes_before_hello_ends_the_connection() {
    for replies in [
        vec![checked(ALICE, PROVEN)],
        vec![Reply::Hello(Hello::ours())],
    ] {
        let mut pair = Pair::new();
        let _connection = pair.ask(BOB, 1);
        pair.say(&replies);
        pair.heard();
        assert!(!pair.broker.connected(), "{replies:?}");
        assert_eq!(pair.broker.waiting(), 1, "bob is asked about again");
    }

    let mut pair = Pair::new();
    pair.authd = None;
    pair.heard();
    let due = Instant::now() + Duration::from_secs(5);
    let mut early = loop {
        pair.broker.tick(Instant::now());
        if let Ok((stream, _)) = pair.listener.accept() {
            break stream;
        }
        assert!(Instant::now() < due);
    };
    let mut bytes = Vec::new();
    codec::encode_frame(&ended(ALICE, GrantEnd::Locked), &mut bytes).unwrap();
    early.write_all(&bytes).unwrap();
    assert!(pair.heard().is_empty());
    assert!(!pair.broker.connected());
}
