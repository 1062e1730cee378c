//! The one place where messages become bytes: bincode 1.3 with a limit, little-endian variable-length
//! integers, and no bytes left over.
//!
//! The enums on the wire hold no zero-sized collections and no recursion: bincode bounds bytes, not
//! the work that a length prefix over zero-sized elements can cause.

use bincode::Options;
use serde::{Serialize, de::DeserializeOwned};

use crate::limits;

/// Why a message could not be written or read. The bytes themselves are never part of it.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum CodecError {
    /// The message would need a body above its kind's limit.
    #[error("the message is longer than {0} bytes")]
    TooLong(usize),
    /// The bytes are not a message of this kind, or carry more than one.
    #[error("the frame does not hold a message of this kind")]
    Malformed,
}

/// A message with a place on one of kai's sockets, and the limit that holds there.
pub trait Message: Serialize + DeserializeOwned {
    /// The longest body, in bytes, that a frame with this message may have.
    const LIMIT: usize;
}

/// Marks types as control messages, at most [`limits::CONTROL_FRAME`] long.
macro_rules! control_messages {
    ($($message:ty),+ $(,)?) => {
        $(impl crate::codec::Message for $message {
            const LIMIT: usize = crate::limits::CONTROL_FRAME;
        })+
    };
}
pub(crate) use control_messages;

fn options(limit: usize) -> impl Options {
    bincode::DefaultOptions::new()
        .with_limit(limit as u64)
        .reject_trailing_bytes()
}

/// Appends a frame, length prefix and body, to `out`.
///
/// # Errors
/// [`CodecError::TooLong`] if the body would pass the message's limit; `out` is then unchanged.
pub fn encode_frame<M: Message>(message: &M, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let start = out.len();
    out.extend_from_slice(&[0; crate::frame::PREFIX]);
    if options(M::LIMIT)
        .serialize_into(&mut *out, message)
        .is_err()
    {
        out.truncate(start);
        return Err(CodecError::TooLong(M::LIMIT));
    }
    let length = (out.len() - start - crate::frame::PREFIX) as u32;
    out[start..start + crate::frame::PREFIX].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// The body alone, for sockets that keep the bounds of messages themselves.
///
/// # Errors
/// [`CodecError::TooLong`] if the body would pass the message's limit.
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, CodecError> {
    options(M::LIMIT)
        .serialize(message)
        .map_err(|_| CodecError::TooLong(M::LIMIT))
}

/// Reads the message of one whole body.
///
/// # Errors
/// [`CodecError::TooLong`] before anything is decoded if the body passes the limit,
/// [`CodecError::Malformed`] if it is not exactly one message.
pub fn decode<M: Message>(body: &[u8]) -> Result<M, CodecError> {
    if body.len() > M::LIMIT {
        return Err(CodecError::TooLong(M::LIMIT));
    }
    options(M::LIMIT)
        .deserialize(body)
        .map_err(|_| CodecError::Malformed)
}

/// Shortens `text` to at most `limit` bytes without cutting a character.
pub fn shorten(mut text: String, limit: usize) -> String {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

const _: () = assert!(limits::CONVERSATION_FRAME < u32::MAX as usize);
