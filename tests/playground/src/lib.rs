//! All of kai on one machine against an emulated Telegram, with a chat page.
//!
//! - [`ground`]: a second kai in a directory of its own; the tests over several processes use it too.
//! - [`launcher`]: what takes the broker's place where there is no root.
//! - [`cast`], [`stage`]: alice, bob and a stranger, and what they can do.
//! - [`hosted`]: which agent they talk to; [`agent`]: the embedded one.
//! - [`script`], [`page`]: the two ways to play.
//! - [`arguments`], [`run`]: the program.

pub mod arguments;
pub mod cast;
pub mod ground;
pub mod hosted;
pub mod launcher;
pub mod page;
pub mod run;
pub mod script;
pub mod stage;
pub mod sys;
