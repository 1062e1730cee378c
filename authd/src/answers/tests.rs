//! The state machine over a database in memory, an audit log that remembers, and clocks that a test moves.

use std::{
    cell::RefCell,
    io,
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kai_audit::Record;
use kai_proto::{
    admin_authd::{self, AuthdStatus, NotDone},
    broker_authd,
    code::{Code, RecoveryCode, TotpCode},
    gateway_authd::{self, Verdict},
    hello::AdminHello,
};

use super::*;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

const SETTINGS: Settings = Settings {
    rules: Rules {
        failures: 3,
        lockout: Duration::from_secs(15 * MINUTE),
        lockout_limit: Duration::from_secs(24 * HOUR),
    },
    limits: Limits {
        idle: Duration::from_secs(30 * MINUTE),
        absolute: Duration::from_secs(12 * HOUR),
    },
};

/// What the log holds, and whether it takes more.
#[derive(Debug, Default)]
struct Lines {
    written: Vec<String>,
    /// How many more lines it takes; none for all.
    room: Option<usize>,
}

#[derive(Debug, Clone, Default)]
struct Memory(Rc<RefCell<Lines>>);

impl AuditLog for Memory {
    fn append_all(&mut self, records: &[Record], _: SystemTime) -> io::Result<()> {
        let mut lines = self.0.borrow_mut();
        for record in records {
            if lines.room == Some(0) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            lines.room = lines.room.map(|room| room - 1);
            lines.written.push(format!("{record:?}"));
        }
        Ok(())
    }
}

/// authd without a daemon around it.
struct Bench {
    authority: Authority<Memory>,
    lines: Memory,
    session: Session,
    wall: u64,
    boot: u64,
}

/// Somebody enrolled.
struct Member {
    user: User,
    secret: [u8; 20],
    recovery: Vec<RecoveryCode>,
}

fn user(name: &str, id: i64) -> User {
    User {
        name: name.to_owned().try_into().unwrap(),
        id: id.try_into().unwrap(),
    }
}

fn status() -> AuthdStatus {
    AuthdStatus {
        pid: 1,
        started: 0,
        gateway_connections: 0,
        broker_connected: false,
        answered: 0,
    }
}

impl Bench {
    fn new() -> Self {
        Self::over(Store::in_memory().unwrap())
    }

    fn over(store: Store) -> Self {
        let lines = Memory::default();
        Self {
            authority: Authority::new(store, lines.clone(), SETTINGS, getrandom::fill),
            lines,
            session: Session::default(),
            // In the middle of a step.
            wall: 30 * 60_000_000 + 15,
            boot: 1_000,
        }
    }

    fn now(&self) -> Now {
        Now {
            wall: UNIX_EPOCH + Duration::from_secs(self.wall),
            boot: Duration::from_secs(self.boot),
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.wall += seconds;
        self.boot += seconds;
    }

    fn gateway(&mut self, request: &gateway_authd::Request) -> gateway_authd::Reply {
        let now = self.now();
        let answer = self.authority.to_gateway(State::Greeted, request, now);
        assert_eq!(answer.next, Some(State::Greeted));
        answer.reply
    }

    fn verify(&mut self, user: &User, code: Code) -> Verdict {
        let request = gateway_authd::Request::Verify {
            user: user.clone(),
            code,
        };
        match self.gateway(&request) {
            gateway_authd::Reply::Verdict(verdict) => verdict,
            other => panic!("{other:?}"),
        }
    }

    fn standing(&mut self, user: &User, grant: Option<&Grant>) -> Standing {
        let request = gateway_authd::Request::Standing {
            user: user.clone(),
            grant: grant.cloned(),
        };
        match self.gateway(&request) {
            gateway_authd::Reply::Standing(standing) => standing,
            other => panic!("{other:?}"),
        }
    }

    fn check(&mut self, user: &User, grant: Option<&Grant>) -> Standing {
        let request = broker_authd::Request::Check {
            user: user.clone(),
            grant: grant.cloned(),
        };
        let now = self.now();
        match self
            .authority
            .to_broker(State::Greeted, &request, now)
            .reply
        {
            broker_authd::Reply::Checked { user: of, standing } => {
                assert_eq!(of, user.id);
                standing
            }
            other => panic!("{other:?}"),
        }
    }

    fn lock(&mut self, user: &User) {
        let request = gateway_authd::Request::Lock { user: user.clone() };
        assert_eq!(self.gateway(&request), gateway_authd::Reply::Locked);
    }

    fn admin(&mut self, request: admin_authd::Request) -> admin_authd::Reply {
        let now = self.now();
        let session = &mut self.session;
        self.authority
            .to_admin(State::Greeted, session, request, status(), now)
            .reply
    }

    fn begin(&mut self, user: &User, replace: bool) -> Result<[u8; 20], NotDone> {
        let user = user.clone();
        match self.admin(admin_authd::Request::Enrol { user, replace }) {
            admin_authd::Reply::Secret(secret) => Ok(secret.0),
            admin_authd::Reply::NotDone(why) => Err(why),
            other => panic!("{other:?}"),
        }
    }

    fn confirm(&mut self, code: TotpCode) -> Result<Vec<RecoveryCode>, NotDone> {
        match self.admin(admin_authd::Request::Confirm { code }) {
            admin_authd::Reply::Confirmed(codes) => Ok(codes),
            admin_authd::Reply::NotDone(why) => Err(why),
            other => panic!("{other:?}"),
        }
    }

    fn remove(&mut self, name: &str) -> admin_authd::Reply {
        let name = name.to_owned().try_into().unwrap();
        self.admin(admin_authd::Request::Remove { name })
    }

    fn unlock(&mut self, name: &str) -> admin_authd::Reply {
        let name = name.to_owned().try_into().unwrap();
        self.admin(admin_authd::Request::Unlock { name })
    }

    /// Enrols with the code of the step before this one, so that those of this one and the next are free.
    fn enrol(&mut self, name: &str, id: i64) -> Member {
        let user = user(name, id);
        let secret = self.begin(&user, false).unwrap();
        let code = digits(&secret, self.step() - 1);
        let recovery = self.confirm(code).unwrap();
        self.authority.take_ended();
        self.lines.0.borrow_mut().written.clear();
        Member {
            user,
            secret,
            recovery,
        }
    }

    fn step(&self) -> u64 {
        crate::codes::step(self.wall)
    }

    /// A code of `member` that is right now.
    fn right(&self, member: &Member) -> Code {
        member.code(self.step())
    }

    /// One that is not, nor near it.
    fn wrong(&self, member: &Member) -> Code {
        let near: Vec<Code> = (self.step() - 3..self.step() + 3)
            .map(|step| member.code(step))
            .collect();
        (0..10)
            .filter_map(|n| Code::parse(&format!("{n:06}")))
            .find(|code| !near.contains(code))
            .unwrap()
    }

    fn row(&self, member: &Member) -> crate::store::Listed {
        let all = self.authority.store.list().unwrap();
        all.into_iter()
            .find(|listed| listed.enrolled.user == member.user)
            .unwrap()
    }

    fn ended(&mut self) -> Vec<(i64, GrantEnd)> {
        let ended = self.authority.take_ended();
        ended
            .iter()
            .map(|ended| (ended.user.into(), ended.end))
            .collect()
    }

    /// The events of the lines since this was last asked.
    fn events(&mut self) -> Vec<String> {
        let lines = std::mem::take(&mut self.lines.0.borrow_mut().written);
        lines
            .iter()
            .map(|line| line.split('"').nth(1).unwrap().to_owned())
            .collect()
    }

    fn room(&self, lines: Option<usize>) {
        self.lines.0.borrow_mut().room = lines;
    }
}

fn digits(secret: &[u8; 20], step: u64) -> TotpCode {
    let totp = totp_rs::Builder::new()
        .with_secret(*secret)
        .build()
        .unwrap();
    match Code::parse(&totp.generate(step * 30).to_string()) {
        Some(Code::Totp(code)) => code,
        other => panic!("{other:?}"),
    }
}

impl Member {
    fn code(&self, step: u64) -> Code {
        Code::Totp(digits(&self.secret, step))
    }
}

fn granted(verdict: Verdict) -> Grant {
    match verdict {
        Verdict::Granted { grant, .. } => grant,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_answered_before_hello_and_none_said_twice() {
    let mut bench = Bench::new();
    let now = bench.now();
    let refused = Answer::end(gateway_authd::Reply::Refused(Refusal::NotPermitted));
    let hello = gateway_authd::Request::Hello(Hello::ours());
    let ask = gateway_authd::Request::Standing {
        user: user("alice", 1),
        grant: None,
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
fn a_right_code_gives_a_grant_that_stands_for_its_user_alone() {
    let mut bench = Bench::new();
    let (alice, bob) = (bench.enrol("alice", 1), bench.enrol("bob", 2));
    let code = bench.right(&alice);

    let verdict = bench.verify(&alice.user, code);

    let until = bench.wall + 12 * HOUR;
    let grant = match verdict {
        Verdict::Granted {
            grant,
            until: told,
            recovery_left: None,
        } => {
            assert_eq!(told, until);
            grant
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(bench.events(), ["code.accepted", "grant.made"]);
    for _ in 0..2 {
        let proven = Standing::Proven { until };
        assert_eq!(bench.standing(&alice.user, Some(&grant)), proven);
        assert_eq!(bench.check(&alice.user, Some(&grant)), proven);
    }
    let forged = Grant::from_random([1; 32]);
    for (who, grant) in [
        (&alice.user, None),
        (&alice.user, Some(&forged)),
        (&bob.user, Some(&grant)),
    ] {
        assert_eq!(bench.check(who, grant), Standing::CodeNeeded);
        assert_eq!(bench.standing(who, grant), Standing::CodeNeeded);
    }
    let changed = user("alice", 9);
    assert_eq!(bench.check(&changed, Some(&grant)), Standing::Changed);
}

#[test]
fn wrong_used_and_expired_codes_get_the_same_word_and_all_are_charged() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let right = bench.right(&alice);
    granted(bench.verify(&alice.user, right.clone()));
    bench.events();
    let old = alice.code(bench.step() - 2);
    for (charged, code) in [(1, right), (2, old)] {
        assert_eq!(bench.verify(&alice.user, code), Verdict::Refused);
        assert_eq!(bench.row(&alice).enrolled.counts.failures, charged);
    }
    assert_eq!(bench.events(), ["code.refused", "code.refused"]);
    // A right one takes the charges back.
    let next = alice.code(bench.step() + 1);
    granted(bench.verify(&alice.user, next));
    assert_eq!(bench.row(&alice).enrolled.counts.failures, 0);
}

#[test]
fn of_two_at_once_with_the_same_code_one_wins() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let code = bench.right(&alice);
    let verdicts: Vec<Verdict> = (0..2)
        .map(|_| bench.verify(&alice.user, code.clone()))
        .collect();
    assert!(matches!(verdicts[0], Verdict::Granted { .. }));
    assert_eq!(verdicts[1], Verdict::Refused);
}

#[test]
fn no_earlier_code_is_taken_after_a_later_one() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let (before, after) = (bench.right(&alice), alice.code(bench.step() + 1));
    granted(bench.verify(&alice.user, after));
    assert_eq!(bench.verify(&alice.user, before), Verdict::Refused);
}

#[test]
fn a_grant_ends_when_it_is_idle_and_a_message_puts_that_off_and_a_check_does_not() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let code = bench.right(&alice);
    let grant = granted(bench.verify(&alice.user, code));
    let proven = |standing| matches!(standing, Standing::Proven { .. });
    for _ in 0..3 {
        bench.pass(29 * MINUTE);
        assert!(proven(bench.check(&alice.user, Some(&grant))));
        assert!(proven(bench.standing(&alice.user, Some(&grant))));
    }
    bench.pass(29 * MINUTE);
    assert!(proven(bench.check(&alice.user, Some(&grant))));
    bench.pass(MINUTE);
    assert_eq!(
        bench.standing(&alice.user, Some(&grant)),
        Standing::CodeNeeded
    );
    assert_eq!(bench.ended(), [(1, GrantEnd::Idle)]);
    assert_eq!(bench.events()[2..], ["grant.ended"]);
}

#[test]
fn a_grant_ends_after_twelve_hours_in_any_case() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let code = bench.right(&alice);
    let grant = granted(bench.verify(&alice.user, code));
    for _ in 0..12 * 3 - 1 {
        bench.pass(20 * MINUTE);
        let standing = bench.standing(&alice.user, Some(&grant));
        assert!(matches!(standing, Standing::Proven { .. }));
    }
    bench.pass(20 * MINUTE - 1);
    assert!(matches!(
        bench.standing(&alice.user, Some(&grant)),
        Standing::Proven { .. }
    ));
    bench.pass(1);
    assert_eq!(bench.authority.next_end(), Some(bench.now().boot));
    let now = bench.now();
    bench.authority.expire(now);
    assert_eq!(bench.ended(), [(1, GrantEnd::Absolute)]);
    assert_eq!(bench.check(&alice.user, Some(&grant)), Standing::CodeNeeded);
    assert_eq!(bench.authority.next_end(), None);
}

#[test]
fn no_clock_that_is_set_stretches_or_ends_a_grant() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let code = bench.right(&alice);
    let grant = granted(bench.verify(&alice.user, code));
    for wall in [0, bench.wall - HOUR, bench.wall + 1000 * HOUR] {
        bench.wall = wall;
        let standing = bench.check(&alice.user, Some(&grant));
        let until = wall + 12 * HOUR;
        assert_eq!(standing, Standing::Proven { until });
    }
    bench.wall = 0;
    bench.boot += 30 * MINUTE;
    assert_eq!(bench.check(&alice.user, Some(&grant)), Standing::CodeNeeded);
}

#[test]
fn a_second_right_code_replaces_the_grant_without_an_end() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let code = bench.right(&alice);
    let first = granted(bench.verify(&alice.user, code));
    bench.pass(30);
    let code = bench.right(&alice);
    bench.events();

    let second = granted(bench.verify(&alice.user, code));

    assert_eq!(bench.check(&alice.user, Some(&first)), Standing::CodeNeeded);
    assert!(matches!(
        bench.check(&alice.user, Some(&second)),
        Standing::Proven { .. }
    ));
    assert_eq!(bench.ended(), []);
    assert_eq!(
        bench.events(),
        ["code.accepted", "grant.ended", "grant.made"]
    );
}

#[test]
fn lock_ends_the_grant_whoever_holds_it() {
    let mut bench = Bench::new();
    let (alice, bob) = (bench.enrol("alice", 1), bench.enrol("bob", 2));
    let [grant, of_bob] = [&alice, &bob].map(|member| {
        let code = bench.right(member);
        granted(bench.verify(&member.user, code))
    });

    bench.lock(&alice.user);
    bench.lock(&alice.user);
    bench.lock(&user("nobody", 99));

    assert_eq!(bench.ended(), [(1, GrantEnd::Locked)]);
    assert_eq!(
        bench.standing(&alice.user, Some(&grant)),
        Standing::CodeNeeded
    );
    assert!(matches!(
        bench.standing(&bob.user, Some(&of_bob)),
        Standing::Proven { .. }
    ));
}

#[test]
fn three_failures_lock_and_what_comes_meanwhile_is_neither_looked_at_nor_charged() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let wrong = bench.wrong(&alice);
    let until = bench.wall + 15 * MINUTE + 1;
    for verdict in [
        Verdict::Refused,
        Verdict::Refused,
        Verdict::Locked { until },
    ] {
        assert_eq!(bench.verify(&alice.user, wrong.clone()), verdict);
    }
    let lines = [
        "code.refused",
        "code.refused",
        "code.refused",
        "code.locked",
    ];
    assert_eq!(bench.events(), lines);
    for code in [bench.right(&alice), wrong.clone()] {
        for _ in 0..100 {
            let verdict = bench.verify(&alice.user, code.clone());
            assert_eq!(verdict, Verdict::Locked { until });
        }
    }
    assert_eq!(bench.events(), [""; 0]);
    let counts = bench.row(&alice).enrolled.counts;
    assert_eq!((counts.failures, counts.lockouts), (0, 1));
    assert_eq!(
        bench.standing(&alice.user, None),
        Standing::Locked { until }
    );
    assert_eq!(bench.check(&alice.user, None), Standing::Locked { until });

    // Its end by boottime, and a second one twice as long.
    bench.pass(15 * MINUTE - 1);
    let verdict = bench.verify(&alice.user, wrong.clone());
    assert_eq!(verdict, Verdict::Locked { until });
    bench.pass(1);
    for _ in 0..2 {
        assert_eq!(bench.verify(&alice.user, wrong.clone()), Verdict::Refused);
    }
    let until = bench.wall + 30 * MINUTE + 1;
    let verdict = bench.verify(&alice.user, wrong);
    assert_eq!(verdict, Verdict::Locked { until });

    // A right code sets everything back.
    bench.pass(30 * MINUTE);
    let code = bench.right(&alice);
    granted(bench.verify(&alice.user, code));
    let row = bench.row(&alice).enrolled;
    assert_eq!((row.counts, row.lockout), (Default::default(), None));
}

#[test]
fn somebody_elses_wrong_codes_do_not_touch_a_user_who_has_proved_it() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let code = bench.right(&alice);
    let grant = granted(bench.verify(&alice.user, code));
    let wrong = bench.wrong(&alice);
    for _ in 0..3 {
        bench.verify(&alice.user, wrong.clone());
    }
    assert!(matches!(
        bench.standing(&alice.user, None),
        Standing::Locked { .. }
    ));
    for standing in [
        bench.standing(&alice.user, Some(&grant)),
        bench.check(&alice.user, Some(&grant)),
    ] {
        assert!(matches!(standing, Standing::Proven { .. }));
    }
}

#[test]
fn a_clock_that_is_set_neither_shortens_a_lockout_nor_revives_a_code() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let used = bench.right(&alice);
    granted(bench.verify(&alice.user, used.clone()));
    let used_at = bench.wall;
    let wrong = bench.wrong(&alice);
    for _ in 0..3 {
        bench.verify(&alice.user, wrong.clone());
    }
    for wall in [used_at + 1000 * HOUR, used_at - HOUR, 0] {
        bench.wall = wall;
        assert!(matches!(
            bench.verify(&alice.user, wrong.clone()),
            Verdict::Locked { .. }
        ));
    }
    bench.boot += 15 * MINUTE;
    bench.wall = used_at;
    assert_eq!(bench.verify(&alice.user, used), Verdict::Refused);

    // A code of a time that has not come was accepted: everything up to it counts as used.
    let ahead = used_at + 10 * HOUR;
    bench.wall = ahead;
    let code = bench.right(&alice);
    granted(bench.verify(&alice.user, code));
    bench.wall = used_at + MINUTE;
    let code = bench.right(&alice);
    assert_eq!(bench.verify(&alice.user, code), Verdict::Refused);
    let listed = match bench.admin(admin_authd::Request::Enrolments) {
        admin_authd::Reply::Enrolment(enrolment) => enrolment,
        other => panic!("{other:?}"),
    };
    assert!(listed.ahead_of_clock);
}

#[test]
fn after_a_restart_counts_and_codes_are_as_before_and_no_grant_stands() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("authd");
    let mut bench = Bench::over(Store::create(&directory).unwrap());
    let (alice, bob) = (bench.enrol("alice", 1), bench.enrol("bob", 2));
    let code = bench.right(&alice);
    let grant = granted(bench.verify(&alice.user, code.clone()));
    let wrong = bench.wrong(&bob);
    for _ in 0..3 {
        bench.verify(&bob.user, wrong.clone());
    }
    let (wall, until) = (bench.wall, bench.wall + 15 * MINUTE + 1);
    drop(bench);

    let mut store = Store::open(&directory).unwrap();
    let mut bench = Bench::over(Store::in_memory().unwrap());
    (bench.wall, bench.boot) = (wall + MINUTE, 5);
    store.anchor_lockouts(bench.now()).unwrap();
    bench.authority.store = store;

    assert_eq!(bench.check(&alice.user, Some(&grant)), Standing::CodeNeeded);
    assert_eq!(bench.verify(&alice.user, code), Verdict::Refused);
    assert_eq!(bench.standing(&bob.user, None), Standing::Locked { until });
    bench.pass(14 * MINUTE + 1);
    assert_eq!(bench.standing(&bob.user, None), Standing::CodeNeeded);
}

#[test]
fn the_ceiling_delays_the_rest_and_not_the_first_attempt_of_another() {
    let mut bench = Bench::new();
    let members: Vec<Member> = (1..=9)
        .map(|id| bench.enrol(&format!("user{id}"), id))
        .collect();
    let mut later = 0;
    for member in &members[..8] {
        let wrong = bench.wrong(member);
        for _ in 0..3 {
            if let Verdict::Later { after_ms } = bench.verify(&member.user, wrong.clone()) {
                assert_eq!(after_ms, 1000);
                later += 1;
            }
        }
    }
    // Of 24, 8 are first ones and 10 are let pass.
    assert_eq!(later, 6);
    let uncounted: u32 = members[..8]
        .iter()
        .map(|member| {
            let counts = bench.row(member).enrolled.counts;
            3 - counts.failures - 3 * counts.lockouts
        })
        .sum();
    assert_eq!(uncounted, 6);
    let ninth = &members[8];
    let code = bench.right(ninth);
    granted(bench.verify(&ninth.user, code));
}

#[test]
fn a_recovery_code_is_taken_once_and_charged_like_others() {
    let mut bench = Bench::new();
    let (alice, bob) = (bench.enrol("alice", 1), bench.enrol("bob", 2));
    let of = |member: &Member, at: usize| Code::Recovery(member.recovery[at].clone());
    assert_eq!(bench.verify(&alice.user, of(&bob, 0)), Verdict::Refused);
    assert_eq!(bench.row(&alice).enrolled.counts.failures, 1);

    let verdict = bench.verify(&alice.user, of(&alice, 0));

    assert!(matches!(
        verdict,
        Verdict::Granted {
            recovery_left: Some(9),
            ..
        }
    ));
    assert_eq!(bench.row(&alice).enrolled.counts.failures, 0);
    assert_eq!(bench.verify(&alice.user, of(&alice, 0)), Verdict::Refused);
    assert_eq!(bench.row(&alice).recovery_left, 9);
    assert_eq!(bench.row(&bob).recovery_left, 10);
    let lines = [
        "code.refused",
        "recovery.accepted",
        "grant.made",
        "code.refused",
    ];
    assert_eq!(bench.events(), lines);
}

#[test]
fn without_its_line_in_the_audit_log_no_code_is_decided() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let (right, wrong) = (bench.right(&alice), bench.wrong(&alice));
    let before = bench.row(&alice);
    for (room, code) in [(0, &wrong), (0, &right), (1, &right)] {
        bench.room(Some(room));
        let verdict = bench.verify(&alice.user, code.clone());
        assert_eq!(verdict, Verdict::Unavailable);
        assert_eq!(bench.row(&alice), before);
        assert_eq!(bench.authority.next_end(), None, "there is a grant");
    }
    bench.room(None);
    granted(bench.verify(&alice.user, right));
}

#[test]
fn without_its_line_in_the_audit_log_no_enrolment_changes_and_every_grant_ends_all_the_same() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let code = bench.right(&alice);
    let grant = granted(bench.verify(&alice.user, code));
    let secret = bench.begin(&alice.user, true).unwrap();
    let before = bench.row(&alice);
    bench.room(Some(0));

    let unavailable = admin_authd::Reply::NotDone(NotDone::Unavailable);
    assert_eq!(bench.remove("alice"), unavailable);
    assert_eq!(bench.unlock("alice"), unavailable);
    let confirming = digits(&secret, bench.step());
    assert_eq!(bench.confirm(confirming.clone()), Err(NotDone::Unavailable));
    assert_eq!(bench.row(&alice), before);
    assert_eq!(
        bench.begin(&user("bob", 2), false),
        Err(NotDone::Unavailable)
    );
    assert!(matches!(
        bench.check(&alice.user, Some(&grant)),
        Standing::Proven { .. }
    ));
    bench.lock(&alice.user);
    assert_eq!(bench.check(&alice.user, Some(&grant)), Standing::CodeNeeded);
    assert_eq!(bench.ended(), [(1, GrantEnd::Locked)]);
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
fn an_enrolment_takes_effect_with_a_code_of_its_own_and_not_before() {
    let mut bench = Bench::new();
    let alice = user("alice", 1);
    assert_eq!(
        bench.confirm(digits(&[1; 20], 5)),
        Err(NotDone::NothingToConfirm)
    );
    let secret = bench.begin(&alice, false).unwrap();
    assert_eq!(bench.standing(&alice, None), Standing::NotEnrolled);
    let other = digits(&[1; 20], bench.step());
    assert_eq!(bench.confirm(other), Err(NotDone::WrongCode));
    assert_eq!(bench.standing(&alice, None), Standing::NotEnrolled);
    let code = digits(&secret, bench.step());

    let recovery = bench.confirm(code.clone()).unwrap();

    assert_eq!(recovery.len(), 10);
    assert_eq!(bench.events(), ["enrolment.began", "enrolment.confirmed"]);
    assert_eq!(bench.ended(), [(1, GrantEnd::Enrolment)]);
    let confirmed = Code::Totp(code.clone());
    assert_eq!(bench.verify(&alice, confirmed), Verdict::Refused);
    assert_eq!(bench.confirm(code), Err(NotDone::NothingToConfirm));
}

#[test]
fn five_wrong_codes_end_an_enrolment() {
    let mut bench = Bench::new();
    let secret = bench.begin(&user("alice", 1), false).unwrap();
    let other = digits(&[1; 20], bench.step());
    for _ in 0..5 {
        assert_eq!(bench.confirm(other.clone()), Err(NotDone::WrongCode));
    }
    let code = digits(&secret, bench.step());
    assert_eq!(bench.confirm(code), Err(NotDone::NothingToConfirm));
}

#[test]
fn an_enrolment_needs_name_and_id_free_or_replaces_both() {
    let mut bench = Bench::new();
    let (alice, bob) = (bench.enrol("alice", 1), bench.enrol("bob", 2));
    let code = bench.right(&alice);
    let grant = granted(bench.verify(&alice.user, code));
    for taken in [user("alice", 1), user("alice", 9), user("carol", 1)] {
        assert_eq!(bench.begin(&taken, false), Err(NotDone::EnrolledAlready));
    }

    // The name of one and the id of the other: both give way, when it is confirmed and not before.
    let both = user("alice", 2);
    let secret = bench.begin(&both, true).unwrap();
    assert!(matches!(
        bench.check(&alice.user, Some(&grant)),
        Standing::Proven { .. }
    ));
    bench.events();
    let code = digits(&secret, bench.step());
    bench.confirm(code).unwrap();

    for gone in [&alice.user, &bob.user] {
        assert_eq!(bench.check(gone, Some(&grant)), Standing::Changed);
    }
    assert_eq!(bench.check(&both, None), Standing::CodeNeeded);
    let removed = "enrolment.removed";
    let lines = [removed, removed, "enrolment.confirmed", "grant.ended"];
    assert_eq!(bench.events(), lines);
    let end = GrantEnd::Enrolment;
    let mut ended = bench.ended();
    ended.sort_by_key(|(id, _)| *id);
    assert_eq!(ended, [(1, end), (2, end)]);
    assert_eq!(bench.authority.store.list().unwrap().len(), 1);
}

#[test]
fn an_enrolment_that_somebody_else_made_meanwhile_is_not_replaced_unasked() {
    let mut bench = Bench::new();
    let alice = user("alice", 1);
    let secret = bench.begin(&alice, false).unwrap();
    let mut other = std::mem::take(&mut bench.session);
    let first = bench.enrol("alice", 1);

    std::mem::swap(&mut bench.session, &mut other);
    let code = digits(&secret, bench.step());
    assert_eq!(bench.confirm(code), Err(NotDone::EnrolledAlready));
    let code = bench.right(&first);
    granted(bench.verify(&alice, code));
}

#[test]
fn a_secret_that_was_not_confirmed_is_gone_with_its_connection() {
    let mut bench = Bench::new();
    let secret = bench.begin(&user("alice", 1), false).unwrap();
    bench.session = Session::default();
    let code = digits(&secret, bench.step());
    assert_eq!(bench.confirm(code), Err(NotDone::NothingToConfirm));
}

#[test]
fn a_removal_takes_the_grant_with_it() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let code = bench.right(&alice);
    let grant = granted(bench.verify(&alice.user, code));
    bench.events();

    assert_eq!(bench.remove("alice"), admin_authd::Reply::Done);

    assert_eq!(bench.events(), ["enrolment.removed", "grant.ended"]);
    assert_eq!(bench.ended(), [(1, GrantEnd::Enrolment)]);
    assert_eq!(
        bench.check(&alice.user, Some(&grant)),
        Standing::NotEnrolled
    );
    let not = admin_authd::Reply::NotDone(NotDone::NotEnrolled);
    assert_eq!(bench.remove("alice"), not);
    assert_eq!(bench.unlock("alice"), not);
}

#[test]
fn unlock_takes_codes_again_and_counts_from_nothing() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let wrong = bench.wrong(&alice);
    for _ in 0..3 {
        bench.verify(&alice.user, wrong.clone());
    }
    bench.events();

    assert_eq!(bench.unlock("alice"), admin_authd::Reply::Done);

    assert_eq!(bench.events(), ["enrolment.unlocked"]);
    let row = bench.row(&alice).enrolled;
    assert_eq!((row.counts, row.lockout), (Default::default(), None));
    let code = bench.right(&alice);
    granted(bench.verify(&alice.user, code));
}

#[test]
fn everybody_is_listed_as_they_stand() {
    let mut bench = Bench::new();
    let (bob, alice) = (bench.enrol("bob", 2), bench.enrol("alice", 1));
    let code = bench.right(&alice);
    granted(bench.verify(&alice.user, code));
    let wrong = bench.wrong(&bob);
    for _ in 0..3 {
        bench.verify(&bob.user, wrong.clone());
    }
    let now = bench.now();
    let request = admin_authd::Request::Enrolments;
    let answer =
        bench
            .authority
            .to_admin(State::Greeted, &mut bench.session, request, status(), now);

    let replies: Vec<_> = [answer.reply].into_iter().chain(answer.more).collect();
    let [
        admin_authd::Reply::Enrolment(first),
        admin_authd::Reply::Enrolment(second),
        admin_authd::Reply::EnrolmentsEnd,
    ] = &replies[..]
    else {
        panic!("{replies:?}");
    };
    assert_eq!((&first.user, &second.user), (&alice.user, &bob.user));
    assert_eq!(first.authenticated_until, Some(bench.wall + 12 * HOUR));
    assert_eq!((first.locked_until, first.recovery_left), (None, 10));
    assert_eq!(second.locked_until, Some(bench.wall + 15 * MINUTE + 1));
    assert_eq!((second.authenticated_until, second.failures), (None, 0));
    assert!(!first.ahead_of_clock && !second.ahead_of_clock);
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
