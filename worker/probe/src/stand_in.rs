//! In the worker's place, with some of the walls that a worker raises itself left out: so that each wall is
//! seen alone. A program of its own, because the worker has no way to leave one out.

use std::{path::Path, process::Command};

use kai_worker::{
    agent::enclosure::Enclosure,
    confinement::{paths, ruleset, seccomp},
    inherited::Inherited,
    tools,
};

use crate::{Problem, scene::Scene};

/// Does the worker's part with the walls that the scene names, starts the agent's part and waits for it.
///
/// # Errors
/// Whatever a worker would end at.
pub fn stand_in_for_the_worker() -> Result<(), Problem> {
    let inherited = Inherited::take()?;
    let assignment = &inherited.assignment;
    let home = Path::new(&assignment.home);
    let scene = Scene::read(home)?;
    let has = |wall: &str| scene.walls.split(',').any(|named| named == wall);
    nix::sys::prctl::set_dumpable(false)?;
    if has("landlock") {
        let rules = paths::rules(assignment);
        let reached = ruleset::restrict(&rules, assignment.connect_ports.as_deref())?;
        if reached.abi == 0 {
            return Err("this kernel has no Landlock".into());
        }
    }
    if has("seccomp") {
        seccomp::install(&assignment.walls.allow, seccomp::Answers::Usual)?;
    }
    let mut agent = Command::new(std::env::current_exe()?);
    agent.arg("agent").env_clear().env("HOME", home);
    agent.current_dir(home);
    agent.env("ANTHROPIC_API_KEY", "sk-of-the-probe");
    if has("landlock") {
        Enclosure::new(assignment, tools::locate()?).put_around(&mut agent)?;
    }
    let status = agent.status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("the probe's agent ended with {status}").into())
    }
}
