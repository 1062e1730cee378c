//! Cuts a byte stream into frames: four bytes of length, little-endian, then the body.
//!
//! [`FrameReader`] does no I/O. It says how many bytes it wants next and never asks for more than the
//! frame that has begun, so a connection can be handed to another process between two frames with
//! nothing read ahead.

use crate::codec::CodecError;

/// Bytes of the length prefix.
pub const PREFIX: usize = 4;

/// Collects one frame after the other.
#[derive(Debug, Default)]
pub struct FrameReader {
    prefix: [u8; PREFIX],
    have: usize,
    body: Vec<u8>,
}

impl FrameReader {
    /// A reader at the start of a frame.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// True between two frames, when not one byte of the next has arrived.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.have == 0
    }

    /// How many bytes are to be read next: the rest of the prefix, or the rest of the body.
    #[must_use]
    pub fn wanted(&self) -> usize {
        if self.have < PREFIX {
            PREFIX - self.have
        } else {
            self.length() - (self.have - PREFIX)
        }
    }

    /// Takes bytes that were read, at most [`wanted`](Self::wanted) of them, and gives the body
    /// once it is whole.
    ///
    /// # Errors
    /// [`CodecError::TooLong`] as soon as the prefix names more than `limit`, before anything is
    /// allocated for it; [`CodecError::Malformed`] for an empty body or more bytes than were wanted.
    pub fn push(&mut self, bytes: &[u8], limit: usize) -> Result<Option<Vec<u8>>, CodecError> {
        if bytes.len() > self.wanted() {
            return Err(CodecError::Malformed);
        }
        if self.have < PREFIX {
            self.prefix[self.have..self.have + bytes.len()].copy_from_slice(bytes);
            self.have += bytes.len();
            if self.have == PREFIX {
                match self.length() {
                    0 => return Err(CodecError::Malformed),
                    length if length > limit => return Err(CodecError::TooLong(limit)),
                    _ => {}
                }
            }
            return Ok(None);
        }
        self.body.extend_from_slice(bytes);
        self.have += bytes.len();
        if self.wanted() > 0 {
            return Ok(None);
        }
        self.have = 0;
        Ok(Some(std::mem::take(&mut self.body)))
    }

    fn length(&self) -> usize {
        u32::from_le_bytes(self.prefix) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announced_giant_is_refused_before_it_is_allocated() {
        let mut reader = FrameReader::new();

        let refused = reader.push(&u32::MAX.to_le_bytes(), 16);

        assert_eq!(refused, Err(CodecError::TooLong(16)));
        assert_eq!(reader.body.capacity(), 0);
    }

    #[test]
    fn an_empty_frame_is_refused() {
        assert_eq!(
            FrameReader::new().push(&[0; 4], 16),
            Err(CodecError::Malformed)
        );
    }

    #[test]
    fn it_never_wants_more_than_the_frame_that_has_begun() {
        let mut reader = FrameReader::new();
        assert_eq!(reader.wanted(), 4);
        assert_eq!(reader.push(&[3, 0], 16), Ok(None));
        assert_eq!(reader.wanted(), 2);
        assert_eq!(reader.push(&[0, 0], 16), Ok(None));
        assert_eq!(reader.wanted(), 3);
        assert_eq!(reader.push(b"ab", 16), Ok(None));
        assert_eq!(reader.push(b"cd", 16), Err(CodecError::Malformed));
        assert_eq!(reader.push(b"c", 16), Ok(Some(b"abc".to_vec())));
        assert!(reader.at_boundary());
    }
}
