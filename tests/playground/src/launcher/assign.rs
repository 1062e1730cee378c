//! What a worker is to know and to see, from kai.yaml and its person.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{fs::DirBuilderExt, net::UnixStream},
    },
    path::{Path, PathBuf},
};

use kai_brokerd::launch::Launched;
use kai_program::{
    config::Config,
    trusted_file::{Distrust, Trust, TrustedFile},
};
use kai_proto::worker_broker::{Assignment, Clocks};
use nix::unistd::{User, geteuid};

use super::{
    launch::{Order, start},
    people::Person,
};

/// Forks the worker of `person` with its first connection.
///
/// # Errors
/// What failed before the fork or at it.
pub fn start_worker(
    config: &Config,
    person: &Person,
    connection: &UnixStream,
) -> io::Result<Launched> {
    let state = config
        .paths
        .state
        .join("users")
        .join(person.entry.name.as_str());
    fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(&state)?;
    let agent = &config.agent;
    let limits = &config.limits;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let assignment = Assignment {
        account: person.account.clone(),
        home: text(&person.home),
        shell: "/bin/sh".to_owned(),
        state: text(&state),
        agent: agent.command.clone(),
        base_url: agent.base_url.clone(),
        has_key: person.key_file.is_some(),
        login: false,
        model: person.entry.model.clone(),
        budget_micro_usd: None,
        clocks: Clocks {
            silence: limits.silence,
            turn: limits.turn,
            tool: limits.tool,
        },
        connect_ports: agent
            .connect_ports
            .clone()
            .map(|ports| ports.into_iter().chain(agent.base_port()).collect()),
        read_paths: agent.read_paths.iter().map(|path| text(path)).collect(),
        walls: kai_proto::worker_broker::Walls::default(),
    };
    let programs = config.paths.programs.clone().unwrap_or_default();
    start(&Order {
        assignment: &assignment,
        program: &programs.join("kai-worker"),
        hidden: &hidden(config),
        own: &[person.home.clone(), state],
        readable: &agent.read_paths,
        connection,
        key: person.key_file.as_deref().map(open_key).transpose()?,
    })
}

/// What a worker sees as an empty directory: what a broker's worker does, and everything that is the
/// account's own.
fn hidden(config: &Config) -> Vec<PathBuf> {
    let mut hidden: Vec<PathBuf> = ["/tmp", "/var/tmp", "/dev/shm", "/home", "/root", "/run"]
        .map(PathBuf::from)
        .to_vec();
    hidden.extend(
        User::from_uid(geteuid())
            .ok()
            .flatten()
            .map(|user| user.dir),
    );
    hidden.extend(
        config
            .file
            .parent()
            .and_then(Path::parent)
            .map(Path::to_owned),
    );
    // A directory below one that is hidden is hidden with it.
    let all = hidden.clone();
    hidden.retain(|path| {
        !all.iter()
            .any(|other| path != other && path.starts_with(other))
    });
    hidden.retain(|path| path != Path::new("/"));
    hidden.sort();
    hidden.dedup();
    hidden
}

fn open_key(file: &Path) -> io::Result<OwnedFd> {
    let untrusted = |problem: Distrust| io::Error::other(problem.to_string());
    Ok(TrustedFile::open(file, Trust::Private)
        .map_err(untrusted)?
        .into_descriptor())
}
