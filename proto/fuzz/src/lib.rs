//! What the targets are held to: the property of every decoder of the wire, and the model of authd.
#![forbid(unsafe_code)]

pub mod authd;

use std::fmt::Debug;

use kai_proto::codec::{self, Message};

/// Decodes `body`. What is accepted must encode to no more bytes than it came in, within the limit of
/// its kind, and decode to the same again.
///
/// # Panics
/// If it does not: that is the finding.
pub fn survives<M: Message + Debug + PartialEq>(body: &[u8]) {
    let Ok(message) = codec::decode::<M>(body) else {
        return;
    };
    let again = codec::encode(&message).expect("what was decoded is within the limit");
    assert!(again.len() <= body.len(), "{message:?} has grown");
    assert_eq!(codec::decode(&again), Ok(message));
}
