//! authd's word that a user proved the second factor.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// 256 random bits that stand for one proven second factor. Held in memory only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant([u8; 32]);

impl Grant {
    /// From random bits. Only authd makes grants that stand: it alone knows which were made.
    #[must_use]
    pub fn from_random(bits: [u8; 32]) -> Self {
        Self(bits)
    }

    /// The bits, for the hash that authd keeps.
    #[must_use]
    pub fn bits(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Grant(…)")
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
