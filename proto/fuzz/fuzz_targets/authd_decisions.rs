//! Any sequence of codes, questions, enrolments, moves of both clocks, restarts and failures of the audit
//! log: authd decides as a model of a few lines does.
//!
//! No step and no recovery code is accepted twice, nobody gets a grant without a right code, no more codes
//! are looked at than is allowed, and no grant holds longer than it may.
#![no_main]

use kai_fuzz::authd::Played;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut played = Played::new();
    // Each step is one byte that chooses it and two of what it needs.
    for step in input.chunks_exact(3).take(200) {
        played.step(step[0], step[1], step[2]);
    }
});
