//! Units of systemd's: enabled, and running as they now are. In a tree that is prepared nothing runs.

use std::{
    collections::HashMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{Goes, Item, Standing, secrets::CONFIG, versions};
use crate::{failure::Failure, root::Root, source::Unit, tools};

/// Where units of the admin's host are.
pub const PLACE: &str = "/etc/systemd/system";
/// How long all may take to be ready.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long a unit must stay that cannot say when it is ready.
const SETTLES: Duration = Duration::from_millis(700);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// A unit that is started with the host.
pub struct Enabled(pub Unit);

impl fmt::Display for Enabled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unit {}, enabled", self.0.name)
    }
}

impl Item for Enabled {
    fn look(&self, root: &Root) -> Result<Standing, Failure> {
        for link in self.0.wanted_by() {
            if root.look(&Path::new(PLACE).join(link))?.is_none() {
                return Ok(Standing::Differs("is not enabled".to_owned()));
            }
        }
        Ok(Standing::Right)
    }

    fn bring_about(&self, root: &Root) -> Result<(), Failure> {
        let tree = format!("--root={}", root.path().display());
        let mut words = vec!["enable", "--no-reload", self.0.name.as_str()];
        if !root.is_host() {
            words.insert(0, &tree);
        }
        tools::run("systemctl", &words, None).map(drop)
    }

    fn take_away(&self, root: &Root) -> Result<bool, Failure> {
        let mut there = false;
        for link in self.0.wanted_by() {
            let link = Path::new(PLACE).join(link);
            there |= root.look(&link)?.is_some();
            root.remove(&link)?;
            // That of a target of kai's is nobody else's.
            if let Some(wants) = link
                .parent()
                .filter(|path| path.ends_with("kai.target.wants"))
            {
                root.remove_if_empty(wants)?;
            }
        }
        Ok(there)
    }

    fn goes(&self) -> Goes {
        Goes::WithKai
    }
}

/// All units, running with the files as they are.
pub struct Running {
    /// Which.
    pub units: Vec<Unit>,
    /// The version whose programs they run.
    pub version: String,
}

/// How systemd has a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    values: HashMap<String, String>,
}

impl State {
    fn get(&self, key: &str) -> &str {
        self.values.get(key).map_or("", String::as_str)
    }

    /// As people read it: `active (running)`.
    #[must_use]
    pub fn shown(&self) -> String {
        format!("{} ({})", self.get("ActiveState"), self.get("SubState"))
    }

    /// True if it does what it is for.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.get("ActiveState") == "active"
    }

    fn started(&self) -> u64 {
        let text = self.get("ExecMainStartTimestamp");
        text.trim_start_matches('@').parse().unwrap_or(0)
    }
}

/// What systemd says of these units.
///
/// # Errors
/// If systemctl(1) fails.
pub fn states(units: &[Unit]) -> Result<Vec<State>, Failure> {
    let mut words = vec![
        "show",
        "--timestamp=unix",
        "--property=Id,ActiveState,SubState,NeedDaemonReload,MainPID,ExecMainStartTimestamp,NRestarts,Type",
    ];
    words.extend(units.iter().map(|unit| unit.name.as_str()));
    let said = tools::run("systemctl", &words, None)?;
    let states: Vec<State> = said
        .split("\n\n")
        .map(|block| State {
            values: block
                .lines()
                .filter_map(|line| line.split_once('='))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        })
        .collect();
    if states.len() != units.len() {
        return Err(Failure::Tool {
            program: "systemctl show".to_owned(),
            said: "does not say something of every unit".to_owned(),
        });
    }
    Ok(states)
}

/// The names of these units, each before those that it comes after when all are started: systemctl(1) makes one
/// job after the other, and a job waits only for those that were there before it.
fn dependants_first(mut units: Vec<&Unit>) -> Vec<&str> {
    let mut names = Vec::with_capacity(units.len());
    while !units.is_empty() {
        let is_last = |unit: &&Unit| {
            let name = unit.name.as_str();
            let mut others = units.iter().filter(|other| other.name != name);
            !others.any(|other| other.words("After").contains(&name))
        };
        // Units that come after each other have no order, and the first is as good as any.
        let place = units.iter().position(is_last).unwrap_or(0);
        names.push(units.remove(place).name.as_str());
    }
    names
}

impl Running {
    /// Why `unit` does not run as its files now are.
    fn stale(
        &self,
        root: &Root,
        unit: &Unit,
        state: &State,
    ) -> Result<Option<&'static str>, Failure> {
        if state.get("NeedDaemonReload") == "yes" {
            return Ok(Some("was changed"));
        }
        if !unit.is_service() {
            return Ok(None);
        }
        let process = state.get("MainPID");
        let at = PathBuf::from(format!("/proc/{process}/exe"));
        let program = match fs::read_link(&at) {
            Ok(program) => program,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(Failure::io(at, error));
            }
            // It has just ended, or has no process.
            Err(_) => PathBuf::new(),
        };
        if process != "0"
            && !program.starts_with(versions::directory(&self.version))
            && unit.text.contains("=/opt/kai/current/")
        {
            return Ok(Some("runs another version"));
        }
        // A program that was replaced under its name is shown as deleted.
        if program.to_string_lossy().ends_with(" (deleted)") {
            return Ok(Some("runs a program that was replaced"));
        }
        let mut files = vec![Path::new(PLACE).join(&unit.name), PathBuf::from(CONFIG)];
        for key in ["LoadCredential", "LoadCredentialEncrypted"] {
            let secrets = unit.words(key).into_iter();
            files.extend(secrets.filter_map(|word| Some(PathBuf::from(word.split_once(':')?.1))));
        }
        for file in files {
            if let Some(found) = root.look(&file)?
                && found.changed / 1_000_000 > state.started()
            {
                return Ok(Some("started before its files were changed"));
            }
        }
        Ok(None)
    }

    fn wait(&self) -> Result<(), Failure> {
        let began = Instant::now();
        let mut active_since: Option<Instant> = None;
        let mut restarts = None;
        loop {
            let states = states(&self.units)?;
            let counted: Vec<String> = states
                .iter()
                .map(|state| state.get("NRestarts").to_owned())
                .collect();
            let fell = restarts.get_or_insert_with(|| counted.clone()) != &counted;
            let failed = self.units.iter().zip(&states).find(|(_, state)| {
                state.get("ActiveState") == "failed"
                    || state.get("SubState") == "auto-restart" && fell
                    || state.get("ActiveState") == "inactive" && began.elapsed() > SETTLES
            });
            let late = || {
                let waits = self.units.iter().zip(&states);
                waits.into_iter().find(|(_, state)| !state.is_active())
            };
            let failed = match failed {
                None if began.elapsed() > PATIENCE => late(),
                other => other,
            };
            if let Some((unit, state)) = failed {
                return Err(Failure::Unit {
                    unit: unit.name.clone(),
                    state: state.shown(),
                    after: String::new(),
                });
            }
            if states.iter().all(State::is_active) && !fell {
                let since = *active_since.get_or_insert_with(Instant::now);
                let says_so = |(unit, state): (&Unit, &State)| {
                    !unit.is_service() || state.get("Type").starts_with("notify")
                };
                if self.units.iter().zip(&states).all(says_so) || since.elapsed() >= SETTLES {
                    return Ok(());
                }
            } else {
                active_since = None;
            }
            thread::sleep(PAUSE);
        }
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("units, running")
    }
}

impl Item for Running {
    fn look(&self, root: &Root) -> Result<Standing, Failure> {
        if !root.is_host() {
            return Ok(Standing::Right);
        }
        if !Path::new("/run/systemd/system").exists() {
            return Err(Failure::NoSystemd);
        }
        let mut differs = Vec::new();
        for (unit, state) in self.units.iter().zip(states(&self.units)?) {
            if !state.is_active() {
                differs.push(format!("{} is {}", unit.name, state.shown()));
            } else if let Some(why) = self.stale(root, unit, &state)? {
                differs.push(format!("{} {why}", unit.name));
            }
        }
        Ok(Standing::of(differs))
    }

    fn bring_about(&self, root: &Root) -> Result<(), Failure> {
        let mut stale = Vec::new();
        let (mut new_sockets, mut serves) = (false, false);
        for (unit, state) in self.units.iter().zip(states(&self.units)?) {
            let is_stale = state.is_active() && self.stale(root, unit, &state)?.is_some();
            new_sockets |= unit.is_socket() && (is_stale || !state.is_active());
            serves |= unit.is_service() && state.is_active();
            if is_stale && unit.is_service() {
                stale.push(unit);
            }
        }
        let all = dependants_first(self.units.iter().collect());
        let stale = dependants_first(stale);
        let run = |verb: &str, units: &[&str]| {
            let words: Vec<&str> = std::iter::once(verb).chain(units.iter().copied()).collect();
            tools::run("systemctl", &words, None).map(drop)
        };
        run("daemon-reload", &[])?;
        // One that failed too often is not started again for a while.
        let _ = run("reset-failed", &all);
        // Why something does not start is asked of its state.
        if new_sockets && serves {
            // A socket cannot be made while its service runs.
            run("stop", &all)?;
        } else if !stale.is_empty() {
            let _ = run("restart", &stale);
        }
        // Each is a job of its own to systemctl(1), and a socket whose service is there first is refused.
        let (sockets, others): (Vec<&Unit>, Vec<&Unit>) =
            self.units.iter().partition(|unit| unit.is_socket());
        for units in [sockets, others] {
            let names: Vec<&str> = units.iter().map(|unit| unit.name.as_str()).collect();
            if !names.is_empty() {
                let _ = run("start", &names);
            }
        }
        self.wait()
    }

    fn take_away(&self, root: &Root) -> Result<bool, Failure> {
        if !root.is_host() || !Path::new("/run/systemd/system").exists() {
            return Ok(false);
        }
        let states = states(&self.units)?;
        let running = self
            .units
            .iter()
            .zip(&states)
            .filter(|(_, state)| !matches!(state.get("ActiveState"), "inactive" | "failed"))
            .map(|(unit, _)| unit)
            .collect();
        let running = dependants_first(running);
        if running.is_empty() {
            return Ok(false);
        }
        let words: Vec<&str> = std::iter::once("stop").chain(running).collect();
        tools::run("systemctl", &words, None)?;
        Ok(true)
    }

    fn depends_on_others(&self) -> bool {
        true
    }

    fn goes(&self) -> Goes {
        Goes::WithKai
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(name: &str, after: &str) -> Unit {
        Unit {
            name: name.to_owned(),
            text: format!("[Unit]\nAfter={after}\n"),
        }
    }

    #[test]
    fn what_needs_the_others_is_stopped_first() {
        let units = [
            unit("a.service", ""),
            unit("a.socket", ""),
            unit("b.service", "x.target a.service a.socket"),
            unit("c.service", "a.service b.service"),
        ];
        assert_eq!(
            dependants_first(units.iter().collect()),
            ["c.service", "b.service", "a.service", "a.socket"]
        );

        let circle = [
            unit("a.service", "b.service"),
            unit("b.service", "a.service"),
        ];
        assert_eq!(dependants_first(circle.iter().collect()).len(), 2);
    }
}
