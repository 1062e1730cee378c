//! The command line: the flags of Claude Code that a host of an agent uses.

use std::{ffi::OsString, path::PathBuf};

use kai_proto::ids::SessionId;

/// What `--version` says.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (kai-play-agent)");

/// What the command line asks for.
#[derive(Debug)]
pub enum Asked {
    /// To talk.
    Run(Flags),
    /// To log in.
    LogIn,
    /// To print this.
    Print(String),
}

/// How to talk.
#[derive(Debug, Default)]
pub struct Flags {
    /// The session to go on with.
    pub resume: Option<SessionId>,
    /// The name of the new session.
    pub session: Option<SessionId>,
    /// The model, which is only ever named.
    pub model: Option<String>,
    /// Where the cost is cut off, in millionths of a US dollar.
    pub budget_micro_usd: Option<u64>,
    /// Messages are also written in pieces.
    pub partial: bool,
    /// The host is asked before a tool runs.
    pub ask: bool,
    /// What the system prompt ends with; read, because the flag promises it, and of no effect.
    pub append: Option<PathBuf>,
}

/// Reads the command line, without the program's name.
///
/// # Errors
/// One sentence.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Asked, String> {
    use lexopt::prelude::{Long, Short};

    let mut flags = Flags::default();
    let (mut input, mut output, mut verbose) = (false, false, false);
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        let name = match &argument {
            Long(name) => format!("--{name}"),
            Short(letter) => format!("-{letter}"),
            lexopt::Arg::Value(word) if word == "auth" => return log_in(&mut parser),
            lexopt::Arg::Value(word) => {
                return Err(format!("prompts come on stdin, and {word:?} is one"));
            }
        };
        let mut value = || -> Result<String, String> {
            parser
                .value()
                .map_err(|error| error.to_string())?
                .into_string()
                .map_err(|_| format!("the value of {name} is not UTF-8"))
        };
        match name.as_str() {
            "--help" | "-h" => return Ok(Asked::Print(help())),
            "--version" | "-v" => return Ok(Asked::Print(VERSION.to_owned())),
            "--print" | "-p" => {}
            "--verbose" => verbose = true,
            "--include-partial-messages" => flags.partial = true,
            "--strict-mcp-config" => {}
            "--input-format" => input = only("stream-json", &name, &value()?)?,
            "--output-format" => output = only("stream-json", &name, &value()?)?,
            "--permission-prompt-tool" => flags.ask = only("stdio", &name, &value()?)?,
            "--setting-sources" => sources(&value()?)?,
            "--mcp-config" | "--disallowedTools" => drop(value()?),
            "--model" => flags.model = Some(value()?),
            "--resume" | "-r" => flags.resume = Some(session(&name, &value()?)?),
            "--session-id" => flags.session = Some(session(&name, &value()?)?),
            "--max-budget-usd" => flags.budget_micro_usd = Some(budget(&value()?)?),
            "--append-system-prompt-file" => flags.append = Some(value()?.into()),
            _ => return Err(format!("unknown option '{name}'")),
        }
    }
    if !input || !output {
        return Err("--input-format=stream-json and --output-format=stream-json are needed".into());
    }
    if !verbose {
        return Err("--output-format=stream-json requires --verbose".into());
    }
    if flags.resume.is_some() && flags.session.is_some() {
        return Err("--session-id cannot be used with --resume".into());
    }
    Ok(Asked::Run(flags))
}

/// What is behind `auth`.
fn log_in(parser: &mut lexopt::Parser) -> Result<Asked, String> {
    match parser.next().map_err(|error| error.to_string())? {
        Some(lexopt::Arg::Value(word)) if word == "login" => {}
        _ => return Err("auth knows login alone here".into()),
    }
    match parser.next().map_err(|error| error.to_string())? {
        None => Ok(Asked::LogIn),
        Some(_) => Err("auth login takes nothing more here".into()),
    }
}

fn only(known: &str, name: &str, value: &str) -> Result<bool, String> {
    if value == known {
        Ok(true)
    } else {
        Err(format!("{name} takes {known} alone here"))
    }
}

fn sources(value: &str) -> Result<(), String> {
    let known = |source: &str| ["", "user", "project", "local"].contains(&source);
    match value.split(',').find(|source| !known(source)) {
        Some(source) => Err(format!("Invalid setting source: {source}")),
        None => Ok(()),
    }
}

fn session(name: &str, value: &str) -> Result<SessionId, String> {
    value.parse().map_err(|_| format!("{name} needs a UUID"))
}

fn budget(value: &str) -> Result<u64, String> {
    match value.parse::<f64>() {
        Ok(dollars) if dollars > 0.0 && dollars.is_finite() => Ok((dollars * 1e6).round() as u64),
        _ => Err("--max-budget-usd needs a number above 0".into()),
    }
}

fn help() -> String {
    "\
An agent for demonstrations and tests: it runs prompts as shell commands.

Usage: kai-play-agent --input-format=stream-json --output-format=stream-json --verbose [OPTION]...
       kai-play-agent [OPTION]... auth login

Options:
  --include-partial-messages          also write messages in pieces
  --permission-prompt-tool=stdio      ask the host before a command runs
  --resume=UUID, --session-id=UUID    go on with a session, or name the new one
  --model=NAME                        taken, and only ever named
  --max-budget-usd=AMOUNT             where the made-up cost is cut off
  --setting-sources=, --strict-mcp-config, --mcp-config=JSON, --disallowedTools=RULES,
  --append-system-prompt-file=FILE    taken, without effect
  -h, --help                          print this
  -v, --version                       print the version

Prompts with a meaning of their own, beside shell commands:
  say TEXT          answers TEXT
  slow SECONDS TEXT answers TEXT word by word over that time
  markdown          answers with a sample of Markdown
  ask               asks the user a question
  whoami-session    names the session and how many prompts it remembers
  bench             answers at once
  crash, exit0      ends, with a signal or with status 0
  hang              says nothing more, whatever happens
  garbage           writes a line that is not JSON
  bigline N         writes a line of N megabytes
  flood             writes text until it is interrupted
  lie HOW           writes what an agent must not, floods, or plays dead: session, text,
                    response, request, late, nul, line, lines, stop, deaf, orphan"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDED: [&str; 3] = [
        "--input-format=stream-json",
        "--output-format=stream-json",
        "--verbose",
    ];

    fn parsed(more: &[&str]) -> Result<Asked, String> {
        parse(NEEDED.iter().chain(more).map(OsString::from))
    }

    #[test]
    fn what_a_worker_passes_is_taken() {
        let Ok(Asked::Run(flags)) = parsed(&[
            "--include-partial-messages",
            "--permission-prompt-tool=stdio",
            "--setting-sources=",
            "--strict-mcp-config",
            "--disallowedTools=Read(//proc/**)",
            "--resume=2c797a4c-d557-4c2e-a63c-9f6b29bafb1b",
            "--model=opus",
            "--max-budget-usd=1.500000",
        ]) else {
            panic!("is taken");
        };
        assert!(flags.partial && flags.ask && flags.resume.is_some());
        assert_eq!(flags.budget_micro_usd, Some(1_500_000));
    }

    #[test]
    fn a_login_comes_behind_the_options_and_alone() {
        let parsed = |words: &[&str]| parse(words.iter().map(OsString::from));
        let options = ["--setting-sources=", "--disallowedTools=Read(//proc/**)"];
        let login = parsed(&[&options[..], &["auth", "login"]].concat());
        assert!(matches!(login, Ok(Asked::LogIn)));
        for bad in [&["auth"][..], &["auth", "logout"], &["auth", "login", "x"]] {
            assert!(parsed(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_unknown_or_cannot_be_is_an_error() {
        for bad in [
            "--dangerously",
            "-x",
            "prompt",
            "--resume=--flag",
            "--session-id=1",
            "--max-budget-usd=-1",
            "--max-budget-usd=inf",
            "--setting-sources=everything",
            "--permission-prompt-tool=mcp",
            "--input-format=text",
            "--verbose=yes",
        ] {
            assert!(parsed(&[bad]).is_err(), "{bad}");
        }
        assert!(parse([OsString::from("--verbose")]).is_err());
    }
}
