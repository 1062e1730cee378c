//! To the gateway: how a user stands, what became of their code, and /lock.

use kai_proto::{
    broker_authd::GrantEnd,
    gateway_authd::{Refusal, Reply, Request, Standing, permitted},
};

use super::{Answer, Authority, State};
use crate::{audit::AuditLog, clock::Now};

impl<L: AuditLog> Authority<L> {
    /// Answers one request of a gateway whose connection is in `state`.
    #[must_use]
    pub fn to_gateway(&mut self, state: State, request: &Request, now: Now) -> Answer<Reply> {
        if !permitted(state, request) {
            return Answer::end(Reply::Refused(Refusal::NotPermitted));
        }
        self.expire(now);
        match request {
            Request::Hello(hello) => Answer::hello(*hello, Reply::Hello, Reply::Refused),
            Request::Standing { user, grant, renew } => {
                let standing = self.standing(user, grant.as_ref(), now);
                if *renew && matches!(standing, Standing::Proven { .. }) {
                    self.grants.renew(user, now);
                }
                Answer::go_on(Reply::Standing(standing))
            }
            Request::Verify { user, code } => {
                Answer::go_on(Reply::Verdict(self.verify(user, code, now)))
            }
            Request::Lock { user } => {
                self.end_grants(user, GrantEnd::Locked, now);
                // Also where no grant is left to end: a turn that one began may still be finishing.
                if self.standing(user, None, now) != Standing::NotEnrolled {
                    self.tell(user.id, GrantEnd::Locked);
                }
                Answer::go_on(Reply::Locked)
            }
        }
    }
}
