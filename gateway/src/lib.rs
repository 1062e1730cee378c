//! `kai-gateway`: speaks Telegram, and holds no privilege.
//!
//! Runs as its own account. It talks to the Bot API, to the broker's and authd's sockets for it, and,
//! through the broker, to each user's worker. It holds the bot's token and the inbox. It must never see
//! a user's home, a key of the agent, or a secret of the second factor, and it must never write to the
//! log what somebody said.
//!
//! - [`service`]: from the start to the end, which [`closing`] has come gently; [`token`]: the bot's token;
//! - [`polling`]: receives updates; [`authorise`] judges them; [`inbox`] keeps them;
//! - [`user`]: one task for each user, with what is to be told to the worker ([`agenda`]), the
//!   connection to it ([`link`]) and what to do without one ([`trouble`]);
//! - [`gate`]: the second factor, which everything of a user's has to pass; [`pass`] is what it lets
//!   through, [`question`] asks for a code in a chat, [`quote`] shows what will run;
//! - [`broker`], [`roll`], [`authd`]: the connections to the other daemons;
//! - [`answer`] and [`delivery`]: an answer's way from the worker into the chat, as [`markdown`]
//!   renders it and [`split`] cuts it;
//! - [`telegram`]: the Bot API, at the pace that [`limiter`] allows; [`calls`]: those under way;
//! - [`commands`], [`reply`], [`wording`]: what kai itself is asked and says.
#![forbid(unsafe_code)]

pub mod agenda;
pub mod answer;
pub mod authd;
pub mod authorise;
pub mod broker;
pub mod calls;
pub mod closing;
pub mod commands;
pub mod delivery;
pub mod gate;
pub mod inbox;
pub mod limiter;
pub mod link;
pub mod markdown;
pub mod pass;
pub mod polling;
pub mod question;
pub mod quote;
pub mod rendered;
pub mod reply;
pub mod roll;
pub mod service;
pub mod split;
pub mod telegram;
pub mod token;
pub mod trouble;
pub mod user;
pub mod wording;

use std::{ffi::OsString, path::Path, process::ExitCode};

use kai_program::{
    arguments::{self, Action, Program},
    config::Config,
    log,
};
use tracing::error;

const PROGRAM: Program = Program {
    name: "kai-gateway",
    version: env!("CARGO_PKG_VERSION"),
    purpose: "Brings Telegram messages to each user's own agent and its answers back.",
};

/// Runs the program with these arguments, its own name left out.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let action = match arguments::parse(PROGRAM, arguments) {
        Ok(action) => action,
        Err(message) => return refuse(&message, 64),
    };
    match action {
        Action::Print(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Action::Check(file) => match check(&file) {
            Ok(()) => {
                println!("{}: good", file.display());
                ExitCode::SUCCESS
            }
            Err(message) => refuse(&message, 78),
        },
        Action::Run(file) => {
            if let Err(problem) = service::refuse_root(nix::unistd::geteuid()) {
                return refuse(&problem.to_string(), 77);
            }
            let config = match Config::load(&file) {
                Ok(config) => config,
                Err(problem) => return refuse(&problem.to_string(), 78),
            };
            log::start(PROGRAM.name, config.log);
            match service::serve(&config) {
                Ok(()) => ExitCode::SUCCESS,
                Err(problem) => {
                    error!("{problem}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}

fn check(file: &Path) -> Result<(), String> {
    let config = Config::load(file).map_err(|problem| problem.to_string())?;
    service::telegram(&config).map_err(|problem| problem.to_string())?;
    Ok(())
}

fn refuse(message: &str, status: u8) -> ExitCode {
    eprintln!("{}: {message}", PROGRAM.name);
    ExitCode::from(status)
}
