//! Codes: those of RFC 6238, and the recovery codes.

use kai_proto::{
    code::{RECOVERY_ALPHABET, RecoveryCode, TotpCode},
    ids::{Invalid, UnixSeconds},
};
use sha2::{Digest, Sha256};
use totp_rs::{Builder, Totp};
use zeroize::Zeroizing;

use crate::store::Secret;

/// Seconds for which one code is shown.
pub const STEP: u64 = 30;

/// Steps before and after the one of now whose codes are taken: clocks differ, and people are slow.
pub const AROUND: u64 = 1;

/// Bytes of a recovery code's salt.
const SALT: usize = 16;

/// The step of this moment.
#[must_use]
pub fn step(now: UnixSeconds) -> u64 {
    now / STEP
}

/// What a comparison of a code found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// It is the code of this step, which may be accepted.
    Accepted(u64),
    /// It is the code of a step that counts as used, and of none that does not.
    Used,
    /// It is none of the codes of now.
    Wrong,
}

/// Compares `code` with those of the steps within [`AROUND`] of `now`. A step may be accepted if it comes
/// after `last`. All of them are compared, in the same time whatever the code is.
///
/// If a code is that of two steps it is used up for both.
#[must_use]
pub fn compare(secret: &Secret, code: &TotpCode, now: u64, last: u64) -> Compared {
    let totp = generator(secret);
    let mut found = Compared::Wrong;
    for step in now.saturating_sub(AROUND)..=now.saturating_add(AROUND) {
        let seconds = step.saturating_mul(STEP);
        if totp.check(code.digits(), seconds).is_some() {
            found = if step > last {
                Compared::Accepted(step)
            } else {
                Compared::Used
            };
        }
    }
    found
}

fn generator(secret: &Secret) -> Totp {
    // Skew 0: each step is asked for by itself, to know which one it was.
    Builder::new()
        .with_secret(*secret.bytes())
        .with_step_duration(STEP)
        .with_skew(0)
        .build_noncompliant()
}

/// What is kept of a recovery code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryHash {
    /// Random, one for each code.
    pub salt: [u8; SALT],
    /// SHA-256 of the salt and the code's letters. The code has 50 random bits, and what it is good for
    /// ends with it: a slower hash would protect nothing that the secret beside it does not give away.
    pub hash: [u8; 32],
}

impl RecoveryHash {
    /// Of `code`, with random `salt`.
    #[must_use]
    pub fn of(code: &RecoveryCode, salt: [u8; SALT]) -> Self {
        let mut hash = Sha256::new();
        hash.update(salt);
        hash.update(code.letters());
        Self {
            salt,
            hash: hash.finalize().into(),
        }
    }

    /// Whether `code` is this one, in the same time for every code.
    #[must_use]
    pub fn is_of(&self, code: &RecoveryCode) -> bool {
        constant_time_eq::constant_time_eq_32(&Self::of(code, self.salt).hash, &self.hash)
    }
}

/// A recovery code from random bytes, of each of which five bits are used.
///
/// # Errors
/// None: every letter is one of its alphabet.
pub fn recovery_code(random: &Zeroizing<[u8; 10]>) -> Result<RecoveryCode, Invalid> {
    let mut letters = Zeroizing::new([0; 10]);
    for (letter, byte) in letters.iter_mut().zip(random.iter()) {
        *letter = RECOVERY_ALPHABET[usize::from(byte & 31)];
    }
    RecoveryCode::try_from(*letters)
}

#[cfg(test)]
mod tests {
    use kai_proto::code::Code;
    use totp_rs::Algorithm;

    use super::*;

    /// The secret of both documents' vectors: RFC 4226, appendix D; RFC 6238, appendix B.
    const SECRET: &[u8; 20] = b"12345678901234567890";

    fn secret() -> Secret {
        Secret::new(Zeroizing::new(*SECRET))
    }

    fn totp(text: &str) -> TotpCode {
        match Code::parse(text) {
            Some(Code::Totp(code)) => code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rfc_4226_vectors_pass() {
        let codes = [
            "755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583",
            "399871", "520489",
        ];
        for (counter, code) in codes.iter().enumerate() {
            let counter = counter as u64;
            let shown = generator(&secret()).generate(counter * STEP).to_string();
            assert_eq!(&shown, code, "{counter}");
            // None is accepted at counter 0, which counts as used.
            let expected = if counter > 0 {
                Compared::Accepted(counter)
            } else {
                Compared::Used
            };
            assert_eq!(compare(&secret(), &totp(code), counter, 0), expected);
        }
    }

    #[test]
    fn rfc_6238_vectors_pass() {
        // (seconds, the eight digits of SHA-1); a code of ours is the last six of them.
        for (time, code) in [
            (59, "94287082"),
            (1_111_111_109, "07081804"),
            (1_111_111_111, "14050471"),
            (1_234_567_890, "89005924"),
            (2_000_000_000, "69279037"),
            (20_000_000_000, "65353130"),
        ] {
            let eight = Builder::new()
                .with_secret(*SECRET)
                .with_algorithm(Algorithm::SHA1)
                .with_digits(8)
                .build()
                .unwrap();
            assert_eq!(eight.generate(time).to_string(), code);
            let found = compare(&secret(), &totp(&code[2..]), step(time), 0);
            assert_eq!(found, Compared::Accepted(time / 30));
        }
    }

    #[test]
    fn a_code_is_accepted_within_one_step_either_side_and_after_the_last() {
        let at = |step: u64| totp(&generator(&secret()).generate(step * STEP).to_string());
        let now = 1000;
        let accepted = Compared::Accepted;
        // (the code's step, the last accepted one, what is found)
        for (code, last, expected) in [
            (998, 0, Compared::Wrong),
            (999, 0, accepted(999)),
            (1000, 0, accepted(1000)),
            (1001, 0, accepted(1001)),
            (1002, 0, Compared::Wrong),
            (999, 998, accepted(999)),
            (999, 999, Compared::Used),
            (1000, 999, accepted(1000)),
            (1000, 1000, Compared::Used),
            (1001, 1000, accepted(1001)),
            (1001, 1001, Compared::Used),
            (1000, u64::MAX, Compared::Used),
        ] {
            let found = compare(&secret(), &at(code), now, last);
            assert_eq!(found, expected, "{code} after {last}");
        }
    }

    #[test]
    fn no_time_is_too_early_or_too_late() {
        for now in [0, 1, u64::MAX / STEP, u64::MAX] {
            let _ = compare(&secret(), &totp("755224"), now, 0);
        }
    }

    #[test]
    fn a_recovery_code_is_known_by_its_hash_alone() {
        let code = recovery_code(&Zeroizing::new([0, 31, 32, 255, 5, 6, 7, 8, 9, 10])).unwrap();
        let other = recovery_code(&Zeroizing::new([1, 31, 32, 255, 5, 6, 7, 8, 9, 10])).unwrap();
        let hash = RecoveryHash::of(&code, [9; SALT]);

        assert_eq!(code.spell().as_str(), "kai-0Z0Z5-6789A");
        assert!(hash.is_of(&code) && !hash.is_of(&other));
        assert_ne!(hash.hash, RecoveryHash::of(&code, [8; SALT]).hash);
        assert!(!format!("{hash:?}").contains("0Z0Z5"));
    }
}
