//! Anthropic's Messages API with a script instead of a model, for the real agent.
//!
//! A test says what to answer to which prompt ([`MessagesApi::when`], [`MessagesApi::once`],
//! [`MessagesApi::script`]), gives the agent [`MessagesApi::url`] as its `ANTHROPIC_BASE_URL`, and
//! looks at what the agent asked ([`MessagesApi::turns`]). The agent's own side requests (a title
//! for the session, a probe whether the server is there) are answered without touching the script.
//!
//! Requests are held against the rules of the real API: version and key in the headers, roles,
//! contents, and tool results that belong to tool uses. Fields at the top that it does not know
//! pass, because betas bring new ones with every version of the agent.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::server::Server;
use crate::watched::Watched;

pub use conversation::{ToolResult, Turn};
pub use received::{Ending, Kind, Received};
pub use script::{Match, Reply};

mod conversation;
mod http;
mod received;
mod rules;
mod script;
mod stream;

/// How an emulated Messages API begins.
#[derive(Clone, Debug, Default)]
pub struct MessagesApiOptions {
    /// The port on loopback; 0 takes any that is free.
    pub port: u16,
    /// The keys that are let in. If there are none, any key is.
    pub keys: BTreeSet<String>,
}

/// What the handle and the server both see.
#[derive(Debug)]
struct Shared {
    keys: BTreeSet<String>,
    state: Watched<State>,
}

#[derive(Debug, Default)]
struct State {
    script: script::Script,
    received: Vec<Received>,
}

/// A running emulator of the Messages API; it stops when this is dropped.
#[derive(Debug)]
pub struct MessagesApi {
    shared: Arc<Shared>,
    server: Server,
}

impl MessagesApi {
    /// Starts one with an empty script, which answers every turn with an error that says so.
    pub fn start(options: MessagesApiOptions) -> io::Result<Self> {
        let state = Watched::new(State::default());
        let shared = Arc::new(Shared {
            keys: options.keys,
            state,
        });
        let server = Server::start("messages-api", options.port, http::Api(Arc::clone(&shared)))?;
        Ok(Self { shared, server })
    }

    /// What the agent takes as its `ANTHROPIC_BASE_URL`.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.server.address().port()
    }

    /// Answers every turn that fits, however many there are. Of several rules that fit the one
    /// that was added first counts, after all those of [`MessagesApi::once`].
    pub fn when(&self, turns: Match, reply: Reply) {
        self.shared
            .state
            .change(|state| state.script.add(turns, reply, false));
    }

    /// Answers the next turn that fits, and is then used up.
    pub fn once(&self, turns: Match, reply: Reply) {
        self.shared
            .state
            .change(|state| state.script.add(turns, reply, true));
    }

    /// Asks a closure before any rule. It is called under the emulator's lock: it may not call
    /// the emulator.
    pub fn script(&self, answer: impl FnMut(&Turn) -> Option<Reply> + Send + 'static) {
        self.shared
            .state
            .change(|state| state.script.ask_first(Box::new(answer)));
    }

    /// Forgets the closure, all rules, and what was to follow the tools in use.
    pub fn clear_script(&self) {
        self.shared
            .state
            .change(|state| state.script = script::Script::default());
    }

    /// Every request, the oldest first, those of no interest included.
    pub fn received(&self) -> Vec<Received> {
        self.shared.state.lock().received.clone()
    }

    /// The requests that belong to the conversation, tool results included.
    pub fn turns(&self) -> Vec<Received> {
        let state = self.shared.state.lock();
        state
            .received
            .iter()
            .filter(|request| request.kind == Kind::Turn)
            .cloned()
            .collect()
    }

    /// Waits for a request that fits, also among those that have come already.
    pub fn wait_for(
        &self,
        timeout: Duration,
        mut fits: impl FnMut(&Received) -> bool,
    ) -> Option<Received> {
        self.shared.state.wait(timeout, |state| {
            state.received.iter().find(|request| fits(request)).cloned()
        })
    }

    /// A number that rises with every change of anything.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.state.changes()
    }
}
