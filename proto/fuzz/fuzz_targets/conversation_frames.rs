//! Both directions between gateway and worker, from any bytes. The first byte chooses one.
#![no_main]

use kai_fuzz::survives;
use kai_proto::conversation::{FromWorker, ToWorker};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    match input.split_first() {
        Some((0, body)) => survives::<ToWorker>(body),
        Some((_, body)) => survives::<FromWorker>(body),
        None => {}
    }
});
