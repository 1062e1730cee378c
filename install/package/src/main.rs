//! `kai-package DIR`: writes the manual pages and the completions of root's commands into `DIR`, from the
//! same definitions as their `--help`.
#![forbid(unsafe_code)]

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Command;
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;

/// Commands of the system administrator's: man-pages(7).
const SECTION: &str = "8";

fn main() -> ExitCode {
    let Some(directory) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("kai-package: name a directory to write into, as in: kai-package target/package");
        return ExitCode::from(64);
    };
    match write(&directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kai-package: {}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}

fn write(directory: &Path) -> io::Result<()> {
    let commands = [
        kai_install::command(),
        kai_broker_cli::command(),
        kai_auth_cli::command(),
    ];
    let shells = [
        (Shell::Bash, "bash"),
        (Shell::Zsh, "zsh"),
        (Shell::Fish, "fish"),
    ];
    for place in shells.map(|(_, name)| name).iter().chain(&["man"]) {
        fs::create_dir_all(directory.join(place))?;
    }
    for command in commands {
        let name = command.get_name().to_owned();
        for (shell, place) in shells {
            generate_to(shell, &mut command.clone(), &name, directory.join(place))?;
        }
        pages(
            &command.disable_help_subcommand(true),
            &name,
            &directory.join("man"),
        )?;
    }
    Ok(())
}

/// A page for `command`, which is typed as `name`, and one for each of its subcommands.
fn pages(command: &Command, name: &str, directory: &Path) -> io::Result<()> {
    for subcommand in command.get_subcommands() {
        let name = format!("{name} {}", subcommand.get_name());
        pages(subcommand, &name, directory)?;
    }
    let page = name.replace(' ', "-");
    let command = command
        .clone()
        .name(page.clone())
        .bin_name(name)
        // Where it is asked for a version, that is an argument of its own.
        .disable_version_flag(name.contains(' '));
    let mut text = Vec::new();
    Man::new(command)
        .section(SECTION)
        .title(page.to_uppercase())
        .source(format!("kai {}", env!("CARGO_PKG_VERSION")))
        .manual("kai")
        .render(&mut text)?;
    fs::write(directory.join(format!("{page}.{SECTION}")), text)
}
