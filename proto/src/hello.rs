//! The first frame of each side on every socket: which protocol it speaks.

use serde::{Deserialize, Serialize};

/// The version of everything in this crate. Both sides must have the same one: the programs are
/// installed together.
pub const PROTOCOL: u32 = 1;

/// A side's first frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The sender's [`PROTOCOL`].
    pub protocol: u32,
}

impl Hello {
    /// This build's Hello.
    #[must_use]
    pub fn ours() -> Self {
        Self { protocol: PROTOCOL }
    }

    /// True if the sender speaks exactly this build's protocol.
    #[must_use]
    pub fn matches(self) -> bool {
        self.protocol == PROTOCOL
    }
}
