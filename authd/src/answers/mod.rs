//! What each peer is answered: the state of authd, and one function for each kind of peer that takes the
//! state of its connection and one request. None does I/O but for the database and the audit log, and
//! none reads a clock or makes chance: both are given.
//!
//! - [`gateway`], [`broker`], [`admin`]: the three kinds of peers;
//! - [`verification`]: a code, and what becomes of it.

pub mod admin;
pub mod broker;
pub mod gateway;
pub mod verification;

use std::{collections::BTreeSet, fmt, time::Duration};

use kai_proto::{
    broker_authd::GrantEnd,
    gateway_authd::{Refusal, Standing, User},
    grant::Grant,
    hello::Hello,
    ids::{Invalid, TelegramId},
};
use tracing::{error, warn};

pub use admin::Session;
pub use kai_proto::gateway_authd::State;

use crate::{
    attempt::Rules,
    audit::{self, AuditLog, Record},
    clock::Now,
    codes,
    grants::{Grants, Limits},
    store::{Change, Found, Store, StoreError},
    throttle::Throttle,
};

/// Fills a buffer with random bytes, as getrandom(2) does.
pub type Random = fn(&mut [u8]) -> Result<(), getrandom::Error>;

/// A reply, and what becomes of the connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<R> {
    /// What is sent.
    pub reply: R,
    /// What is sent after it; almost always nothing.
    pub more: Vec<R>,
    /// The connection's next state; none ends it.
    pub next: Option<State>,
}

impl<R> Answer<R> {
    fn go_on(reply: R) -> Self {
        Self {
            reply,
            more: Vec::new(),
            next: Some(State::Greeted),
        }
    }

    fn end(reply: R) -> Self {
        Self {
            reply,
            more: Vec::new(),
            next: None,
        }
    }

    fn hello(hello: Hello, ours: impl Fn(Hello) -> R, refused: impl Fn(Refusal) -> R) -> Self {
        if hello.matches() {
            Self::go_on(ours(Hello::ours()))
        } else {
            Self::end(refused(Refusal::Version))
        }
    }
}

/// What a user proved does not hold any more; the broker is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Whose.
    pub user: TelegramId,
    /// Why.
    pub end: GrantEnd,
}

/// What an admin has set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// What wrong codes cost.
    pub rules: Rules,
    /// How long a grant holds.
    pub limits: Limits,
}

/// All that authd knows and decides by.
pub struct Authority<L> {
    store: Store,
    log: L,
    grants: Grants,
    throttle: Throttle,
    /// The latest step of the wall's clock that this run has seen: it may be set back.
    newest_step: u64,
    /// Whose last attempt could not be written down.
    uncounted: BTreeSet<TelegramId>,
    rules: Rules,
    random: Random,
    ended: Vec<Ended>,
}

/// Why something was not decided. It is told in the daemon's own log, and a peer learns only that it was
/// not.
#[derive(Debug, thiserror::Error)]
enum Undecided {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the audit log cannot be written: {0}")]
    Audit(#[from] std::io::Error),
    #[error("the kernel gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("a user is gone from the database while it is read")]
    Gone,
}

impl Undecided {
    /// Says why.
    fn report(&self) {
        error!("nothing was decided: {self}");
    }
}

impl<L: AuditLog> Authority<L> {
    /// What there is in `store` and nobody proven. Its lockouts are to be anchored already
    /// ([`Store::anchor_lockouts`]).
    #[must_use]
    pub fn new(store: Store, log: L, settings: Settings, random: Random) -> Self {
        Self {
            store,
            log,
            grants: Grants::new(settings.limits),
            throttle: Throttle::new(),
            newest_step: 0,
            uncounted: BTreeSet::new(),
            rules: settings.rules,
            random,
            ended: Vec::new(),
        }
    }

    /// The audit log.
    pub fn log(&mut self) -> &mut L {
        &mut self.log
    }

    /// Ends all grants because the daemon stops; gives the database and the audit log, which says so.
    #[must_use]
    pub fn into_parts(mut self, now: Now) -> (Store, L) {
        self.expire(now);
        let lines: Vec<Record> = self.grants.held().map(audit::grant_forgotten).collect();
        if let Err(error) = self.log.append_all(&lines, now.wall) {
            warn!("grants ended without their lines in the audit log: {error}");
        }
        (self.store, self.log)
    }

    /// Ends the grants whose time is over. Every request does so first; this is for when none comes.
    pub fn expire(&mut self, now: Now) {
        self.newest_step = self.newest_step.max(codes::step(now.unix()));
        for (user, end) in self.grants.expire(now) {
            self.note_end(&user, end, now);
        }
    }

    /// When [`expire`](Self::expire) is due, by `CLOCK_BOOTTIME`.
    #[must_use]
    pub fn next_end(&self) -> Option<Duration> {
        self.grants.next_end()
    }

    /// Whose proofs have ended since this was last asked. The broker is to be told before anything else is
    /// answered, or a later proof could be taken for the one that ended.
    pub fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// How `user` stands with `grant`.
    fn standing(&self, user: &User, grant: Option<&Grant>, now: Now) -> Standing {
        let enrolled = match self.store.find(user) {
            Ok(Found::Nobody) => return Standing::NotEnrolled,
            Ok(Found::Changed) => return Standing::Changed,
            Ok(Found::Enrolled(enrolled)) => enrolled,
            Err(error) => {
                Undecided::from(error).report();
                return Standing::Unavailable;
            }
        };
        // Before the lockout: who has proved it is not kept out by somebody else's wrong codes.
        if let Some(until) = grant.and_then(|grant| self.grants.proves(user, grant, now)) {
            return Standing::Proven { until };
        }
        match enrolled
            .lockout
            .and_then(|lockout| lockout.holds_until(now))
        {
            Some(until) => Standing::Locked { until },
            None => Standing::CodeNeeded,
        }
    }

    /// Ends the grants of this name and of this id, and notes it.
    fn end_grants(&mut self, user: &User, end: GrantEnd, now: Now) {
        for user in self.grants.end(user) {
            self.note_end(&user, end, now);
        }
    }

    /// A grant has ended: this is not put off for a log that cannot be written.
    fn note_end(&mut self, user: &User, end: GrantEnd, now: Now) {
        let line = audit::grant_ended(user, end);
        if let Err(error) = self.log.append_all(&[line], now.wall) {
            warn!("a grant ended without its line in the audit log: {error}");
        }
        self.tell(user.id, end);
    }

    fn tell(&mut self, user: TelegramId, end: GrantEnd) {
        let ended = Ended { user, end };
        if !self.ended.contains(&ended) {
            self.ended.push(ended);
        }
    }
}

/// Has `lines`, which are about `user`, on disk, and then the change that they tell of. Where that fails
/// the log says what did not come to be; no more can be done than to say that, too.
fn commit(
    change: Change<'_>,
    log: &mut impl AuditLog,
    user: &User,
    lines: &[Record],
    now: Now,
) -> Result<(), Undecided> {
    log.append_all(lines, now.wall)?;
    change.commit().map_err(|error| {
        let _ = log.append_all(&[audit::not_written(user)], now.wall);
        error.into()
    })
}

impl<L> fmt::Debug for Authority<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
