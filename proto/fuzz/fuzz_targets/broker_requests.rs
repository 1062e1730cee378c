//! The broker's table of requests, fed as a peer would: frames of any length and content, one connection.
//! The first byte chooses the peer, the second how the rest is cut.
#![no_main]

use kai_proto::{
    admin_broker,
    codec::{self, Message},
    frame::FrameReader,
    gateway_broker::{Request, State, permitted},
};
use libfuzzer_sys::fuzz_target;

/// The requests that a peer gets through, up to the first that is none or comes where it may not.
fn said<M: Message>(bytes: &[u8], cut: usize, mut takes: impl FnMut(&M) -> bool) {
    let mut reader = FrameReader::new();
    let mut left = bytes;
    while !left.is_empty() {
        let wanted = reader.wanted().min(cut).min(left.len());
        let (piece, rest) = left.split_at(wanted);
        left = rest;
        match reader.push(piece, M::LIMIT) {
            Err(_) => return,
            Ok(None) => {}
            Ok(Some(body)) => match codec::decode::<M>(&body) {
                Ok(request) if takes(&request) => {}
                _ => return,
            },
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let [peer, cut, rest @ ..] = input else {
        return;
    };
    let cut = usize::from(*cut).max(1);
    if peer % 2 == 0 {
        let (mut state, mut hellos, mut attaches) = (State::Fresh, 0, 0);
        said::<Request>(rest, cut, |request| {
            if !permitted(state, request) {
                return false;
            }
            assert_ne!(state, State::Attaching, "{request:?} after an attach");
            state = match request {
                Request::Hello(_) => {
                    hellos += 1;
                    State::Greeted
                }
                Request::Subscribe => State::Subscribed,
                Request::Stranger { .. } => {
                    assert_eq!(state, State::Subscribed);
                    state
                }
                Request::Attach { .. } => {
                    attaches += 1;
                    State::Attaching
                }
            };
            assert!(hellos == 1 && attaches <= 1, "{request:?}");
            true
        });
    } else {
        let mut state = admin_broker::State::Fresh;
        let mut hellos = 0;
        said::<admin_broker::Request>(rest, cut, |request| {
            if !admin_broker::permitted(state, request) {
                return false;
            }
            if matches!(request, admin_broker::Request::Hello(_)) {
                hellos += 1;
                state = admin_broker::State::Greeted;
            }
            if matches!(request, admin_broker::Request::Login(_)) {
                state = admin_broker::State::LoggingIn;
            }
            assert_eq!(hellos, 1, "{request:?}");
            true
        });
    }
});
