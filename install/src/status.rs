//! `kai-install status`: what is installed, and where it differs from what `apply` would make.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use crate::{
    agent,
    apply::Place,
    checks::{Check, Finding, Verdict, kernel_checks},
    desired::desired,
    failure::Failure,
    items::{
        Standing, clear,
        secrets::CURRENT,
        token::Kept,
        units,
        versions::{self, PREVIOUS},
    },
    print,
    root::Root,
    settings::Settings,
    show,
    source::{Source, Version},
    status_of,
};

/// How everything that differs is mended.
const APPLY: &str = "sudo kai-install apply";

/// What `status` is told.
#[derive(Debug, Args)]
pub struct Status {
    /// As one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Which tree.
    #[command(flatten)]
    pub place: Place,
}

/// Carries `status` out.
///
/// # Errors
/// If the tree is not there, or the answer cannot be written.
pub fn run(asked: &Status) -> Result<ExitCode, Failure> {
    let root = Root::open(&asked.place.root)?;
    let checks = checks(&root, &asked.place);
    let verdict = Verdict::of(&checks);
    print(&if asked.json {
        show::as_json(&checks, verdict)
    } else {
        show::as_lines(&checks)
    })?;
    Ok(status_of(verdict))
}

fn checks(root: &Root, place: &Place) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut add = |name: &str, finding: Finding| {
        checks.push(Check {
            name: name.to_owned(),
            finding,
        });
    };
    let current = match versions::at(root, CURRENT.as_ref()) {
        Ok(Some(current)) => current,
        Ok(None) => {
            add("version", Finding::missing("kai is not installed", APPLY));
            return checks;
        }
        Err(problem) => {
            add("version", failed(&problem));
            return checks;
        }
    };
    add("version", version(root, &current));
    let package = Source::open(&place.source).ok();
    let newer = package
        .as_ref()
        .map(|package| &package.version.name)
        .filter(|name| **name != current.name);
    if let Some(name) = newer {
        add("package", Finding::note(format!("has {name}: {APPLY}")));
    }
    // What was gone back to is compared with its own copy.
    let source = match package.filter(|package| package.version == current) {
        Some(package) => Ok(package),
        None => Source::open(&root.shown(&versions::directory(&current.name))),
    };
    let settings = match place.settings(root) {
        Ok(settings) => settings,
        Err(problem) => {
            add("settings", failed(&problem));
            Settings::default()
        }
    };
    let kept = Kept::of(root, &settings);
    match clear::left(root, &settings, &place.settings_file(root), &kept) {
        Ok(Some(note)) => add("bot token", Finding::note(note)),
        Ok(None) => {}
        Err(problem) => add("bot token", failed(&problem)),
    }
    match source.and_then(|source| Ok((desired(root, &settings, &source)?, source))) {
        Err(problem) => add("installed", failed(&problem)),
        Ok((list, source)) => {
            let mut right = 0;
            for item in &list {
                match item.look(root) {
                    Ok(Standing::Right) => right += 1,
                    Ok(other) => {
                        let what = other.difference().unwrap_or_default();
                        add("drift", Finding::missing(format!("{item}: {what}"), APPLY));
                    }
                    Err(problem) => add("drift", failed(&problem)),
                }
            }
            add(
                "installed",
                Finding::ok(format!(
                    "{right} of {} things are as they should be",
                    list.len()
                )),
            );
            if root.is_host() {
                for (name, finding) in running(&source) {
                    add(&name, finding);
                }
            }
        }
    }
    add("agent", the_agent(root, &settings));
    for check in kernel_checks() {
        add(&check.name, check.finding);
    }
    checks
}

fn failed(problem: &Failure) -> Finding {
    if problem.needs_root() {
        Finding::needs_root(problem.to_string())
    } else {
        Finding {
            state: crate::checks::State::Missing,
            found: problem.to_string(),
            mend: None,
        }
    }
}

fn version(root: &Root, current: &Version) -> Finding {
    match versions::at(root, PREVIOUS.as_ref()) {
        Ok(Some(previous)) if previous.name != current.name => {
            Finding::ok(format!("{}, before it {}", current.name, previous.name))
        }
        _ => Finding::ok(current.name.clone()),
    }
}

fn running(source: &Source) -> Vec<(String, Finding)> {
    let units: Vec<_> = source
        .units
        .iter()
        .filter(|unit| unit.is_to_run())
        .cloned()
        .collect();
    match units::states(&units) {
        Err(problem) => vec![("units".to_owned(), failed(&problem))],
        Ok(states) => units
            .iter()
            .zip(states)
            .map(|(unit, state)| {
                let finding = if state.is_active() {
                    Finding::ok(state.shown())
                } else {
                    let why = format!("see why: journalctl -u {} -n 20", unit.name);
                    Finding::missing(state.shown(), why)
                };
                (unit.name.clone(), finding)
            })
            .collect(),
    }
}

fn the_agent(root: &Root, settings: &Settings) -> Finding {
    let program = match agent::program(root, settings) {
        Ok(program) => program,
        Err(problem) => return failed(&problem),
    };
    if program == Path::new(agent::COMMAND) && matches!(root.look(&program), Ok(None)) {
        return Finding::missing("is not installed", "sudo kai-install agent");
    }
    let mut finding = agent::finding(root, &program);
    if let Some(version) = agent::version(root)
        && program == Path::new(agent::COMMAND)
    {
        finding.found = format!("{version}, {}", finding.found);
    }
    finding
}
