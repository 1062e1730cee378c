//! To the broker: whether a user may be attached. Asking changes nothing.

use kai_proto::broker_authd::{Refusal, Reply, Request, permitted};

use super::{Answer, Authority, State};
use crate::{audit::AuditLog, clock::Now};

impl<L: AuditLog> Authority<L> {
    /// Answers one request of the broker, whose connection is in `state`.
    #[must_use]
    pub fn to_broker(&mut self, state: State, request: &Request, now: Now) -> Answer<Reply> {
        if !permitted(state, request) {
            return Answer::end(Reply::Refused(Refusal::NotPermitted));
        }
        self.expire(now);
        match request {
            Request::Hello(hello) => Answer::hello(*hello, Reply::Hello, Reply::Refused),
            Request::Check { user, grant } => Answer::go_on(Reply::Checked {
                user: user.id,
                standing: self.standing(user, grant.as_ref(), now),
            }),
        }
    }
}
