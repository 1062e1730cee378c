//! The playground's command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Runs all of kai against an emulated Telegram and serves a chat page, on which you are alice, bob or
/// a stranger.
///
/// As root, alice and bob have accounts of their own, made for this run and removed after it. Without
/// root everything runs under your own account, and the page says what that leaves open.
#[derive(Debug, Clone, Parser)]
#[command(name = "kai-playground", version)]
pub struct Arguments {
    /// Which agent to talk to.
    #[arg(long, value_enum, default_value_t = AgentKind::Embedded)]
    pub agent: AgentKind,

    /// Where the real agent's program is [default: where this checkout's tests have it, then PATH].
    #[arg(long, value_name = "FILE")]
    pub agent_path: Option<PathBuf>,

    /// A file with a key for the real agent; alice's and bob's agent can read the key. Without one,
    /// the model is emulated.
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,

    /// The Messages API for the real agent, if not its default one.
    #[arg(long, value_name = "URL")]
    pub base_url: Option<String>,

    /// Plays the conversation in this file instead of serving the page; the exit status is 1 if it
    /// goes otherwise and 2 if the file has a mistake.
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,

    /// The page's port on 127.0.0.1; 0 takes any.
    #[arg(long, value_name = "PORT", default_value_t = 8088)]
    pub port: u16,
}

/// Which agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AgentKind {
    /// A small one that runs every message as a shell command.
    Embedded,
    /// The `claude` program.
    Claude,
}
