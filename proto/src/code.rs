//! What a person types to prove the second factor: a code of six digits, or a recovery code.
//!
//! Both are read where they enter, compared only by authd, and never printed by accident.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::ids::Invalid;

/// The letters of a recovery code: Crockford's base 32, without those that are mistaken for digits.
pub const RECOVERY_ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// What a recovery code begins with.
const RECOVERY_PREFIX: &str = "kai-";

/// One code of RFC 6238, six ASCII digits.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "[u8; 6]")]
pub struct TotpCode([u8; 6]);

/// One recovery code, `kai-XXXXX-XXXXX`: ten letters of [`RECOVERY_ALPHABET`], 50 bits.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "[u8; 10]")]
pub struct RecoveryCode([u8; 10]);

/// Either of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Code {
    /// From the authenticator.
    Totp(TotpCode),
    /// From the sheet of recovery codes.
    Recovery(RecoveryCode),
}

impl Code {
    /// Reads a whole text; none if it is not exactly a code. The letters of a recovery code may be
    /// small ones.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(digits) = <[u8; 6]>::try_from(text.as_bytes()) {
            return TotpCode::try_from(digits).ok().map(Self::Totp);
        }
        let prefix = text.get(..RECOVERY_PREFIX.len())?;
        let rest = text.get(RECOVERY_PREFIX.len()..)?;
        let (first, second) = rest.split_once('-')?;
        if !prefix.eq_ignore_ascii_case(RECOVERY_PREFIX) || first.len() != 5 || second.len() != 5 {
            return None;
        }
        let mut letters = [0; 10];
        for (letter, byte) in letters.iter_mut().zip(first.bytes().chain(second.bytes())) {
            *letter = byte.to_ascii_uppercase();
        }
        RecoveryCode::try_from(letters).ok().map(Self::Recovery)
    }
}

impl TotpCode {
    /// The digits, for the comparison.
    #[must_use]
    pub fn digits(&self) -> &str {
        // Cannot fail: every constructor takes ASCII digits only.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl RecoveryCode {
    /// The letters, for the hash.
    #[must_use]
    pub fn letters(&self) -> &[u8; 10] {
        &self.0
    }

    /// The code as a person reads it.
    #[must_use]
    pub fn spell(&self) -> Zeroizing<String> {
        let letters = std::str::from_utf8(&self.0).unwrap_or_default();
        let (first, second) = letters.split_at(letters.len() / 2);
        Zeroizing::new(format!("{RECOVERY_PREFIX}{first}-{second}"))
    }
}

impl TryFrom<[u8; 6]> for TotpCode {
    type Error = Invalid;
    fn try_from(digits: [u8; 6]) -> Result<Self, Invalid> {
        if digits.iter().all(u8::is_ascii_digit) {
            Ok(Self(digits))
        } else {
            Err(Invalid::new("a code has six digits"))
        }
    }
}

impl TryFrom<[u8; 10]> for RecoveryCode {
    type Error = Invalid;
    fn try_from(letters: [u8; 10]) -> Result<Self, Invalid> {
        if letters.iter().all(|l| RECOVERY_ALPHABET.contains(l)) {
            Ok(Self(letters))
        } else {
            Err(Invalid::new("a recovery code looks like kai-XXXXX-XXXXX"))
        }
    }
}

impl fmt::Debug for TotpCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TotpCode(…)")
    }
}

impl fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryCode(…)")
    }
}

impl Drop for TotpCode {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Drop for RecoveryCode {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_six_ascii_digits_or_a_recovery_code_are_a_code() {
        for code in ["000000", "123456", "kai-ABCDE-12345", "KAI-abcde-vwxyz"] {
            assert!(Code::parse(code).is_some(), "{code}");
        }
        for text in [
            "",
            "12345",
            "1234567",
            " 123456",
            "123456 ",
            "12345a",
            "１２３４５６",
            "٠١٢٣٤٥",
            "-12345",
            "kai-ABCDE-1234",
            "kai-ABCDEF-1234",
            "kai-ABCDI-12345",
            "kai-ABCDE-12345-",
            "kaiABCDE12345",
            "käi-ABCDE-12345",
        ] {
            assert!(Code::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_recovery_code_reads_as_it_is_spelt() {
        let code = Code::parse("kai-0123z-VWXYZ").unwrap();
        let Code::Recovery(code) = code else {
            panic!("not a recovery code");
        };
        assert_eq!(code.spell().as_str(), "kai-0123Z-VWXYZ");
    }

    #[test]
    fn no_code_is_printed_by_debug() {
        for text in ["314159", "kai-AAAAA-BBBBB"] {
            let shown = format!("{:?}", Code::parse(text).unwrap());
            assert!(!shown.contains("314") && !shown.contains("AAA"), "{shown}");
        }
    }
}
