//! The agent's program: root's, below `/opt/kai/agent`.
//!
//! - [`install`]: `kai-install agent`, which brings it there.

pub mod install;

use std::path::{Path, PathBuf};

use kai_program::config::Config;

use crate::{
    checks::{State, programs},
    failure::Failure,
    host,
    items::{secrets::CONFIG, versions},
    root::Root,
    settings::Settings,
};

/// Where agents are.
const PLACE: &str = versions::AGENTS;
/// The one that runs.
const CURRENT: &str = "/opt/kai/agent/current";
/// The agent that is run unless another is named.
pub const COMMAND: &str = "/opt/kai/agent/current/claude";

/// The version that [`COMMAND`] leads to.
#[must_use]
pub fn version(root: &Root) -> Option<String> {
    let to = root.link_at(Path::new(CURRENT)).ok()??;
    to.to_str().map(str::to_owned)
}

/// The program that kai.yaml names, or else install.yaml, or else the default.
///
/// # Errors
/// If kai.yaml has a mistake.
pub fn program(root: &Root, settings: &Settings) -> Result<PathBuf, Failure> {
    if let Some(text) = root.read_text(CONFIG.as_ref())? {
        let config = Config::parse(CONFIG.as_ref(), &text)?;
        if let Some(program) = config.agent.command.first() {
            return Ok(program.into());
        }
    }
    let named = settings.agent_command.as_ref();
    let first = named.and_then(|words| words.first());
    Ok(first.map_or_else(|| COMMAND.into(), PathBuf::from))
}

/// True if the agent is there, false if the default one is not there yet.
///
/// # Errors
/// [`Failure::Host`] if another one is missing, or others than root can change it.
pub fn judge(root: &Root, settings: &Settings) -> Result<bool, Failure> {
    let program = program(root, settings)?;
    if program == Path::new(COMMAND) && root.look(&program)?.is_none() {
        return Ok(false);
    }
    let finding = finding(root, &program);
    match finding.state {
        State::Missing => Err(Failure::Host {
            name: "agent".to_owned(),
            found: finding.found,
            mend: finding.mend.unwrap_or_default(),
        }),
        _ => Ok(true),
    }
}

/// The judgement on everything on the way to `program`.
pub fn finding(root: &Root, program: &Path) -> crate::checks::Finding {
    let shown = root.shown(program);
    let way: Vec<_> = host::way_to(&shown)
        .into_iter()
        // What is around a tree is not what will be around it on its host.
        .filter(|(step, _)| {
            root.is_host() || (step.starts_with(root.path()) && step != root.path())
        })
        .collect();
    programs::program(&shown, &way)
}
