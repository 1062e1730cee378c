//! The agent's own walls, within the worker's: what its worker reaches and it does not, and how it comes
//! to start its tools in a domain of their own.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use kai_proto::worker_broker::Assignment;
use nix::{sys::stat::Mode, unistd::Pid};

use crate::{
    confinement::{
        paths::{self, Rule},
        ruleset,
    },
    sys, tools,
};

/// The agent's oom_score_adj (proc(5)): its tools go before it, its worker after it.
const OOM_SCORE: i32 = 300;

/// The directory of the links to kai-tools, in the worker's state.
const LINKS: &str = "tools";

/// Names by which the agent finds kai-tools in the place of the system's program, with the reason.
const STAND_INS: &[(&str, &str)] = &[
    (
        "bash",
        "reads the user's start files, into which a tool may have written",
    ),
    (
        "git",
        "the agent calls it at each start, and a repository's .git/config can name programs",
    ),
];

/// What keeps the agent from its worker, and the tools from the agent.
#[derive(Debug)]
pub struct Enclosure {
    rules: Vec<Rule>,
    program: PathBuf,
    links: PathBuf,
}

impl Enclosure {
    /// The walls of the agent of `assignment`, whose tools are started by `program`. To be called in
    /// the worker's own walls: what those close stays closed.
    #[must_use]
    pub fn new(assignment: &Assignment, program: PathBuf) -> Self {
        let state = Path::new(&assignment.state);
        let mut rules = paths::rules(assignment);
        // The worker's journal says what was answered, and the links below say what a shell is.
        rules.retain(|rule| rule.path != state);
        Self {
            rules,
            program,
            links: state.join(LINKS),
        }
    }

    /// Has `command` start the agent within them.
    ///
    /// # Errors
    /// What the file system, or Landlock, answers.
    pub fn put_around(&self, command: &mut Command) -> io::Result<()> {
        self.link()?;
        let links = self.links.display();
        command
            .env("PATH", format!("{links}:{}", tools::SYSTEM_PATH))
            .env("CLAUDE_CODE_SHELL", self.links.join("bash"))
            .env("CLAUDE_CODE_SHELL_PREFIX", &self.program)
            // Its own tools for files run in its own process, which could read its own environment.
            // Not a wall: a file can be changed between the look and the reading.
            .arg("--disallowedTools=Read(//proc/**),Edit(//proc/**)");
        let domain = ruleset::prepare(&self.rules, None).map_err(io::Error::other)?;
        sys::confine_at_exec(command, domain);
        Ok(())
    }

    /// Told of the agent's start. Not earlier: until its exec it is as undumpable as the worker, and
    /// its files in /proc are root's (proc(5)).
    pub fn started(agent: Pid) {
        let file = format!("/proc/{agent}/oom_score_adj");
        if let Err(error) = tools::raise_oom_score(Path::new(&file), OOM_SCORE) {
            tracing::warn!(%error, "the agent's oom_score_adj cannot be raised");
        }
    }

    /// Makes the links anew. The agent cannot write there, but an earlier version of it could.
    fn link(&self) -> io::Result<()> {
        match nix::unistd::mkdir(&self.links, Mode::S_IRWXU) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        for (name, _) in STAND_INS {
            let link = self.links.join(name);
            if fs::read_link(&link).is_ok_and(|to| to == self.program) {
                continue;
            }
            // One for a program that is not there would have the agent think that it is.
            if tools::find(name.as_ref()).is_some() {
                let _ = fs::remove_file(&link);
                symlink(&self.program, &link)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stand_in_has_a_reason() {
        assert!(STAND_INS.iter().all(|(_, reason)| !reason.is_empty()));
    }
}
