//! authd's word that a user proved the second factor.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// 256 random bits that stand for one proven second factor. Held in memory only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant([u8; 32]);

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
