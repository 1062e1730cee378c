//! A code, and what becomes of it.
//!
//! Who is locked, or comes too fast, is sent away with the code unseen and uncounted. Then, in one
//! transaction: the failure is counted; the code is compared; what follows from it is written; the audit
//! log's lines are on disk; the transaction is. Only then is it answered, and only then is there a grant.
//! Whatever fails or ends on the way leaves the state as it was, and nobody let in; where it failed, that
//! attempt is counted before the user's next one is compared, so that a disk that takes nothing gives no
//! free guesses.

use kai_proto::{
    broker_authd::GrantEnd,
    code::{Code, RecoveryCode},
    gateway_authd::{User, Verdict},
    ids::{TelegramId, UnixSeconds},
};
use zeroize::Zeroizing;

use super::{Authority, Undecided, commit};
use crate::{
    attempt::{self, Lockout, Rules},
    audit::{self, AuditLog, Wrong},
    clock::Now,
    codes::{self, Compared},
    store::{Change, Enrolled, Found, StoreError},
};

/// By what a user proved the second factor.
#[derive(Debug, Clone, Copy)]
enum Proof {
    /// The code of this step.
    Step(u64),
    /// A recovery code, which is used up; so many are left.
    Recovery(u8),
}

/// What the count of an earlier attempt came to.
enum Counted {
    /// There was none to be counted.
    Before,
    /// One was, and this is how the user stands now.
    Now(Enrolled),
    /// One was, and it locked them.
    Locked { until: UnixSeconds },
}

impl<L: AuditLog> Authority<L> {
    /// Decides about a code that `user` sent.
    pub(super) fn verify(&mut self, user: &User, code: &Code, now: Now) -> Verdict {
        let enrolled = match self.store.find(user) {
            Ok(Found::Enrolled(enrolled)) => enrolled,
            Ok(Found::Nobody | Found::Changed) => return Verdict::NotEnrolled,
            Err(error) => {
                Undecided::from(error).report();
                return Verdict::Unavailable;
            }
        };
        let locked = |lockout: Lockout| lockout.holds_until(now);
        if let Some(until) = enrolled.lockout.and_then(locked) {
            return Verdict::Locked { until };
        }
        if let Err(wait) = self.throttle.take(user.id, now.boot) {
            let after_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1);
            return Verdict::Later { after_ms };
        }
        let decided = self
            .count_the_last(&enrolled, now)
            .and_then(|counted| match counted {
                // It was the one too many.
                Counted::Locked { until } => Ok(Verdict::Locked { until }),
                Counted::Now(enrolled) => self.decide(&enrolled, code, now),
                Counted::Before => self.decide(&enrolled, code, now),
            });
        decided.unwrap_or_else(|undecided| {
            self.uncounted.insert(user.id);
            undecided.report();
            Verdict::Unavailable
        })
    }

    /// Counts the user's last attempt, if it was compared and could not be written down.
    fn count_the_last(&mut self, enrolled: &Enrolled, now: Now) -> Result<Counted, Undecided> {
        let user = &enrolled.user;
        if !self.uncounted.contains(&user.id) {
            return Ok(Counted::Before);
        }
        let change = self.store.change()?;
        change.charge(user.id, codes::step(now.unix()))?;
        let wrong = Wrong::NotWritten;
        let verdict = refuse(change, &mut self.log, enrolled, wrong, self.rules, now)?;
        self.uncounted.remove(&user.id);
        if let Verdict::Locked { until } = verdict {
            return Ok(Counted::Locked { until });
        }
        match self.store.find(user)? {
            Found::Enrolled(enrolled) => Ok(Counted::Now(enrolled)),
            // Nobody else changes the database.
            Found::Nobody | Found::Changed => Err(Undecided::Gone),
        }
    }

    fn decide(&mut self, enrolled: &Enrolled, code: &Code, now: Now) -> Result<Verdict, Undecided> {
        let user = &enrolled.user;
        let mut random = Zeroizing::new([0; 32]);
        (self.random)(random.as_mut())?;
        let change = self.store.change()?;
        change.charge(user.id, codes::step(now.unix()))?;
        let seen = enrolled.seen_step.max(self.newest_step);
        let proof = match compare(&change, enrolled, code, seen, now)? {
            Ok(proof) => proof,
            Err(wrong) => return refuse(change, &mut self.log, enrolled, wrong, self.rules, now),
        };
        let until = self.grants.absolute_end(now);
        let mut lines = vec![match proof {
            Proof::Step(_) => audit::code_accepted(user),
            Proof::Recovery(left) => audit::recovery_accepted(user, left),
        }];
        let replaces = self.grants.until(user, now).is_some();
        if replaces {
            lines.push(audit::grant_ended(user, GrantEnd::Replaced));
        }
        lines.push(audit::grant_made(user, until));
        commit(change, &mut self.log, user, &lines, now)?;
        if replaces {
            self.tell(user.id, GrantEnd::Replaced);
        }
        Ok(Verdict::Granted {
            grant: self.grants.make(user, &random, now),
            until,
            recovery_left: match proof {
                Proof::Step(_) => None,
                Proof::Recovery(left) => Some(left),
            },
        })
    }
}

/// Compares a code with what there is of its kind, and writes what follows if it is right; `seen` is the
/// latest step that is known to have been.
fn compare(
    change: &Change,
    enrolled: &Enrolled,
    code: &Code,
    seen: u64,
    now: Now,
) -> Result<Result<Proof, Wrong>, StoreError> {
    let id = enrolled.user.id;
    let found = match code {
        Code::Recovery(code) => use_up(change, id, code)?.ok_or(Wrong::Recovery),
        Code::Totp(code) => {
            let step = codes::step(now.unix());
            // What could have been taken before counts as used: a clock that is set back revives nothing.
            let over = seen.saturating_sub(codes::AROUND + 1);
            let last = enrolled.last_step.max(over);
            match codes::compare(&change.secret(id)?, code, step, last) {
                Compared::Accepted(step) => Ok(Proof::Step(step)),
                Compared::Used => Err(Wrong::Used),
                Compared::Wrong => Err(Wrong::Code),
            }
        }
    };
    if let Ok(proof) = found {
        change.forgive(id)?;
        if let Proof::Step(step) = proof {
            change.accept_step(id, step)?;
        }
    }
    Ok(found)
}

/// Compares `code` with all recovery codes of `id` and takes away the one that it is, if there is one.
fn use_up(
    change: &Change,
    id: TelegramId,
    code: &RecoveryCode,
) -> Result<Option<Proof>, StoreError> {
    let codes = change.recovery_codes(id)?;
    let mut found = None;
    for row in &codes {
        if row.hash.is_of(code) {
            found = Some(row);
        }
    }
    let Some(row) = found else {
        return Ok(None);
    };
    change.use_up(row)?;
    let left = u8::try_from(codes.len() - 1).unwrap_or(u8::MAX);
    Ok(Some(Proof::Recovery(left)))
}

/// Writes what a wrong code costs.
fn refuse(
    change: Change,
    log: &mut impl AuditLog,
    enrolled: &Enrolled,
    wrong: Wrong,
    rules: Rules,
    now: Now,
) -> Result<Verdict, Undecided> {
    let user = &enrolled.user;
    let (counts, length) = attempt::after_failure(enrolled.counts, rules);
    let lockout = length.map(|length| Lockout::of(length, now));
    change.refuse(user.id, counts, lockout)?;
    let mut lines = vec![audit::code_refused(user, wrong)];
    if let Some(Lockout { until, .. }) = lockout {
        lines.push(audit::code_locked(user, until));
    }
    commit(change, log, user, &lines, now)?;
    Ok(match lockout {
        Some(Lockout { until, .. }) => Verdict::Locked { until },
        None => Verdict::Refused,
    })
}
