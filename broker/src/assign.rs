//! What one user's worker is launched with, from root's configuration alone: which program, what it sees of
//! the file system, and what it is told to do.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use kai_program::config::Config;
use kai_proto::worker_broker::{Assignment, Clocks, Walls};

use crate::{
    launch::{LoginFiles, World},
    policy::Confinement,
    users::{User, Users},
};

/// Where kai's programs are: in `paths.programs`, or beside this one.
#[must_use]
pub fn programs(config: &Config) -> PathBuf {
    config.paths.programs.clone().unwrap_or_else(|| {
        std::env::current_exe()
            .ok()
            .and_then(|program| program.parent().map(Path::to_owned))
            .unwrap_or_else(|| "/opt/kai/current".into())
    })
}

/// What the worker of `user`, one of `users`, sees, with its state in `state`.
#[must_use]
pub fn world(config: &Config, users: &Users, user: &User, state: &Path) -> World {
    let account = &user.account;
    let paths = &config.paths;
    let configuration = config.file.parent().unwrap_or(Path::new("/etc/kai"));
    let own = [&*paths.run, &*paths.state, &*paths.log, configuration];
    let homes = users.iter().filter(|other| {
        let home = &other.account.home;
        // Those below /home are hidden with it. Others are, unless they are somebody's by name
        // alone, such as /usr/games.
        other.account != *account
            && !home.starts_with("/home")
            && fs::metadata(home).is_ok_and(|found| found.uid() == other.account.uid.as_raw())
    });
    let own: Vec<&Path> = homes.map(|other| &*other.account.home).chain(own).collect();
    let policy = &user.policy;
    let readable = [&config.agent.read_paths[..], &policy.read].concat();
    let mut world = World::new(&account.home, state, &own, &readable, &policy.write);
    world.temporary = policy.limits.tmp;
    world.login_files = match (account.login, policy.confinement) {
        (false, _) => LoginFiles::Own,
        (true, Confinement::Strict) => LoginFiles::ReadOnly,
        (true, Confinement::BestEffort) => LoginFiles::ReadOnlyIfPossible,
    };
    world
}

/// What that worker is told.
#[must_use]
pub fn assignment(config: &Config, user: &User, state: &Path, has_key: bool) -> Assignment {
    let agent = &config.agent;
    let limits = &config.limits;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let policy = &user.policy;
    let texts =
        |paths: &[PathBuf]| -> Vec<String> { paths.iter().map(|path| text(path)).collect() };
    Assignment {
        account: user.account.name.clone(),
        home: text(&user.account.home),
        shell: text(&user.account.shell),
        state: text(state),
        agent: agent.command.clone(),
        base_url: agent.base_url.clone(),
        has_key,
        login: false,
        model: user.entry.model.clone(),
        budget_micro_usd: user.budget_micro_usd,
        clocks: Clocks {
            silence: limits.silence,
            turn: user.turn.unwrap_or(limits.turn),
            tool: limits.tool,
        },
        connect_ports: policy.connect_ports(agent.connect_ports.as_deref(), agent.base_port()),
        read_paths: texts(&[&agent.read_paths[..], &policy.read].concat()),
        walls: Walls {
            strict: policy.confinement == Confinement::Strict,
            allow: policy.allow.clone(),
            write_paths: texts(&policy.write),
            free: policy.limits.free,
        },
    }
}
