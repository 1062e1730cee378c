//! What a worker says to the broker: any datagram is a report, byte for byte, or nothing.
#![no_main]

use kai_proto::worker_broker::Report;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    match Report::from_bytes(datagram) {
        Some(report) => assert_eq!(report.to_bytes(), datagram),
        None => assert!(datagram.len() != Report::BYTES || has_strange_bool(datagram)),
    }
});

/// True if one of the three flags is neither 0 nor 1: the only reason against a datagram of the size.
fn has_strange_bool(datagram: &[u8]) -> bool {
    [0, 6, 7].iter().any(|&at| datagram[at] > 1)
}
