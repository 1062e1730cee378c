//! The bounds that every frame and every field on the wire is held to.

use std::time::Duration;

/// Longest body, in bytes, of a frame between gateway, broker, authd and the admin's commands.
pub const CONTROL_FRAME: usize = 16 * 1024;

/// Longest body, in bytes, of a frame between gateway and worker.
pub const CONVERSATION_FRAME: usize = 1024 * 1024;

/// How long a peer may take over one frame once its first byte has arrived, and over its Hello
/// once it has connected. A peer that is slower is cut off, so that it holds no slot.
pub const FRAME_DEADLINE: Duration = Duration::from_secs(2);

/// Longest display name of a user, in bytes.
pub const NAME: usize = 64;

/// Longest model name, in bytes.
pub const MODEL: usize = 128;

/// Longest prompt, in bytes. Telegram's messages hold at most 4096 UTF-16 units; a prompt may
/// carry what is quoted beside it.
pub const PROMPT: usize = 256 * 1024;

/// Longest piece of text in one event of a turn, in bytes; a longer one is sent in several.
pub const TEXT_PIECE: usize = 64 * 1024;

/// Longest detail of a failure, in bytes: what the agent said of itself.
pub const DETAIL: usize = 512;

/// Longest reason with which a broker refuses a new users.yaml, in bytes.
pub const RELOAD_REASON: usize = 2048;

/// How many strangers the broker remembers.
pub const STRANGERS: usize = 50;

/// How many chats a user may be allowed in, beside the private one.
pub const CHATS: usize = 32;

/// How many finished answers a worker keeps for a gateway that has not acknowledged them.
pub const UNACKNOWLEDGED: usize = 1024;
