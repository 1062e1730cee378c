//! authd without a daemon around it: a database in memory, an audit log that remembers, and clocks that a
//! test moves.

use std::{
    cell::RefCell,
    io,
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kai_audit::Record;
pub use kai_proto::{
    admin_authd::{self, AuthdStatus, NotDone},
    broker_authd,
    code::{Code, RecoveryCode, TotpCode},
    gateway_authd::{self, Verdict},
    hello::AdminHello,
};

use super::super::*;

pub const MINUTE: u64 = 60;
pub const HOUR: u64 = 60 * MINUTE;

pub const SETTINGS: Settings = Settings {
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
pub struct Lines {
    pub written: Vec<String>,
    /// How many more lines it takes; none for all.
    pub room: Option<usize>,
}

#[derive(Debug, Clone, Default)]
pub struct Memory(pub Rc<RefCell<Lines>>);

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
pub struct Bench {
    pub authority: Authority<Memory>,
    pub lines: Memory,
    pub session: Session,
    pub wall: u64,
    pub boot: u64,
}

/// Somebody enrolled.
pub struct Member {
    pub user: User,
    pub secret: [u8; 20],
    pub recovery: Vec<RecoveryCode>,
}

pub fn user(name: &str, id: i64) -> User {
    User {
        name: name.to_owned().try_into().unwrap(),
        id: id.try_into().unwrap(),
    }
}

pub fn status() -> AuthdStatus {
    AuthdStatus {
        pid: 1,
        started: 0,
        gateway_connections: 0,
        broker_connected: false,
        answered: 0,
    }
}

impl Bench {
    pub fn new() -> Self {
        Self::over(Store::in_memory().unwrap())
    }

    pub fn over(store: Store) -> Self {
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

    pub fn now(&self) -> Now {
        Now {
            wall: UNIX_EPOCH + Duration::from_secs(self.wall),
            boot: Duration::from_secs(self.boot),
        }
    }

    pub fn pass(&mut self, seconds: u64) {
        self.wall += seconds;
        self.boot += seconds;
    }

    pub fn gateway(&mut self, request: &gateway_authd::Request) -> gateway_authd::Reply {
        let now = self.now();
        let answer = self.authority.to_gateway(State::Greeted, request, now);
        assert_eq!(answer.next, Some(State::Greeted));
        answer.reply
    }

    pub fn verify(&mut self, user: &User, code: Code) -> Verdict {
        let request = gateway_authd::Request::Verify {
            user: user.clone(),
            code,
        };
        match self.gateway(&request) {
            gateway_authd::Reply::Verdict(verdict) => verdict,
            other => panic!("{other:?}"),
        }
    }

    /// As after a message.
    pub fn standing(&mut self, user: &User, grant: Option<&Grant>) -> Standing {
        self.asked(user, grant, true)
    }

    pub fn asked(&mut self, user: &User, grant: Option<&Grant>, renew: bool) -> Standing {
        let request = gateway_authd::Request::Standing {
            user: user.clone(),
            grant: grant.cloned(),
            renew,
        };
        match self.gateway(&request) {
            gateway_authd::Reply::Standing(standing) => standing,
            other => panic!("{other:?}"),
        }
    }

    pub fn check(&mut self, user: &User, grant: Option<&Grant>) -> Standing {
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

    pub fn lock(&mut self, user: &User) {
        let request = gateway_authd::Request::Lock { user: user.clone() };
        assert_eq!(self.gateway(&request), gateway_authd::Reply::Locked);
    }

    pub fn admin(&mut self, request: admin_authd::Request) -> admin_authd::Reply {
        let now = self.now();
        let session = &mut self.session;
        self.authority
            .to_admin(State::Greeted, session, request, status(), now)
            .reply
    }

    pub fn begin(&mut self, user: &User, replace: bool) -> Result<[u8; 20], NotDone> {
        let user = user.clone();
        match self.admin(admin_authd::Request::Enrol { user, replace }) {
            admin_authd::Reply::Secret(secret) => Ok(secret.0),
            admin_authd::Reply::NotDone(why) => Err(why),
            other => panic!("{other:?}"),
        }
    }

    pub fn confirm(&mut self, code: TotpCode) -> Result<Vec<RecoveryCode>, NotDone> {
        match self.admin(admin_authd::Request::Confirm { code }) {
            admin_authd::Reply::Confirmed(codes) => Ok(codes),
            admin_authd::Reply::NotDone(why) => Err(why),
            other => panic!("{other:?}"),
        }
    }

    pub fn remove(&mut self, name: &str) -> admin_authd::Reply {
        let name = name.to_owned().try_into().unwrap();
        self.admin(admin_authd::Request::Remove { name })
    }

    pub fn unlock(&mut self, name: &str) -> admin_authd::Reply {
        let name = name.to_owned().try_into().unwrap();
        self.admin(admin_authd::Request::Unlock { name })
    }

    /// Enrols with the code of the step before this one, so that those of this one and the next are free.
    pub fn enrol(&mut self, name: &str, id: i64) -> Member {
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

    pub fn step(&self) -> u64 {
        crate::codes::step(self.wall)
    }

    /// A code of `member` that is right now.
    pub fn right(&self, member: &Member) -> Code {
        member.code(self.step())
    }

    /// One that is not, nor near it.
    pub fn wrong(&self, member: &Member) -> Code {
        let near: Vec<Code> = (self.step() - 3..self.step() + 3)
            .map(|step| member.code(step))
            .collect();
        (0..10)
            .filter_map(|n| Code::parse(&format!("{n:06}")))
            .find(|code| !near.contains(code))
            .unwrap()
    }

    pub fn row(&self, member: &Member) -> crate::store::Listed {
        let all = self.authority.store.list().unwrap();
        all.into_iter()
            .find(|listed| listed.enrolled.user == member.user)
            .unwrap()
    }

    pub fn ended(&mut self) -> Vec<(i64, GrantEnd)> {
        let ended = self.authority.take_ended();
        ended
            .iter()
            .map(|ended| (ended.user.into(), ended.end))
            .collect()
    }

    /// The events of the lines since this was last asked.
    pub fn events(&mut self) -> Vec<String> {
        let lines = std::mem::take(&mut self.lines.0.borrow_mut().written);
        lines
            .iter()
            .map(|line| line.split('"').nth(1).unwrap().to_owned())
            .collect()
    }

    pub fn room(&self, lines: Option<usize>) {
        self.lines.0.borrow_mut().room = lines;
    }
}

pub fn digits(secret: &[u8; 20], step: u64) -> TotpCode {
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
    pub fn code(&self, step: u64) -> Code {
        Code::Totp(digits(&self.secret, step))
    }
}

pub fn granted(verdict: Verdict) -> Grant {
    match verdict {
        Verdict::Granted { grant, .. } => grant,
        other => panic!("{other:?}"),
    }
}
