//! To root's command: enrolments, and the daemon itself.

use kai_proto::{
    admin_authd::{
        AuthdStatus, Enrolment, NotDone, RECOVERY_CODES, Refusal, Reply, Request, SECRET, permitted,
    },
    broker_authd::GrantEnd,
    code::{RecoveryCode, TotpCode},
    gateway_authd::User,
    ids::UserName,
};
use tracing::warn;
use zeroize::Zeroizing;

use super::{Answer, Authority, State, Undecided, commit};
use crate::{
    audit::{self, AuditLog},
    clock::Now,
    codes::{self, Compared, RecoveryHash},
    store::{Listed, NewEnrolment, Secret},
};

/// Wrong codes that end an enrolment which waits for its confirmation.
const TRIES: u32 = 5;

/// What a connection of root's command has beside its state. A secret that was never confirmed goes with it.
#[derive(Debug, Default)]
pub struct Session {
    /// Who runs the command, as it says itself.
    admin: u32,
    pending: Option<Pending>,
}

/// An enrolment that waits for a code.
#[derive(Debug)]
struct Pending {
    user: User,
    secret: Secret,
    replace: bool,
    wrong: u32,
}

/// Why an admin's request was not carried out.
#[derive(Debug, thiserror::Error)]
enum Not {
    #[error(transparent)]
    Done(#[from] NotDone),
    #[error(transparent)]
    Decided(#[from] Undecided),
}

impl From<crate::store::StoreError> for Not {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Decided(error.into())
    }
}

impl From<std::io::Error> for Not {
    fn from(error: std::io::Error) -> Self {
        Self::Decided(error.into())
    }
}

impl From<getrandom::Error> for Not {
    fn from(error: getrandom::Error) -> Self {
        Self::Decided(error.into())
    }
}

impl<L: AuditLog> Authority<L> {
    /// Answers one request of root's command, whose connection is in `state`, with the daemon's own word
    /// about itself.
    #[must_use]
    pub fn to_admin(
        &mut self,
        state: State,
        session: &mut Session,
        request: Request,
        status: AuthdStatus,
        now: Now,
    ) -> Answer<Reply> {
        if !permitted(state, &request) {
            return Answer::end(Reply::Refused(Refusal::NotPermitted));
        }
        self.expire(now);
        let done = match request {
            Request::Hello(hello) => {
                session.admin = hello.admin;
                return Answer::hello(hello.hello, Reply::Hello, Reply::Refused);
            }
            Request::Status => return Answer::go_on(Reply::Status(status)),
            Request::Enrolments => return self.enrolments(session.admin, now),
            Request::Enrol { user, replace } => self.begin(session, user, replace, now),
            Request::Confirm { code } => self.confirm(session, &code, now),
            Request::Remove { name } => self.remove(&name, session.admin, now),
            Request::Unlock { name } => self.unlock(&name, session.admin, now),
        };
        Answer::go_on(done.unwrap_or_else(|not| {
            Reply::NotDone(match not {
                Not::Done(why) => why,
                Not::Decided(undecided) => {
                    undecided.report();
                    NotDone::Unavailable
                }
            })
        }))
    }

    fn enrolments(&mut self, admin: u32, now: Now) -> Answer<Reply> {
        // It lets nobody in, so it is answered also where its line cannot be written.
        if let Err(error) = self.log.append_all(&[audit::status_asked(admin)], now.wall) {
            warn!("a status was asked for without its line in the audit log: {error}");
        }
        let listed = match self.store.list() {
            Ok(listed) => listed,
            Err(error) => {
                Undecided::from(error).report();
                return Answer::go_on(Reply::NotDone(NotDone::Unavailable));
            }
        };
        let mut replies = listed
            .into_iter()
            .map(|listed| Reply::Enrolment(self.enrolment(listed, now)))
            .chain([Reply::EnrolmentsEnd]);
        Answer {
            reply: replies.next().unwrap_or(Reply::EnrolmentsEnd),
            more: replies.collect(),
            next: Some(State::Greeted),
        }
    }

    fn enrolment(&self, listed: Listed, now: Now) -> Enrolment {
        let row = listed.enrolled;
        let newest = codes::step(now.unix()).saturating_add(codes::AROUND);
        Enrolment {
            since: row.since,
            authenticated_until: self.grants.until(&row.user, now),
            locked_until: row.lockout.and_then(|lockout| lockout.holds_until(now)),
            failures: row.counts.failures,
            recovery_left: listed.recovery_left,
            // A phone whose clock is a little ahead is no reason to worry.
            ahead_of_clock: row.last_step.max(row.seen_step).max(self.newest_step) > newest,
            user: row.user,
        }
    }

    fn begin(
        &mut self,
        session: &mut Session,
        user: User,
        replace: bool,
        now: Now,
    ) -> Result<Reply, Not> {
        session.pending = None;
        let enrolled = self.store.matching(Some(&user.name), Some(user.id))?;
        if !replace && !enrolled.is_empty() {
            return Err(NotDone::EnrolledAlready.into());
        }
        let mut bytes = Zeroizing::new([0; SECRET]);
        (self.random)(bytes.as_mut())?;
        let line = audit::enrolment(audit::Enrolment::Began, &user, session.admin);
        self.log.append_all(&[line], now.wall)?;
        let shown = kai_proto::admin_authd::Secret(*bytes);
        session.pending = Some(Pending {
            user,
            secret: Secret::new(bytes),
            replace,
            wrong: 0,
        });
        Ok(Reply::Secret(shown))
    }

    fn confirm(&mut self, session: &mut Session, code: &TotpCode, now: Now) -> Result<Reply, Not> {
        let pending = session.pending.as_mut().ok_or(NotDone::NothingToConfirm)?;
        let step = codes::step(now.unix());
        let Compared::Accepted(step) = codes::compare(&pending.secret, code, step, 0) else {
            pending.wrong += 1;
            let line = audit::enrolment(audit::Enrolment::Refused, &pending.user, session.admin);
            if pending.wrong >= TRIES {
                session.pending = None;
            }
            self.log.append_all(&[line], now.wall)?;
            return Err(NotDone::WrongCode.into());
        };
        let codes = self.enrol(pending, step, session.admin, now)?;
        session.pending = None;
        Ok(Reply::Confirmed(codes))
    }

    /// Has `pending` take effect, in place of whatever the name and the id had.
    fn enrol(
        &mut self,
        pending: &Pending,
        step: u64,
        admin: u32,
        now: Now,
    ) -> Result<Vec<RecoveryCode>, Not> {
        let (recovery, hashes) = self.recovery_codes()?;
        let user = &pending.user;
        let change = self.store.change()?;
        let before = change.matching(Some(&user.name), Some(user.id))?;
        // Somebody else may have enrolled them since.
        if !pending.replace && !before.is_empty() {
            return Err(NotDone::EnrolledAlready.into());
        }
        let mut lines = Vec::new();
        for old in &before {
            change.remove(old.id)?;
            if old != user {
                lines.push(audit::enrolment(audit::Enrolment::Removed, old, admin));
            }
        }
        lines.push(audit::enrolment(audit::Enrolment::Confirmed, user, admin));
        change.enrol(&NewEnrolment {
            user,
            secret: &pending.secret,
            since: now.unix(),
            last_step: step,
            recovery: &hashes,
        })?;
        commit(change, &mut self.log, user, &lines, now)?;
        self.after_removal(&before, now);
        self.settle_on_disk();
        // Nobody had to prove anything before, if this is their first second factor.
        self.tell(user.id, GrantEnd::Enrolment);
        Ok(recovery)
    }

    fn recovery_codes(&self) -> Result<(Vec<RecoveryCode>, Vec<RecoveryHash>), Undecided> {
        let mut shown = Vec::with_capacity(RECOVERY_CODES);
        let mut kept = Vec::with_capacity(RECOVERY_CODES);
        for _ in 0..RECOVERY_CODES {
            let (mut letters, mut salt) = (Zeroizing::new([0; 10]), [0; 16]);
            (self.random)(letters.as_mut())?;
            (self.random)(&mut salt)?;
            let code = codes::recovery_code(&letters)?;
            kept.push(RecoveryHash::of(&code, salt));
            shown.push(code);
        }
        Ok((shown, kept))
    }

    fn remove(&mut self, name: &UserName, admin: u32, now: Now) -> Result<Reply, Not> {
        let change = self.store.change()?;
        let before = change.matching(Some(name), None)?;
        let user = before.first().ok_or(NotDone::NotEnrolled)?;
        change.remove(user.id)?;
        let line = audit::enrolment(audit::Enrolment::Removed, user, admin);
        commit(change, &mut self.log, user, &[line], now)?;
        self.after_removal(&before, now);
        self.settle_on_disk();
        Ok(Reply::Done)
    }

    fn unlock(&mut self, name: &UserName, admin: u32, now: Now) -> Result<Reply, Not> {
        let change = self.store.change()?;
        let found = change.matching(Some(name), None)?;
        let user = found.first().ok_or(NotDone::NotEnrolled)?;
        change.forgive(user.id)?;
        change.believe_the_clock(user.id)?;
        let line = audit::enrolment(audit::Enrolment::Unlocked, user, admin);
        commit(change, &mut self.log, user, &[line], now)?;
        // For all: there is one clock.
        self.newest_step = codes::step(now.unix());
        Ok(Reply::Done)
    }

    /// What these users proved does not hold any more.
    fn after_removal(&mut self, removed: &[User], now: Now) {
        for user in removed {
            self.end_grants(user, GrantEnd::Enrolment, now);
            self.tell(user.id, GrantEnd::Enrolment);
        }
    }

    /// Secrets that were removed are not on disk any more, and what is new has its place in the file, so
    /// that no code needs room on the disk.
    fn settle_on_disk(&self) {
        if let Err(error) = self.store.settle() {
            warn!("what was removed is overwritten later: {error}");
        }
    }
}
