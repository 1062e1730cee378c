//! What kai needs of a host, one judgement each.

pub mod files;
pub mod kernel;
pub mod programs;

use std::path::{Path, PathBuf};

use kai_program::config::Config;
use serde::Serialize;

use crate::{
    host,
    items::{secrets::TOKEN, token::ENCRYPTED},
};

/// How a thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is there.
    Ok,
    /// Good to know, and no reason against running.
    Note,
    /// Only root can tell.
    NeedsRoot,
    /// It is not there, or not as it must be.
    Missing,
}

/// What was found of a thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[must_use]
pub struct Finding {
    /// How it stands.
    pub state: State,
    /// In one sentence.
    pub found: String,
    /// What to do about it; for what is missing only.
    pub mend: Option<String>,
}

impl Finding {
    /// Of a thing that stands so.
    pub fn ok(found: impl Into<String>) -> Self {
        Self {
            state: State::Ok,
            found: found.into(),
            mend: None,
        }
    }

    /// Of a thing that stands so.
    pub fn note(found: impl Into<String>) -> Self {
        Self {
            state: State::Note,
            found: found.into(),
            mend: None,
        }
    }

    /// Of a thing that stands so.
    pub fn needs_root(found: impl Into<String>) -> Self {
        Self {
            state: State::NeedsRoot,
            found: found.into(),
            mend: None,
        }
    }

    /// Of a thing that stands so.
    pub fn missing(found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            state: State::Missing,
            found: found.into(),
            mend: Some(mend.into()),
        }
    }
}

/// One thing and what was found of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What it is called.
    pub name: String,
    /// How it stands.
    #[serde(flatten)]
    pub finding: Finding,
}

/// What all checks come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// All that is needed is there.
    Ready,
    /// Nothing is known to be missing, but only root can see the rest.
    NeedsRoot,
    /// Something is missing.
    Lacking,
}

impl Verdict {
    /// Of these checks together.
    pub fn of(checks: &[Check]) -> Self {
        let any = |state| checks.iter().any(|check| check.finding.state == state);
        if any(State::Missing) {
            Self::Lacking
        } else if any(State::NeedsRoot) {
            Self::NeedsRoot
        } else {
            Self::Ready
        }
    }
}

/// Looks at this host and judges it. What depends on the configuration is left out if that cannot be
/// used.
#[must_use]
pub fn all(config: &Path) -> Vec<Check> {
    let mut checks = kernel_checks();
    let mut add = |name: &str, finding| {
        checks.push(Check {
            name: name.to_owned(),
            finding,
        });
    };
    match Config::load(config) {
        Ok(config) => {
            add(
                "configuration",
                Finding::ok(config.file.display().to_string()),
            );
            about(&config, &mut add);
        }
        Err(problem) => add(
            "configuration",
            Finding::missing(
                problem.to_string(),
                "begin here: accounts, files and programs depend on it and are not checked",
            ),
        ),
    }
    checks
}

/// What the kernel offers for the walls of workers.
#[must_use]
pub fn kernel_checks() -> Vec<Check> {
    let actions = host::read("/proc/sys/kernel/seccomp/actions_avail");
    let controllers = host::read("/sys/fs/cgroup/cgroup.controllers");
    [
        ("kernel", kernel::version(&host::kernel_release())),
        ("landlock", kernel::landlock(&host::landlock())),
        ("seccomp", kernel::seccomp(actions.as_deref())),
        ("namespaces", kernel::namespaces(&host::namespaces())),
        ("cgroup v2", kernel::cgroup(controllers.as_deref())),
    ]
    .into_iter()
    .map(|(name, finding)| Check {
        name: name.to_owned(),
        finding,
    })
    .collect()
}

fn about(config: &Config, add: &mut impl FnMut(&str, Finding)) {
    let account = host::account(&config.accounts.gateway);
    add(
        "gateway's account",
        files::gateway_account(&config.accounts.gateway, &account),
    );
    let token = the_token(&config.telegram.token_file);
    let ids = account.ok().flatten();
    add(
        "bot token",
        files::token(token, &host::look_at_link(token), ids),
    );
    let users = &config.paths.users;
    add(
        "table of users",
        files::users(users, &host::look_at_link(users), host::is_root()),
    );
    if let Some(program) = config.agent.command.first() {
        let program = PathBuf::from(program);
        add(
            "agent",
            programs::program(&program, &host::way_to(&program)),
        );
    }
    let directory = match &config.paths.programs {
        Some(directory) => directory.clone(),
        None => host::own_directory(),
    };
    for name in programs::OURS {
        let program = directory.join(name);
        add(name, programs::program(&program, &host::way_to(&program)));
    }
}

/// Where the token is: encrypted, if it is where apply keeps it and apply encrypted it.
fn the_token(configured: &Path) -> &Path {
    let encrypted = Path::new(ENCRYPTED);
    if configured == Path::new(TOKEN) && host::look_at_link(encrypted).is_ok() {
        encrypted
    } else {
        configured
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_outweighs_what_needs_root_and_notes_weigh_nothing() {
        use State::{Missing, NeedsRoot, Note, Ok};
        for (states, verdict) in [
            (&[Ok, Note][..], Verdict::Ready),
            (&[Ok, NeedsRoot, Note], Verdict::NeedsRoot),
            (&[Missing, NeedsRoot], Verdict::Lacking),
            (&[NeedsRoot, Missing, Ok], Verdict::Lacking),
        ] {
            let checks: Vec<Check> = states
                .iter()
                .map(|&state| Check {
                    name: "x".to_owned(),
                    finding: Finding {
                        state,
                        found: String::new(),
                        mend: None,
                    },
                })
                .collect();
            assert_eq!(Verdict::of(&checks), verdict, "{states:?}");
        }
    }
}
