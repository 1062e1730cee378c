//! What each peer is answered. Every function takes the state of the connection and one request, and
//! gives the reply and whether the connection goes on; none does I/O.

pub use kai_proto::gateway_authd::State;
use kai_proto::gateway_authd::{Refusal, Standing};
use kai_proto::{admin_authd, broker_authd, gateway_authd, hello::Hello};

/// A reply, and what becomes of the connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<R> {
    /// What is sent.
    pub reply: R,
    /// The connection's next state; none ends it.
    pub next: Option<State>,
}

impl<R> Answer<R> {
    fn go_on(reply: R) -> Self {
        Self {
            reply,
            next: Some(State::Greeted),
        }
    }

    fn end(reply: R) -> Self {
        Self { reply, next: None }
    }

    fn hello(hello: Hello, ours: impl Fn(Hello) -> R, refused: impl Fn(Refusal) -> R) -> Self {
        if hello.matches() {
            Self::go_on(ours(Hello::ours()))
        } else {
            Self::end(refused(Refusal::Version))
        }
    }
}

/// To the gateway.
#[must_use]
pub fn to_gateway(state: State, request: gateway_authd::Request) -> Answer<gateway_authd::Reply> {
    use gateway_authd::{Reply, Request, permitted};
    if !permitted(state, &request) {
        return Answer::end(Reply::Refused(Refusal::NotPermitted));
    }
    match request {
        Request::Hello(hello) => Answer::hello(hello, Reply::Hello, Reply::Refused),
        _ => Answer::go_on(Reply::Standing(Standing::NotEnrolled)),
    }
}

/// To the broker.
#[must_use]
pub fn to_broker(state: State, request: &broker_authd::Request) -> Answer<broker_authd::Reply> {
    use broker_authd::{Reply, Request, permitted};
    if !permitted(state, request) {
        return Answer::end(Reply::Refused(Refusal::NotPermitted));
    }
    match request {
        Request::Hello(hello) => Answer::hello(*hello, Reply::Hello, Reply::Refused),
        Request::Check { user, .. } => Answer::go_on(Reply::Checked {
            user: user.id,
            standing: Standing::NotEnrolled,
        }),
    }
}

/// To root's command, with the daemon's own word about itself.
#[must_use]
pub fn to_admin(
    state: State,
    request: admin_authd::Request,
    status: admin_authd::AuthdStatus,
) -> Answer<admin_authd::Reply> {
    use admin_authd::{Reply, Request, permitted};
    if !permitted(state, &request) {
        return Answer::end(Reply::Refused(Refusal::NotPermitted));
    }
    match request {
        Request::Hello(hello) => Answer::hello(hello.hello, Reply::Hello, Reply::Refused),
        Request::Status => Answer::go_on(Reply::Status(status)),
        _ => Answer::end(Reply::Refused(Refusal::NotPermitted)),
    }
}

#[cfg(test)]
mod tests {
    use kai_proto::ids::{TelegramId, UserName};

    use super::*;

    fn alice() -> broker_authd::User {
        broker_authd::User {
            name: UserName::try_from("alice".to_owned()).unwrap(),
            id: TelegramId::try_from(7).unwrap(),
        }
    }

    #[test]
    fn nothing_is_answered_before_hello() {
        let user = alice();
        let early = to_gateway(
            State::Fresh,
            gateway_authd::Request::Standing {
                user: user.clone(),
                grant: None,
            },
        );
        assert_eq!(
            early,
            Answer::end(gateway_authd::Reply::Refused(Refusal::NotPermitted))
        );
        let early = to_broker(
            State::Fresh,
            &broker_authd::Request::Check {
                user: user.clone(),
                grant: None,
            },
        );
        assert_eq!(
            early,
            Answer::end(broker_authd::Reply::Refused(Refusal::NotPermitted))
        );
    }

    #[test]
    fn another_version_is_refused() {
        let hello = Hello {
            protocol: Hello::ours().protocol + 1,
        };
        let answer = to_gateway(State::Fresh, gateway_authd::Request::Hello(hello));
        assert_eq!(
            answer,
            Answer::end(gateway_authd::Reply::Refused(Refusal::Version))
        );
    }

    #[test]
    fn a_user_without_a_second_factor_is_said_to_have_none() {
        let user = alice();
        let answer = to_broker(
            State::Greeted,
            &broker_authd::Request::Check {
                user: user.clone(),
                grant: None,
            },
        );
        assert_eq!(
            answer,
            Answer::go_on(broker_authd::Reply::Checked {
                user: user.id,
                standing: Standing::NotEnrolled
            })
        );
    }
}
