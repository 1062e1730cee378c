//! The login: an address, a question for the code, and a file that says that somebody is logged in.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, BufRead, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::PathBuf,
    process::{Command, ExitCode},
};

/// Where Claude Code keeps its login, below the home.
const DIRECTORY: &str = ".claude";
const FILE: &str = ".credentials.json";

/// Asks for a code until there is one. A line that begins with `!` is run as a shell command first, on this
/// terminal.
///
/// # Errors
/// What the terminal or the file system answers.
pub fn log_in() -> io::Result<ExitCode> {
    println!("Opening browser to sign in\u{2026}");
    println!("If the browser didn't open, visit: https://login.example/authorize?code=true");
    let mut lines = io::stdin().lock().lines();
    loop {
        print!("Paste code here if prompted > ");
        io::stdout().flush()?;
        let Some(line) = lines.next().transpose()? else {
            println!("Login failed: no code");
            return Ok(ExitCode::FAILURE);
        };
        match (line.trim(), line.strip_prefix('!')) {
            (_, Some(command)) => drop(Command::new("bash").args(["-c", command]).status()?),
            ("", _) => {}
            ("wrong", _) => {
                println!("Login failed: Request failed with status code 400");
                return Ok(ExitCode::FAILURE);
            }
            (code, _) => {
                keep(code)?;
                println!("Login successful.");
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
}

fn keep(code: &str) -> io::Result<()> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let directory = home.ok_or(io::ErrorKind::NotFound)?.join(DIRECTORY);
    if !directory.is_dir() {
        DirBuilder::new().mode(0o700).create(&directory)?;
    }
    let file = directory.join(FILE);
    match fs::remove_file(&file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)?;
    writeln!(file, "{{\"madeUp\":{}}}", code.len())
}
