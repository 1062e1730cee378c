//! Which agent the playground's workers host, and the model behind it.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use kai_emulators::{
    agent,
    messages_api::{MessagesApi, MessagesApiOptions, Reply, Turn},
};

use crate::{
    arguments::{AgentKind, Arguments},
    ground::{Agent, Options},
};

/// A key that only the emulated model takes.
const EMULATED_KEY: &str = "sk-ant-emulated-for-the-playground";

/// What is there beside the ground so that the agent has somebody to ask.
#[derive(Debug)]
pub struct Model {
    /// The emulated one.
    _api: Option<MessagesApi>,
    /// One sentence for people.
    pub sentence: String,
    /// What the page says the agent is.
    pub word: &'static str,
}

/// Why the agent that was asked for cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It is nowhere.
    #[error(
        "claude is neither in this checkout nor in PATH; install it with: \
         npm install --prefix tests/agent, or name its program with --agent-path"
    )]
    Nowhere,
    /// An option has no meaning with the embedded agent.
    #[error("{0} is for the real agent: add --agent claude")]
    OnlyReal(&'static str),
    /// The key cannot be read.
    #[error("{0}: {1}")]
    Key(PathBuf, io::Error),
    /// The emulated model cannot be started.
    #[error("cannot start the emulated model: {0}")]
    Model(io::Error),
}

/// Puts the agent that `arguments` ask for into `options`.
///
/// # Errors
/// One sentence that says what to do.
pub fn choose(arguments: &Arguments, options: &mut Options) -> Result<Model, AgentError> {
    if arguments.agent == AgentKind::Embedded {
        return match arguments {
            Arguments {
                agent_path: Some(_),
                ..
            } => Err(AgentError::OnlyReal("--agent-path")),
            Arguments {
                key_file: Some(_), ..
            } => Err(AgentError::OnlyReal("--key-file")),
            Arguments {
                base_url: Some(_), ..
            } => Err(AgentError::OnlyReal("--base-url")),
            _ => Ok(Model {
                _api: None,
                sentence: "the agent is a small embedded one, which runs every message as a shell \
                           command"
                    .to_owned(),
                word: "embedded",
            }),
        };
    }
    let path = match &arguments.agent_path {
        Some(path) => path.clone(),
        None => find_claude().ok_or(AgentError::Nowhere)?,
    };
    options.agent = Agent::Program {
        path: path.clone(),
        arguments: Vec::new(),
    };
    if arguments.key_file.is_none() && arguments.base_url.is_none() {
        let api = emulated_model().map_err(AgentError::Model)?;
        options.base_url = Some(api.url());
        give_key(options, EMULATED_KEY);
        return Ok(Model {
            _api: Some(api),
            sentence: format!(
                "the agent is {}; its model is emulated and has every message run as a shell \
                 command: give --key-file for a real one",
                path.display()
            ),
            word: "claude, with an emulated model that has every message run as a shell command",
        });
    }
    options.base_url.clone_from(&arguments.base_url);
    if let Some(file) = &arguments.key_file {
        let key = fs::read_to_string(file).map_err(|error| AgentError::Key(file.clone(), error))?;
        give_key(options, key.trim());
    }
    Ok(Model {
        _api: None,
        sentence: format!(
            "the agent is {}, with a real model: it costs money",
            path.display()
        ),
        word: "claude",
    })
}

fn give_key(options: &mut Options, key: &str) {
    for person in &mut options.people {
        person.api_key = Some(key.to_owned());
    }
}

/// A model that has the agent run what it is told, so that the walls can be tried with the real agent
/// and without a key.
fn emulated_model() -> io::Result<MessagesApi> {
    let api = MessagesApi::start(MessagesApiOptions {
        keys: [EMULATED_KEY.to_owned()].into(),
        ..MessagesApiOptions::default()
    })?;
    api.script(|turn: &Turn| {
        turn.tool_results
            .is_empty()
            .then(|| Reply::bash(turn.prompt.trim()))
    });
    Ok(api)
}

/// Where this checkout's tests have it, or else the first in `PATH`.
fn find_claude() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut in_path = env::split_paths(&path).map(|directory| directory.join("claude"));
    agent::program()
        .ok()
        .or_else(|| in_path.find(|path| is_program(path)))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
