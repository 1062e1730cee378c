//! The first frame of each side on every socket: which protocol it speaks.

use serde::{Deserialize, Serialize};

/// The version of everything in this crate. Both sides must have the same one: the programs are
/// installed together.
pub const PROTOCOL: u32 = 3;

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

/// The first frame of root's commands, with the admin for whom they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminHello {
    /// The protocol.
    pub hello: Hello,
    /// The uid behind sudo(8), or the command's own: for the audit log. Root says it, and root may say
    /// anything.
    pub admin: u32,
}

impl AdminHello {
    /// This build's Hello on behalf of `admin`.
    #[must_use]
    pub fn of(admin: u32) -> Self {
        Self {
            hello: Hello::ours(),
            admin,
        }
    }
}
