//! authd over a database in memory, and beside it a model that keeps what must hold.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    io,
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kai_authd::{
    answers::{Authority, Session, Settings, State},
    attempt::Rules,
    audit::{AuditLog, Record},
    clock::Now,
    grants::Limits,
    store::Store,
};
use kai_proto::{
    admin_authd::{self, AuthdStatus, NotDone},
    broker_authd,
    code::{Code, RecoveryCode, TotpCode},
    gateway_authd::{self, Standing, User, Verdict},
    grant::Grant,
};

/// The defaults of kai.yaml.
pub const SETTINGS: Settings = Settings {
    rules: Rules {
        failures: FAILURES,
        lockout: Duration::from_secs(LOCKOUT),
        lockout_limit: Duration::from_secs(LOCKOUT_LIMIT),
    },
    limits: Limits {
        idle: Duration::from_secs(IDLE),
        absolute: Duration::from_secs(ABSOLUTE),
    },
};

const FAILURES: u32 = 3;
const LOCKOUT: u64 = 900;
const LOCKOUT_LIMIT: u64 = 24 * 3600;
const IDLE: u64 = 1800;
const ABSOLUTE: u64 = 12 * 3600;
/// Seconds of a step.
const STEP: u64 = 30;
/// How many people there are.
const USERS: usize = 3;

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(1) };
    /// The database of the last run: to empty it takes less time than to make one.
    static STORE: Cell<Option<Store>> = const { Cell::new(None) };
}

/// A database in memory in which nobody is enrolled.
///
/// # Panics
/// If there is no memory.
#[must_use]
pub fn empty_store() -> Store {
    let mut store = STORE
        .take()
        .unwrap_or_else(|| Store::in_memory().expect("memory is there"));
    let listed = store.list().expect("memory can be read");
    let change = store.change().expect("memory can be written");
    for row in listed {
        change
            .remove(row.enrolled.user.id)
            .expect("memory can be written");
    }
    change.commit().expect("memory can be written");
    store
}

/// Gives a database back for the next run.
pub fn put_back(store: Store) {
    STORE.set(Some(store));
}

/// Bytes that are the same in each run, so that a finding can be repeated.
///
/// # Errors
/// None.
pub fn chance(bytes: &mut [u8]) -> Result<(), getrandom::Error> {
    for byte in bytes {
        let mut seed = SEED.get();
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        SEED.set(seed);
        *byte = (seed >> 24) as u8;
    }
    Ok(())
}

/// A reading of both clocks, in seconds.
#[must_use]
pub fn moment(wall: u64, boot: u64) -> Now {
    Now {
        wall: UNIX_EPOCH + Duration::from_secs(wall),
        boot: Duration::from_secs(boot),
    }
}

/// What the daemon says of itself.
#[must_use]
pub fn status() -> AuthdStatus {
    AuthdStatus {
        pid: 1,
        started: 0,
        gateway_connections: 0,
        broker_connected: false,
        answered: 0,
    }
}

/// The audit log: the lines since it was last looked at, and whether it takes any.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    written: Rc<RefCell<Vec<String>>>,
    full: Rc<Cell<bool>>,
}

impl AuditLog for Lines {
    fn append_all(&mut self, lines: &[Record], _: SystemTime) -> io::Result<()> {
        if self.full.get() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut written = self.written.borrow_mut();
        written.extend(lines.iter().map(|line| format!("{line:?}")));
        Ok(())
    }
}

/// What must be true of one person.
#[derive(Debug, Default)]
struct Model {
    enrolled: Option<Enrolled>,
    /// The last grant, and the moments by boottime at which it ends.
    grant: Option<(Grant, u64, u64)>,
    /// When a code of theirs was last looked at, by boottime.
    looked_at: Option<u64>,
    /// A code was looked at and could not be written down.
    uncounted: bool,
}

#[derive(Debug)]
struct Enrolled {
    secret: [u8; 20],
    last_step: u64,
    /// The latest step in which a code of theirs was looked at.
    seen_step: u64,
    recovery: Vec<RecoveryCode>,
    failures: u32,
    lockouts: u32,
    /// (end by boottime, length, end by the wall's clock)
    locked: Option<(u64, u64, u64)>,
}

/// authd, the model, and the clocks.
#[derive(Debug)]
pub struct Played {
    authority: Option<Authority<Lines>>,
    lines: Lines,
    session: Session,
    pending: Option<(usize, [u8; 20], bool, u32)>,
    people: [Model; USERS],
    /// Codes that were sent, to be sent again.
    sent: Vec<Code>,
    wall: u64,
    boot: u64,
    /// The latest step that this run of authd has seen.
    newest: u64,
}

impl Default for Played {
    fn default() -> Self {
        Self::new()
    }
}

fn user(at: usize) -> User {
    let name = ["alice", "bob", "carol"][at].to_owned();
    User {
        name: name.try_into().expect("is a name"),
        id: (at as i64 + 1).try_into().expect("is an id"),
    }
}

fn totp(secret: &[u8; 20], step: u64) -> TotpCode {
    let totp = totp_rs::Builder::new()
        .with_secret(*secret)
        .build_noncompliant();
    match Code::parse(&totp.generate(step.saturating_mul(STEP)).to_string()) {
        Some(Code::Totp(code)) => code,
        _ => unreachable!("six digits"),
    }
}

impl Played {
    /// Everybody enrolled but the last.
    #[must_use]
    pub fn new() -> Self {
        SEED.set(0x9e37_79b9_7f4a_7c15);
        let lines = Lines::default();
        let mut played = Self {
            authority: Some(Authority::new(
                empty_store(),
                lines.clone(),
                SETTINGS,
                chance,
            )),
            lines,
            session: Session::default(),
            pending: None,
            people: Default::default(),
            sent: Vec::new(),
            wall: 1_800_000_000,
            boot: 1000,
            newest: 0,
        };
        for at in 0..USERS - 1 {
            played.begin(at, false);
            played.confirm(0);
        }
        played
    }

    fn authority(&mut self) -> &mut Authority<Lines> {
        self.authority.as_mut().expect("is there between restarts")
    }

    fn now(&self) -> Now {
        moment(self.wall, self.boot)
    }

    fn now_step(&self) -> u64 {
        self.wall / STEP
    }

    /// Does one thing, chosen by `what`.
    pub fn step(&mut self, what: u8, one: u8, two: u8) {
        let at = usize::from(one) % USERS;
        match what % 16 {
            0..=2 => self.verify(at, usize::from(one) / USERS % USERS, two),
            3 => self.verify_recovery(at, usize::from(one) / USERS % USERS, two),
            4 => self.replay(at, two),
            5 | 6 => self.ask(at, usize::from(one) / USERS % USERS, two.is_multiple_of(2)),
            7 => self.lock(at),
            8 => self.begin(at, two.is_multiple_of(2)),
            9 => self.confirm(two),
            10 => self.remove(at),
            11 => self.unlock(at),
            12 => self.pass(u64::from(one) << (two % 10)),
            13 => self.set(one, two),
            14 => self.restart(one.is_multiple_of(2)),
            _ => self.lines.full.set(one.is_multiple_of(4)),
        }
        self.ends_are_told();
    }

    fn pass(&mut self, seconds: u64) {
        self.wall += seconds;
        self.boot += seconds;
    }

    /// Sets the wall's clock.
    fn set(&mut self, one: u8, two: u8) {
        let by = u64::from(one) << (two % 24);
        self.wall = if two >= 128 {
            self.wall.saturating_sub(by)
        } else {
            self.wall + by
        };
    }

    /// The daemon, or the whole host, starts anew.
    fn restart(&mut self, host: bool) {
        let (mut store, lines) = {
            let now = self.now();
            self.authority.take().expect("is there").into_parts(now)
        };
        if host {
            self.boot = 5;
        }
        let now = self.now();
        store.anchor_lockouts(now).expect("memory can be written");
        self.authority = Some(Authority::new(store, lines, SETTINGS, chance));
        self.newest = 0;
        self.session = Session::default();
        self.pending = None;
        for person in &mut self.people {
            person.grant = None;
            person.looked_at = None;
            person.uncounted = false;
            if let Some((ends, length, until)) =
                person.enrolled.as_mut().and_then(|row| row.locked.as_mut())
            {
                *ends = self.boot + until.saturating_sub(self.wall).min(*length);
            }
        }
    }

    /// The code of user `of`, of a step near now or any digits, in the name of user `at`.
    fn verify(&mut self, at: usize, of: usize, choice: u8) {
        let code = match (&self.people[of].enrolled, choice) {
            (Some(row), 0..=127) => {
                let offset = u64::from(choice % 7);
                totp(&row.secret, (self.now_step() + offset).saturating_sub(3))
            }
            (_, any) => {
                let digits = format!("{:06}", u32::from(any) * 3917);
                match Code::parse(&digits) {
                    Some(Code::Totp(code)) => code,
                    _ => unreachable!("six digits"),
                }
            }
        };
        self.send(at, Code::Totp(code));
    }

    fn verify_recovery(&mut self, at: usize, of: usize, choice: u8) {
        let left = self.people[of].enrolled.as_ref().map(|row| &row.recovery);
        let code = left.and_then(|codes| codes.get(usize::from(choice) % 12));
        if let Some(code) = code {
            let code = code.clone();
            self.send(at, Code::Recovery(code));
        }
    }

    fn replay(&mut self, at: usize, choice: u8) {
        if !self.sent.is_empty() {
            let code = self.sent[usize::from(choice) % self.sent.len()].clone();
            self.send(at, code);
        }
    }

    fn send(&mut self, at: usize, code: Code) {
        self.sent.push(code.clone());
        self.lines.written.borrow_mut().clear();
        let request = gateway_authd::Request::Verify {
            user: user(at),
            code: code.clone(),
        };
        let now = self.now();
        let reply = self
            .authority()
            .to_gateway(State::Greeted, &request, now)
            .reply;
        let gateway_authd::Reply::Verdict(verdict) = reply else {
            panic!("{reply:?}");
        };
        self.judge(at, &code, verdict);
    }

    /// Whether `verdict` is the one that the model has for `code`.
    fn judge(&mut self, at: usize, code: &Code, verdict: Verdict) {
        let (now, boot, full) = (self.now_step(), self.boot, self.lines.full.get());
        let newest = self.newest.max(now);
        let wall = self.wall;
        let person = &mut self.people[at];
        let Some(row) = &mut person.enrolled else {
            assert_eq!(verdict, Verdict::NotEnrolled);
            return;
        };
        let locked = row.locked.is_some_and(|(ends, ..)| boot < ends);
        assert_eq!(
            locked,
            matches!(verdict, Verdict::Locked { .. }) && self.lines.looked_at() == 0,
            "{verdict:?}"
        );
        if locked {
            return;
        }
        if let Verdict::Later { after_ms } = verdict {
            let recent = person.looked_at.is_some_and(|last| boot - last < 900);
            assert!(recent && after_ms > 0, "a first attempt was put off");
            assert_eq!(self.lines.looked_at(), 0);
            return;
        }
        person.looked_at = Some(boot);
        if full {
            assert_eq!(verdict, Verdict::Unavailable);
            person.uncounted = true;
            return;
        }
        // What the full log did not take is counted first.
        let lock = |row: &mut Enrolled| {
            row.failures = 0;
            let length = (LOCKOUT << row.lockouts.min(20)).min(LOCKOUT_LIMIT);
            row.lockouts += 1;
            let until = wall + length + 1;
            row.locked = Some((boot + length, length, until));
            until
        };
        let mut looked_at = 1;
        if std::mem::take(&mut person.uncounted) {
            row.failures += 1;
            row.seen_step = row.seen_step.max(now);
            if row.failures == FAILURES {
                let until = lock(row);
                assert_eq!(verdict, Verdict::Locked { until });
                assert_eq!(self.lines.looked_at(), 1);
                return;
            }
            looked_at = 2;
        }
        assert_eq!(self.lines.looked_at(), looked_at, "{verdict:?}");
        // A clock that was set back revives nothing.
        let last = row.last_step.max(row.seen_step.max(newest).saturating_sub(2));
        row.seen_step = row.seen_step.max(now);
        let step = match code {
            Code::Totp(code) => (now.saturating_sub(1)..=now + 1)
                .filter(|step| *step > last && totp(&row.secret, *step) == *code)
                .max(),
            Code::Recovery(_) => None,
        };
        let recovery = match code {
            Code::Recovery(code) => row.recovery.iter().position(|left| left == code),
            Code::Totp(_) => None,
        };
        if step.is_none() && recovery.is_none() {
            row.failures += 1;
            if row.failures < FAILURES {
                assert_eq!(verdict, Verdict::Refused);
                return;
            }
            let until = lock(row);
            assert_eq!(verdict, Verdict::Locked { until });
            return;
        }
        let Verdict::Granted {
            grant,
            until,
            recovery_left,
        } = verdict
        else {
            panic!("a right code got {verdict:?}");
        };
        assert_eq!(until, wall + ABSOLUTE);
        row.last_step = row.last_step.max(step.unwrap_or_default());
        if let Some(used) = recovery {
            row.recovery.remove(used);
        }
        let left = recovery.map(|_| row.recovery.len() as u8);
        assert_eq!(recovery_left, left);
        (row.failures, row.lockouts, row.locked) = (0, 0, None);
        let replaced = person
            .grant
            .replace((grant, boot + IDLE, boot + ABSOLUTE))
            .is_some_and(|(_, idle, absolute)| boot < idle && boot < absolute);
        if replaced {
            self.told(at);
        } else {
            // That it ended by itself, before.
            self.ended();
        }
    }

    /// How user `at` stands with the grant of user `of`, as the gateway or the broker asks it.
    fn ask(&mut self, at: usize, of: usize, gateway: bool) {
        let grant = self.people[of]
            .grant
            .as_ref()
            .map(|(grant, ..)| grant.clone());
        let (user, now, boot) = (user(at), self.now(), self.boot);
        let renew = boot.is_multiple_of(2);
        let standing = if gateway {
            let request = gateway_authd::Request::Standing { user, grant, renew };
            match self
                .authority()
                .to_gateway(State::Greeted, &request, now)
                .reply
            {
                gateway_authd::Reply::Standing(standing) => standing,
                other => panic!("{other:?}"),
            }
        } else {
            let request = broker_authd::Request::Check { user, grant };
            match self
                .authority()
                .to_broker(State::Greeted, &request, now)
                .reply
            {
                broker_authd::Reply::Checked { standing, .. } => standing,
                other => panic!("{other:?}"),
            }
        };
        let person = &mut self.people[at];
        let Some(row) = &person.enrolled else {
            assert_eq!(standing, Standing::NotEnrolled);
            return;
        };
        let own = (at == of).then_some(person.grant.as_mut()).flatten();
        match own {
            Some((_, idle, absolute)) if boot < *idle && boot < *absolute => {
                assert!(matches!(standing, Standing::Proven { .. }), "{standing:?}");
                if gateway && renew {
                    *idle = boot + IDLE;
                }
            }
            _ => {
                let locked = row.locked.is_some_and(|(ends, ..)| boot < ends);
                assert_eq!(matches!(standing, Standing::Locked { .. }), locked);
                assert!(locked || standing == Standing::CodeNeeded, "{standing:?}");
            }
        }
    }

    fn lock(&mut self, at: usize) {
        let now = self.now();
        let request = gateway_authd::Request::Lock { user: user(at) };
        let reply = self
            .authority()
            .to_gateway(State::Greeted, &request, now)
            .reply;
        assert_eq!(reply, gateway_authd::Reply::Locked);
        // Left in the model, so that its end must be told.
        if let Some((_, idle, _)) = &mut self.people[at].grant {
            *idle = (*idle).min(self.boot);
        }
    }

    fn admin(&mut self, request: admin_authd::Request) -> admin_authd::Reply {
        let now = self.now();
        let mut session = std::mem::take(&mut self.session);
        let reply = self
            .authority()
            .to_admin(State::Greeted, &mut session, request, status(), now)
            .reply;
        self.session = session;
        reply
    }

    fn begin(&mut self, at: usize, replace: bool) {
        let user = user(at);
        let enrolled = self.people[at].enrolled.is_some();
        self.pending = None;
        match self.admin(admin_authd::Request::Enrol { user, replace }) {
            admin_authd::Reply::Secret(secret) => {
                assert!(replace || !enrolled);
                self.pending = Some((at, secret.0, replace, 0));
            }
            admin_authd::Reply::NotDone(NotDone::EnrolledAlready) => {
                assert!(enrolled && !replace);
            }
            admin_authd::Reply::NotDone(NotDone::Unavailable) => {
                assert!(self.lines.full.get());
            }
            other => panic!("{other:?}"),
        }
    }

    /// A code of the new secret, of a step near now.
    fn confirm(&mut self, choice: u8) {
        let Some((at, secret, replace, wrong)) = self.pending else {
            let code = totp(&[0; 20], 0);
            let reply = self.admin(admin_authd::Request::Confirm { code });
            let nothing = admin_authd::Reply::NotDone(NotDone::NothingToConfirm);
            assert_eq!(reply, nothing);
            return;
        };
        let now = self.now_step();
        let step = (now + u64::from(choice % 8)).saturating_sub(1);
        let code = totp(&secret, step);
        let right = (now.saturating_sub(1)..=now + 1)
            .filter(|step| *step > 0 && totp(&secret, *step) == code)
            .max();
        let enrolled = self.people[at].enrolled.is_some();
        match self.admin(admin_authd::Request::Confirm { code }) {
            admin_authd::Reply::Confirmed(recovery) => {
                assert!(!enrolled || replace);
                assert_eq!(recovery.len(), admin_authd::RECOVERY_CODES);
                self.people[at].grant = None;
                self.people[at].enrolled = Some(Enrolled {
                    secret,
                    last_step: right.expect("a wrong code confirmed"),
                    seen_step: 0,
                    recovery,
                    failures: 0,
                    lockouts: 0,
                    locked: None,
                });
                self.pending = None;
                self.told(at);
            }
            admin_authd::Reply::NotDone(NotDone::WrongCode) => {
                assert!(right.is_none());
                self.pending = (wrong < 4).then_some((at, secret, replace, wrong + 1));
            }
            admin_authd::Reply::NotDone(NotDone::EnrolledAlready) => {
                assert!(enrolled && !replace);
            }
            admin_authd::Reply::NotDone(NotDone::Unavailable) => {
                assert!(self.lines.full.get());
                // A wrong one counts all the same.
                if right.is_none() {
                    self.pending = (wrong < 4).then_some((at, secret, replace, wrong + 1));
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn remove(&mut self, at: usize) {
        let name = user(at).name;
        let reply = self.admin(admin_authd::Request::Remove { name });
        if self.changed(at, &reply) {
            self.people[at].enrolled = None;
            self.people[at].grant = None;
            self.told(at);
        }
    }

    fn unlock(&mut self, at: usize) {
        let name = user(at).name;
        let reply = self.admin(admin_authd::Request::Unlock { name });
        if self.changed(at, &reply)
            && let Some(row) = &mut self.people[at].enrolled
        {
            (row.failures, row.lockouts, row.locked) = (0, 0, None);
            row.seen_step = 0;
            self.newest = self.wall / STEP;
        }
    }

    /// Whether an admin's request for `at` was carried out, as it must or must not have been.
    fn changed(&self, at: usize, reply: &admin_authd::Reply) -> bool {
        use admin_authd::Reply::{Done, NotDone as Not};
        let expected = match (self.people[at].enrolled.is_some(), self.lines.full.get()) {
            (false, _) => Not(NotDone::NotEnrolled),
            (true, true) => Not(NotDone::Unavailable),
            (true, false) => Done,
        };
        assert_eq!(*reply, expected);
        *reply == Done
    }

    /// The broker is told at once of what an admin did.
    fn told(&mut self, at: usize) {
        let ended = self.ended();
        assert!(ended.contains(&at), "{at} is not among {ended:?}");
    }

    fn ended(&mut self) -> BTreeSet<usize> {
        let ended = self.authority().take_ended();
        ended
            .iter()
            .map(|ended| i64::from(ended.user) as usize - 1)
            .collect()
    }

    /// Every grant that is over is told, and no other.
    fn ends_are_told(&mut self) {
        let now = self.now();
        self.newest = self.newest.max(self.now_step());
        self.authority().expire(now);
        let told = self.ended();
        for at in 0..USERS {
            let over = self.people[at]
                .grant
                .as_ref()
                .is_some_and(|(_, idle, absolute)| self.boot >= *idle || self.boot >= *absolute);
            if over {
                assert!(told.contains(&at), "the end of {at} was not told");
                self.people[at].grant = None;
            } else if self.people[at].grant.is_some() {
                assert!(!told.contains(&at), "{at} has a grant and lost it");
            }
        }
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        if let Some(authority) = self.authority.take() {
            put_back(authority.into_parts(moment(self.wall, self.boot)).0);
        }
    }
}

impl Lines {
    /// How many codes were looked at since the lines were last cleared.
    fn looked_at(&self) -> usize {
        let events = ["code.refused", "code.accepted", "recovery.accepted"];
        let written = self.written.borrow();
        let looked_at = |line: &&String| events.iter().any(|event| line.contains(event));
        written.iter().filter(looked_at).count()
    }
}
