//! `kai-install apply` and `rollback`: looks at everything first, then changes what differs, one thing
//! after the other, and says each.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    process::ExitCode,
    thread,
    time::Duration,
};

use clap::Args;
use nix::fcntl::{Flock, FlockArg, OFlag};

use crate::{
    agent,
    desired::{Desired, desired, prepared},
    failure::Failure,
    items::{
        Item, Standing, clear,
        secrets::CURRENT,
        token::Kept,
        versions::{self, PREVIOUS},
    },
    judge, print,
    root::Root,
    say,
    settings::{self, Settings},
    source::{self, Source},
};

/// How often another kai-install is waited for, and how long each time.
const PATIENCE: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);
/// What a kai-install that changes the host holds.
const LOCK: &str = "/run/kai-install.lock";

/// What `apply` is told.
#[derive(Debug, Args)]
pub struct Apply {
    /// Say what would change, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Make all that is to be there, and start nothing: for what must be brought back before anybody is let in.
    #[arg(long)]
    pub no_start: bool,
    /// Which tree.
    #[command(flatten)]
    pub place: Place,
}

/// Which tree is meant, and what it is compared with.
#[derive(Debug, Args)]
pub struct Place {
    /// Everything is below this directory, and nothing is started.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// Where kai's programs, units and rules are.
    #[arg(long, value_name = "DIR", default_value = source::DEFAULT)]
    pub source: PathBuf,
    /// The settings, in place of etc/kai/install.yaml of the tree.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

impl Place {
    /// The settings.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn settings(&self, root: &Root) -> Result<Settings, Failure> {
        Settings::load(&self.settings_file(root))
    }

    /// Where the settings are.
    #[must_use]
    pub fn settings_file(&self, root: &Root) -> PathBuf {
        match &self.file {
            Some(file) => file.clone(),
            None => root.shown(settings::DEFAULT.as_ref()),
        }
    }
}

/// Nobody else's kai-install changes the tree while this is held.
///
/// # Errors
/// [`Failure::Busy`].
pub fn lock(root: &Root) -> Result<Flock<File>, Failure> {
    let mut opened = if root.is_host() {
        // A file that root alone can open: whoever can open something can lock it, too (flock(2)).
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(LOCK);
        file.map_err(|error| Failure::io(LOCK, error))?
    } else {
        // A directory that is there before and after: a file would have to be left behind.
        File::open(root.path()).map_err(|error| Failure::io(root.path(), error))?
    };
    for _ in 0..PATIENCE {
        match Flock::lock(opened, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((again, _)) => opened = again,
        }
        // One that was killed holds it until the last of its writes is done.
        thread::sleep(PAUSE);
    }
    Err(Failure::Busy)
}

/// Only root may go on.
///
/// # Errors
/// [`Failure::NotRoot`].
pub fn only_root() -> Result<(), Failure> {
    if crate::host::is_root() {
        Ok(())
    } else {
        Err(Failure::NotRoot)
    }
}

/// Carries `apply` out.
///
/// # Errors
/// The first thing that stands against it. Before the first change all is looked at; after it,
/// [`Failure::HalfWay`] says what was done.
pub fn run(asked: &Apply) -> Result<ExitCode, Failure> {
    only_root()?;
    let root = Root::open(&asked.place.root)?;
    let _lock = lock(&root)?;
    let settings = asked.place.settings(&root)?;
    let source = Source::open(&asked.place.source)?;
    judge::the_host(&root)?;
    let list = match asked.no_start {
        true => prepared(&root, &settings, &source, &Kept::of(&root, &settings))?.0,
        false => desired(&root, &settings, &source)?,
    };
    let standings = look(&root, &list)?;
    judge::the_space(&root, &list, &standings)?;
    let has_agent = agent::judge(&root, &settings)?;
    if !has_agent {
        agent::install::judge_the_space(&root)?;
    }
    announce_a_one_way_upgrade(&root, &source)?;
    if asked.dry_run {
        return dry_run(&list, &standings, has_agent);
    }
    if !has_agent {
        let version = agent::install::from_registry(&root, agent::install::TESTED)?;
        say(&format!("made     agent {version}"));
    }
    let before = Before::of(&root)?;
    let changes = match change_after(usize::from(!has_agent), &root, &list, &standings) {
        Ok(changes) => changes,
        Err(failure) => return Err(undo(&root, &settings, before, failure)),
    };
    note_a_token_in_clear(&root, &asked.place)?;
    let is_there = match asked.no_start {
        true => "is there, and was not started; that is for: kai-install apply",
        false => "is installed",
    };
    let version = &source.version.name;
    print(&match changes {
        0 => format!("nothing changed: {version} {is_there}"),
        1 => format!("1 change; {version} {is_there}"),
        n => format!("{n} changes; {version} {is_there}"),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Carries `rollback` out: applies the version before from its own copy.
///
/// # Errors
/// [`Failure::NoPrevious`], [`Failure::Schema`], and those of [`run`].
pub fn rollback(place: &Place) -> Result<ExitCode, Failure> {
    only_root()?;
    let root = Root::open(&place.root)?;
    let _lock = lock(&root)?;
    let settings = place.settings(&root)?;
    let to = versions::at(&root, PREVIOUS.as_ref())?.ok_or(Failure::NoPrevious)?;
    let before = Before::of(&root)?;
    if let Some(from) = &before.current {
        if from.name == to.name {
            return Err(Failure::NoPrevious);
        }
        if from.authd_schema > to.authd_schema {
            return Err(Failure::Schema {
                from: from.name.clone(),
                to: to.name,
            });
        }
    }
    let source = Source::open(&root.shown(&versions::directory(&to.name)))?;
    let list = desired(&root, &settings, &source)?;
    let standings = look(&root, &list)?;
    match change(&root, &list, &standings) {
        Ok(_) => print(&format!("went back to {}", to.name))?,
        Err(failure) => return Err(undo(&root, &settings, before, failure)),
    }
    Ok(ExitCode::SUCCESS)
}

/// How each thing stands, before anything is changed.
///
/// # Errors
/// The first that must be judged by the admin.
pub fn look(root: &Root, list: &Desired) -> Result<Vec<Standing>, Failure> {
    list.iter().map(|item| item.look(root)).collect()
}

fn announce_a_one_way_upgrade(root: &Root, source: &Source) -> Result<(), Failure> {
    match versions::at(root, CURRENT.as_ref())? {
        Some(current) if current.authd_schema < source.version.authd_schema => print(&format!(
            "note: there is no way back from {} to {}, whose kai-authd does not know the new tables; copy \
             /var/lib/kai/authd first if you may want one",
            source.version.name, current.name
        )),
        _ => Ok(()),
    }
}

fn note_a_token_in_clear(root: &Root, place: &Place) -> Result<(), Failure> {
    let settings = place.settings(root)?;
    let kept = Kept::of(root, &settings);
    match clear::left(root, &settings, &place.settings_file(root), &kept)? {
        Some(note) => print(&format!("note: {note}")),
        None => Ok(()),
    }
}

fn dry_run(list: &Desired, standings: &[Standing], has_agent: bool) -> Result<ExitCode, Failure> {
    let mut changes = 0;
    if !has_agent {
        changes += 1;
        print(&format!("would make    agent {}", agent::install::TESTED))?;
    }
    for (item, standing) in list.iter().zip(standings) {
        match standing {
            Standing::Right => continue,
            Standing::Missing => print(&format!("would make    {item}"))?,
            Standing::Differs(what) => print(&format!("would change  {item}: {what}"))?,
        }
        changes += 1;
    }
    print(&match changes {
        0 => "nothing would change".to_owned(),
        1 => "1 change would be made".to_owned(),
        n => format!("{n} changes would be made"),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Brings about what differs, says each, and returns how much that was.
///
/// # Errors
/// [`Failure::HalfWay`].
pub fn change(root: &Root, list: &Desired, standings: &[Standing]) -> Result<usize, Failure> {
    change_after(0, root, list, standings)
}

/// The same after changes that were `made`, which count.
fn change_after(
    made: usize,
    root: &Root,
    list: &Desired,
    standings: &[Standing],
) -> Result<usize, Failure> {
    let mut changes = made;
    for (item, before) in list.iter().zip(standings) {
        let done = change_one(root, item.as_ref(), before, changes > 0);
        match done {
            Ok(Standing::Right) => {}
            Ok(Standing::Missing) => {
                changes += 1;
                say(&format!("made     {item}"));
            }
            Ok(Standing::Differs(what)) => {
                changes += 1;
                say(&format!("changed  {item}: {what}"));
            }
            Err(problem) => {
                return Err(Failure::HalfWay {
                    problem: Box::new(problem),
                    done: match changes {
                        0 => "nothing was changed".to_owned(),
                        n => format!(
                            "{n} changes, listed above, were made; mend this, and run it again"
                        ),
                    },
                });
            }
        }
    }
    Ok(changes)
}

/// Brings one thing about, and returns how it stood before.
fn change_one(
    root: &Root,
    item: &dyn Item,
    before: &Standing,
    changed: bool,
) -> Result<Standing, Failure> {
    // What was right stays right, but for what depends on what has changed since.
    if *before == Standing::Right && !(changed && item.depends_on_others()) {
        return Ok(Standing::Right);
    }
    let before = item.look(root)?;
    if before == Standing::Right {
        return Ok(before);
    }
    item.bring_about(root)?;
    match item.look(root)?.difference() {
        None => Ok(before),
        Some(still) => Err(Failure::Stays {
            thing: item.to_string(),
            still: still.to_owned(),
        }),
    }
}

/// What ran, and what ran before that, when a run began.
struct Before {
    current: Option<source::Version>,
    previous: Option<PathBuf>,
}

impl Before {
    fn of(root: &Root) -> Result<Self, Failure> {
        Ok(Self {
            current: versions::at(root, CURRENT.as_ref())?,
            previous: root.link_at(PREVIOUS.as_ref())?,
        })
    }
}

/// After a failure: if another version ran before, it runs again, and the one before it is kept.
fn undo(root: &Root, settings: &Settings, before: Before, failure: Failure) -> Failure {
    let now = versions::at(root, CURRENT.as_ref());
    let (Some(old), Ok(Some(now))) = (before.current, now) else {
        return failure;
    };
    if old.name == now.name {
        return failure;
    }
    if old.authd_schema < now.authd_schema {
        return half_way(
            failure,
            &format!(
                "{} stays, because the kai-authd of {} may not know the tables that the database has by now",
                now.name, old.name
            ),
        );
    }
    let restore = || -> Result<(), Failure> {
        let source = Source::open(&root.shown(&versions::directory(&old.name)))?;
        // Both links as they were: what failed is no version to go back to, and not kept.
        root.link(CURRENT.as_ref(), old.name.as_ref())?;
        match &before.previous {
            Some(previous) => root.link(PREVIOUS.as_ref(), previous)?,
            None => root.remove(PREVIOUS.as_ref())?,
        }
        let list = desired(root, settings, &source)?;
        let standings = look(root, &list)?;
        change(root, &list, &standings).map(drop)
    };
    let word = match restore() {
        Ok(()) => format!("{} runs again", old.name),
        Err(problem) => format!("{} does not run again either: {problem}", old.name),
    };
    half_way(failure, &word)
}

/// The failure, and what was done about it.
fn half_way(failure: Failure, word: &str) -> Failure {
    match failure {
        Failure::HalfWay { problem, done } => Failure::HalfWay {
            problem,
            done: format!("{done}; {word}"),
        },
        other => Failure::HalfWay {
            problem: Box::new(other),
            done: word.to_owned(),
        },
    }
}
