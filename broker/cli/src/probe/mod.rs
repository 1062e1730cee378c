//! `kai-broker probe`: puts a hostile program of ours into the agent's place, in the walls of one user's
//! policy, on an account that nobody has, and judges what it reached.
//!
//! All of it happens in this one-shot command, with the daemon's own library; the daemon knows nothing of it.
//!
//! - [`place`]: what is laid out to be attacked, and taken away again;
//! - [`walls`]: a worker in all walls, or in some of them;
//! - [`verdict`]: what the answers mean; [`show`] shows it to people.

pub mod place;
pub mod show;
pub mod verdict;
pub mod walls;

use std::{io, path::Path, process::ExitCode};

use clap::{Args, ValueEnum};
use kai_brokerd::{
    assign,
    launch::LaunchError,
    policy::{Kernel, Network},
    sys,
    users::{User, Users, UsersError},
};
use kai_probe::expected::Circumstances;
use kai_program::config::{Config, ConfigError};
use kai_proto::admin_broker::{Reply, Request};

use crate::client::Broker;
use place::Place;
use verdict::Verdict;
use walls::Walls;

/// `kai-broker probe`.
#[derive(Debug, Args)]
pub struct Probe {
    /// The user whose policy is probed; without one, a user of whom users.yaml says nothing more.
    name: Option<String>,
    /// Leaves a wall out, and shows what the others hold alone.
    #[arg(long, value_delimiter = ',', value_name = "WALL")]
    without: Vec<Wall>,
    /// As one JSON object.
    #[arg(long)]
    json: bool,
}

/// A wall that can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Wall {
    /// What of files, ports, signals and names a process reaches.
    Landlock,
    /// Which system calls there are.
    Seccomp,
    /// What is seen: processes, files, networks of others.
    Namespaces,
}

/// Why nothing can be probed. One sentence each.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Not root.
    #[error("only root can start a worker; use: sudo kai-broker probe")]
    NotRoot,
    /// No such user.
    #[error("users.yaml has no user `{0}`; it has {1}")]
    NoUser(String, String),
    /// kai.yaml.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// users.yaml.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// Something cannot be laid out.
    #[error("{0}: {1}")]
    Place(String, io::Error),
    /// No two accounts are free.
    #[error("no two uids are free between 59000 and 59999; remove accounts that nobody needs")]
    NoAccount,
    /// The launch failed; the admin learns it here, before the first user does.
    #[error("no worker can be started on this host: {0}")]
    Launch(#[from] LaunchError),
    /// The worker, or what stands in its place, ended too early.
    #[error("the probe's worker did not finish: {0}")]
    Unfinished(String),
}

impl ProbeError {
    fn place(at: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Place(at.as_ref().display().to_string(), error)
    }
}

/// Probes, and gives what came of it.
///
/// # Errors
/// [`ProbeError`].
pub fn probe(file: &Path, asked: &Probe) -> Result<Verdict, ProbeError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(ProbeError::NotRoot);
    }
    let config = Config::load(file)?;
    let users = Users::load(&config)?;
    let user = match &asked.name {
        None => None,
        Some(name) => Some(named(&users, name)?),
    };
    let broker = running(&config.paths.run);
    let place = Place::lay_out(&config, user, broker)?;
    let programs = assign::programs(&config);

    let asked_for = Walls::without(&asked.without);
    eprintln!("probing {asked_for}");
    let answers = walls::run(&config, &users, &place, &programs, asked_for)?;
    let mut alone = Vec::new();
    for walls in Walls::each_alone() {
        eprintln!("probing {walls}, to see which wall blocks what");
        let answers = walls::run(&config, &users, &place, &programs, walls)?;
        alone.push((walls, answers));
    }
    let policy = &place.user.policy;
    let here = sys::landlock_abi();
    // What is open for want of a wall that was left out is not open on purpose.
    let circumstances = Circumstances {
        landlock_abi: here,
        hosts_network: policy.network == Network::Host,
        ports_listed: policy
            .connect_ports(config.agent.connect_ports.as_deref(), None)
            .is_some(),
        login: place.user.account.login,
        allow: policy.allow.clone(),
    };
    Ok(verdict::judge(
        verdict::Probed {
            user: asked.name.clone(),
            walls: asked_for.to_string(),
            landlock_abi: here,
            weakened: policy.weakened(
                config.agent.connect_ports.as_deref(),
                Kernel { landlock_abi: here },
            ),
        },
        &answers,
        &alone,
        &circumstances,
    ))
}

/// Probes and shows what came of it.
///
/// # Errors
/// [`ProbeError`].
pub fn run(file: &Path, asked: &Probe) -> Result<ExitCode, ProbeError> {
    let verdict = probe(file, asked)?;
    let text = if asked.json {
        serde_json::to_string(&verdict)
            .map_err(|error| ProbeError::Unfinished(error.to_string()))?
    } else {
        show::verdict(&verdict)
    };
    crate::print(&text).map_err(|error| ProbeError::Unfinished(error.to_string()))?;
    Ok(if verdict.is_as_expected() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(crate::DIFFERS)
    })
}

fn named<'a>(users: &'a Users, name: &str) -> Result<&'a User, ProbeError> {
    let found = users.iter().find(|user| user.entry.name.as_str() == name);
    found.ok_or_else(|| {
        let names: Vec<_> = users.iter().map(|user| user.entry.name.as_str()).collect();
        let names = match names.as_slice() {
            [] => "none".to_owned(),
            names => names.join(", "),
        };
        ProbeError::NoUser(name.to_owned(), names)
    })
}

/// The running broker's process.
fn running(run: &Path) -> Option<i32> {
    let mut broker = Broker::connect(run).ok()?;
    match broker.ask(Request::Status).ok()? {
        Reply::Broker(status) => i32::try_from(status.pid).ok(),
        _ => None,
    }
}
