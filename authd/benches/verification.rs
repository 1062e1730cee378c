//! What a verification costs beside a bare commit of SQLite on the same disk, alone and with its line in the
//! audit log; fails above its bounds. And what each message of a user costs.
//!
//! All are measured alternately, so that a slow moment of the machine hits each of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    env, io,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kai_audit::Log;
use kai_authd::{
    answers::{Authority, Session, Settings, State},
    attempt::Rules,
    audit::{AuditLog, Record},
    clock::Now,
    grants::Limits,
    store::Store,
};
use kai_proto::{
    admin_authd::{self, AuthdStatus},
    code::{Code, TotpCode},
    gateway_authd::{Reply, Request, Standing, User, Verdict},
};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use rusqlite::Connection;

/// At the median, a verification takes at most so many times a bare commit.
const BOUND: f64 = 2.0;
/// The same with its line in the audit log.
const BOUND_WITH_LINE: f64 = 3.0;
/// Verifications that are counted, of each kind.
const ROUNDS: usize = 300;
/// Messages that are counted.
const MESSAGES: usize = 10_000;
/// A machine has slow moments: only what is missed so often is missed.
const ATTEMPTS: usize = 3;

/// What `Store` asks of SQLite, for a table of one row.
const BARE: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA locking_mode = EXCLUSIVE;
    PRAGMA synchronous = FULL;
    PRAGMA secure_delete = ON;
    PRAGMA wal_autocheckpoint = 100;
    CREATE TABLE bare (id INTEGER PRIMARY KEY, count INTEGER NOT NULL) STRICT;
    INSERT INTO bare VALUES (1, 0);";

/// No log at all.
struct Nothing;

impl AuditLog for Nothing {
    fn append_all(&mut self, _: &[Record], _: SystemTime) -> io::Result<()> {
        Ok(())
    }
}

fn main() {
    // `cargo test --benches` runs this too, with an argument that cargo bench does not give.
    if !env::args().any(|argument| argument == "--bench") {
        return;
    }
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let kind = statfs(place.path()).unwrap().filesystem_type();
    assert_ne!(kind, TMPFS_MAGIC, "a commit to a tmpfs costs nothing");

    let held = (1..=ATTEMPTS).any(|attempt| {
        let place = place.path().join(attempt.to_string());
        std::fs::create_dir(&place).unwrap();
        measure(&place)
    });
    let message = Verified::new(&place.path().join("message"), Nothing).standing();
    println!(
        "each message of a user: {:.1} µs",
        message.as_secs_f64() * 1e6
    );
    assert!(held, "a bound was not held");
}

/// Measures once; true if the bounds hold.
fn measure(place: &Path) -> bool {
    let bare = Connection::open(place.join("bare.sqlite")).unwrap();
    bare.execute_batch(BARE).unwrap();
    let mut without = Verified::new(&place.join("without"), Nothing);
    let log = Log::open(&place.join("log"), kai_audit::Limits::STANDARD).unwrap();
    let mut with = Verified::new(&place.join("with"), log);

    let mut figures: [Vec<Duration>; 5] = Default::default();
    for _ in 0..ROUNDS {
        figures[0].push(timed(|| commit(&bare)));
        figures[1].push(without.wrong());
        figures[2].push(without.right());
        figures[3].push(with.wrong());
        figures[4].push(with.right());
    }

    let medians = figures.map(median);
    let mut held = true;
    println!(
        "a bare commit: {:.3} ms at the median",
        milliseconds(medians[0])
    );
    for (what, took, bound) in [
        ("a wrong code", medians[1], BOUND),
        ("a right code", medians[2], BOUND),
        ("a wrong code with its line", medians[3], BOUND_WITH_LINE),
        (
            "a right code with its line and that of its grant",
            medians[4],
            BOUND_WITH_LINE,
        ),
    ] {
        let ratio = took.as_secs_f64() / medians[0].as_secs_f64();
        println!(
            "{what}: {:.3} ms: {ratio:.2} times (at most {bound})",
            milliseconds(took)
        );
        held &= ratio <= bound;
    }
    held
}

fn commit(bare: &Connection) {
    let update = "UPDATE bare SET count = count + 1 WHERE id = 1";
    bare.execute_batch("BEGIN IMMEDIATE").unwrap();
    bare.prepare_cached(update).unwrap().execute([]).unwrap();
    bare.execute_batch("COMMIT").unwrap();
}

/// authd with one user, whose codes come half an hour apart: the grant of one has ended by the next.
struct Verified<L> {
    authority: Authority<L>,
    user: User,
    secret: [u8; 20],
    seconds: u64,
}

impl<L: AuditLog> Verified<L> {
    fn new(directory: &Path, log: L) -> Self {
        let settings = Settings {
            rules: Rules {
                failures: u32::MAX,
                lockout: Duration::from_secs(900),
                lockout_limit: Duration::from_secs(900),
            },
            limits: Limits {
                idle: Duration::from_secs(60),
                absolute: Duration::from_secs(60),
            },
        };
        let store = Store::create(directory).unwrap();
        let mut verified = Self {
            authority: Authority::new(store, log, settings, getrandom::fill),
            user: User {
                name: "alice".to_owned().try_into().unwrap(),
                id: 1.try_into().unwrap(),
            },
            secret: [0; 20],
            seconds: 1_800_000_000,
        };
        verified.enrol();
        verified
    }

    fn enrol(&mut self) {
        let mut session = Session::default();
        let user = self.user.clone();
        let request = admin_authd::Request::Enrol {
            user,
            replace: false,
        };
        let admin_authd::Reply::Secret(secret) = self.admin(&mut session, request) else {
            panic!("no secret");
        };
        self.secret = secret.0;
        let code = self.code();
        let reply = self.admin(&mut session, admin_authd::Request::Confirm { code });
        assert!(matches!(reply, admin_authd::Reply::Confirmed(_)));
    }

    fn admin(
        &mut self,
        session: &mut Session,
        request: admin_authd::Request,
    ) -> admin_authd::Reply {
        let status = AuthdStatus {
            pid: 0,
            started: 0,
            gateway_connections: 0,
            broker_connected: false,
            answered: 0,
        };
        let now = self.now();
        self.authority
            .to_admin(State::Greeted, session, request, status, now)
            .reply
    }

    fn now(&self) -> Now {
        Now {
            wall: UNIX_EPOCH + Duration::from_secs(self.seconds),
            boot: Duration::from_secs(self.seconds),
        }
    }

    fn code(&self) -> TotpCode {
        let totp = totp_rs::Builder::new()
            .with_secret(self.secret)
            .build()
            .unwrap();
        match Code::parse(&totp.generate(self.seconds).to_string()) {
            Some(Code::Totp(code)) => code,
            other => panic!("{other:?}"),
        }
    }

    fn right(&mut self) -> Duration {
        // Outside of what is measured: the line that says so.
        self.seconds += 1800;
        let now = self.now();
        self.authority.expire(now);
        let code = self.code();
        let (took, verdict) = self.verify(code);
        assert!(matches!(verdict, Verdict::Granted { .. }), "{verdict:?}");
        took
    }

    /// What the gateway asks with each message of somebody who has proved it.
    fn standing(&mut self) -> Duration {
        self.seconds += 1800;
        let code = self.code();
        let (_, Verdict::Granted { grant, .. }) = self.verify(code) else {
            panic!("not granted");
        };
        let request = Request::Standing {
            user: self.user.clone(),
            grant: Some(grant),
            renew: true,
        };
        let now = self.now();
        let ask = || {
            timed(|| {
                let answer = self.authority.to_gateway(State::Greeted, &request, now);
                assert!(matches!(
                    answer.reply,
                    Reply::Standing(Standing::Proven { .. })
                ));
            })
        };
        median(std::iter::repeat_with(ask).take(MESSAGES).collect())
    }

    fn wrong(&mut self) -> Duration {
        self.seconds += 1800;
        let now = self.now();
        self.authority.expire(now);
        let mut digits = <[u8; 6]>::try_from(self.code().digits().as_bytes()).unwrap();
        // A code of another step may be it by chance, one in a million times.
        digits[0] = if digits[0] == b'9' {
            b'0'
        } else {
            digits[0] + 1
        };
        let (took, verdict) = self.verify(digits.try_into().unwrap());
        assert_eq!(verdict, Verdict::Refused);
        took
    }

    fn verify(&mut self, code: TotpCode) -> (Duration, Verdict) {
        let request = Request::Verify {
            user: self.user.clone(),
            code: Code::Totp(code),
        };
        let now = self.now();
        let mut reply = None;
        let took = timed(|| {
            let answer = self.authority.to_gateway(State::Greeted, &request, now);
            reply = Some(answer.reply);
        });
        match reply {
            Some(Reply::Verdict(verdict)) => (took, verdict),
            other => panic!("{other:?}"),
        }
    }
}

fn timed(act: impl FnOnce()) -> Duration {
    let began = Instant::now();
    act();
    began.elapsed()
}

fn median(mut figures: Vec<Duration>) -> Duration {
    figures.sort_unstable();
    figures[figures.len() / 2]
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
