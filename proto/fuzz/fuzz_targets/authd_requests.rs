//! Any bytes on each of authd's sockets: what is no request ends the connection, what is one is answered,
//! and nothing is answered before Hello but with an end. The first byte chooses the socket and whether Hello
//! was said; then come bodies of frames, each after one byte with its length.
#![no_main]

use kai_authd::answers::{Answer, Authority, Session, State};
use kai_fuzz::{
    authd::{Lines, SETTINGS, chance, empty_store, moment, put_back, status},
    survives,
};
use kai_proto::{
    admin_authd, broker_authd,
    codec::{self, Message},
    gateway_authd,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((role, stream)) = input.split_first() else {
        return;
    };
    let mut authority = Authority::new(empty_store(), Lines::default(), SETTINGS, chance);
    let now = moment(1_800_000_000, 1000);
    let begin = if role % 2 == 0 {
        State::Fresh
    } else {
        State::Greeted
    };
    match role / 2 % 3 {
        0 => converse(begin, stream, |state, request: gateway_authd::Request| {
            authority.to_gateway(state, &request, now)
        }),
        1 => converse(begin, stream, |state, request: broker_authd::Request| {
            authority.to_broker(state, &request, now)
        }),
        _ => {
            let mut session = Session::default();
            converse(begin, stream, |state, request: admin_authd::Request| {
                authority.to_admin(state, &mut session, request, status(), now)
            });
        }
    }
    put_back(authority.into_parts(now).0);
});

/// Plays one connection of a role.
fn converse<Q: Message + std::fmt::Debug + PartialEq, R: Message>(
    mut state: State,
    mut stream: &[u8],
    mut answer: impl FnMut(State, Q) -> Answer<R>,
) {
    while let Some((length, rest)) = stream.split_first() {
        let (body, later) = rest.split_at(usize::from(*length).min(rest.len()));
        stream = later;
        survives::<Q>(body);
        let Ok(request) = codec::decode::<Q>(body) else {
            return;
        };
        let said = format!("{request:?}");
        let Answer { reply, more, next } = answer(state, request);
        for reply in [reply].iter().chain(&more) {
            codec::encode(reply).expect("every answer fits its frame");
        }
        match next {
            Some(next) => state = next,
            None => return,
        }
        let hello = said.starts_with("Hello");
        assert!(
            hello || state == State::Greeted,
            "{said} was taken before Hello"
        );
    }
}
