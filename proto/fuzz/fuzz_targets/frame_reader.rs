//! Any byte stream, cut anywhere: the reader takes the same frames from it as from the whole, and
//! never asks for a byte beyond the frame that has begun.
#![no_main]

use kai_proto::{
    codec::CodecError,
    frame::{FrameReader, PREFIX},
};
use libfuzzer_sys::fuzz_target;

/// The longest body that the readers here accept.
const LIMIT: usize = 64;

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (cuts, stream) = input;
    let (expected, end) = frames_of(&stream);

    let mut reader = FrameReader::new();
    let mut cuts = cuts.iter().cycle();
    let mut rest = &stream[..];
    let mut read = Vec::new();
    let refused = loop {
        assert!(reader.wanted() > 0);
        assert!(reader.wanted() <= LIMIT.max(PREFIX));
        if rest.is_empty() {
            break None;
        }
        let cut = cuts.next().map_or(1, |cut| usize::from(*cut).max(1));
        let (now, later) = rest.split_at(cut.min(reader.wanted()).min(rest.len()));
        rest = later;
        match reader.push(now, LIMIT) {
            Ok(body) => read.extend(body),
            Err(error) => break Some(error),
        }
    };

    assert_eq!(read, expected);
    match end {
        End::Between => assert!(refused.is_none() && reader.at_boundary()),
        End::Inside => assert!(refused.is_none() && !reader.at_boundary()),
        End::Refused(error) => assert_eq!(refused, Some(error)),
    }
});

/// How a stream ends.
enum End {
    Between,
    Inside,
    Refused(CodecError),
}

/// What a stream holds, found without a reader.
fn frames_of(mut stream: &[u8]) -> (Vec<Vec<u8>>, End) {
    let mut frames = Vec::new();
    loop {
        let Some((prefix, rest)) = stream.split_first_chunk::<PREFIX>() else {
            let end = if stream.is_empty() {
                End::Between
            } else {
                End::Inside
            };
            return (frames, end);
        };
        let length = u32::from_le_bytes(*prefix) as usize;
        if length == 0 {
            return (frames, End::Refused(CodecError::Malformed));
        }
        if length > LIMIT {
            return (frames, End::Refused(CodecError::TooLong(LIMIT)));
        }
        let Some((body, rest)) = rest.split_at_checked(length) else {
            return (frames, End::Inside);
        };
        frames.push(body.to_vec());
        stream = rest;
    }
}
