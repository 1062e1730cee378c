//! Everything that a ground is made of: directories, programs, accounts, configuration, daemons.

use std::{
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use super::{
    Agent, Daemon, GroundError, Options, Separation,
    accounts::Account,
    files,
    layout::Layout,
    people::{self, Parts},
    programs::{self, Programs},
    record::Thing,
    removal::Made,
    supervisor::Plan,
};

/// How to start each daemon.
pub(super) fn plans(
    layout: &Layout,
    separation: Separation,
    gateway: &Account,
    options: &Options,
) -> [(Daemon, Plan); 3] {
    let plan = |daemon: Daemon, program: &str| Plan {
        program: layout.programs().join(program),
        config: layout.config(),
        account: None,
        own_root: false,
        cgroup: None,
        log: layout.log().join(format!("{}.txt", daemon.name())),
    };
    let mut authd = plan(Daemon::Authd, "kai-authd");
    let mut broker = plan(Daemon::Broker, "kai-brokerd");
    let mut kai_gateway = plan(Daemon::Gateway, "kai-gateway");
    match separation {
        Separation::Accounts => {
            kai_gateway.account = Some(gateway.clone());
            broker.cgroup.clone_from(&options.cgroup);
        }
        Separation::OneAccount => {
            authd.own_root = true;
            broker = plan(Daemon::Broker, "kai-play-launcher");
        }
    }
    [
        (Daemon::Authd, authd),
        (Daemon::Broker, broker),
        (Daemon::Gateway, kai_gateway),
    ]
}

/// Makes directories, programs, accounts and configuration.
///
/// # Errors
/// What could not be made.
pub(super) fn prepare(
    options: &Options,
    programs: &Programs,
    separation: Separation,
    layout: &Layout,
    made: &mut Made,
) -> Result<Parts, GroundError> {
    made.note(Thing::Directory(layout.root().to_owned()))?;
    layout
        .make()
        .map_err(files(&format!("cannot make {}", layout.root().display())))?;
    for name in programs::NAMES {
        programs::install(&programs.path(name), &layout.programs().join(name))
            .map_err(files(&format!("cannot copy {name}")))?;
    }
    let command = match &options.agent {
        Agent::Embedded(arguments) => {
            let program = layout.programs().join("kai-play-agent");
            words(&program, arguments)
        }
        Agent::Program { path, arguments } => {
            let program = layout.agent().join(path.file_name().unwrap_or_default());
            programs::install(path, &program)
                .map_err(files(&format!("cannot copy the agent {}", path.display())))?;
            words(&program, arguments)
        }
        Agent::Command(command) => command.clone(),
    };
    let parts = match separation {
        Separation::Accounts => people::make_accounts(options, made)?,
        Separation::OneAccount => people::one_account(options, layout)?,
    };
    // Seen from the user namespace in which authd is root, whoever started this is root.
    let gateway = match separation {
        Separation::Accounts => parts.gateway.name.as_str(),
        Separation::OneAccount => "root",
    };
    let write = || {
        layout.make_gateway_state(&parts.gateway)?;
        layout.write_token(&options.token, &parts.gateway)?;
        layout.write_users(&options.people, &parts.people, separation)?;
        layout.write_config(options, gateway, &command)
    };
    write().map_err(files("cannot write the configuration"))?;
    Ok(parts)
}

fn words(program: &Path, arguments: &[String]) -> Vec<String> {
    std::iter::once(program.to_string_lossy().into_owned())
        .chain(arguments.iter().cloned())
        .collect()
}

/// Unlike any other ground's on this machine now.
pub(super) fn unique_id() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    // Apart, so that no two pairs read the same.
    format!("{}-{}", base36(std::process::id()), base36(next))
}

fn base36(mut number: u32) -> String {
    let mut digits = Vec::new();
    loop {
        digits.extend(char::from_digit(number % 36, 36));
        number /= 36;
        if number == 0 {
            return digits.iter().rev().collect();
        }
    }
}
