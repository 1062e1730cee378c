//! `kai-install migrate`: from the Python kai to this one, on the same host. What has a place here is brought
//! there, what has none is named and kept, and nothing is deleted.
//!
//! All is read first, and what shall be is written down beside what is kept; until then nothing of the old one
//! has changed. Then the old one is stopped and moved aside, by renames; then the new files get their places;
//! then each user gets what is theirs. A run that ends anywhere in this is gone on with by the next, and one
//! before `apply` by one after it, when the accounts are there.
//!
//! - [`places`]: where it is looked for;
//! - [`plan`]: what is there, and what becomes of it; of it [`env`], [`taken`], [`users`], [`services`], [`workspaces`];
//! - [`foreign`]: how directories are read that others wrote;
//! - [`old_service`]: stopping, and moving aside;
//! - [`progress`]: how far it has come;
//! - [`gifts`]: what goes into homes: [`memory`], [`history`], [`jobs`];
//! - [`child`]: the process that writes there as the user, and the one that reads the database under a spare uid;
//! - [`rows`]: what is said of each thing.

pub mod child;
pub mod env;
pub mod foreign;
pub mod gifts;
pub mod history;
pub mod jobs;
pub mod memory;
pub mod old_service;
pub mod places;
pub mod plan;
pub mod progress;
pub mod rows;
pub mod services;
pub mod taken;
pub mod users;
pub mod workspaces;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;

use crate::{
    apply::{lock, only_root},
    failure::Failure,
    items::secrets::{CONFIG, CURRENT, SECRET, USERS},
    print,
    root::{Access, Root},
    settings,
};
use foreign::Foreign;
use gifts::{Gift, Someone};
use plan::Plan;
use progress::{KEPT, Progress};
use rows::{Fate, Row};

/// The files for the new kai: where they are written down first, where they go, and with which mode.
const NEW: [(&str, &str, u32); 3] = [
    ("/etc/kai-before/new-kai.yaml", CONFIG, 0o644),
    ("/etc/kai-before/new-users.yaml", USERS, SECRET),
    (
        "/etc/kai-before/new-install.yaml",
        settings::DEFAULT,
        SECRET,
    ),
];

/// What `migrate` is told.
#[derive(Debug, Args)]
pub struct Migrate {
    /// A directory with the .env and the tables of the Python kai, in place of /opt/kai. Once for each.
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    pub from: Vec<PathBuf>,
    /// Its environment, in place of /etc/kai/env and .env.
    #[arg(long, value_name = "FILE", value_parser = absolute)]
    pub env: Option<PathBuf>,
    /// Its data, in place of /var/lib/kai.
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    pub data: Option<PathBuf>,
    /// Its unit.
    #[arg(long, value_name = "UNIT", value_parser = unit, default_value = "kai.service")]
    pub unit: String,
    /// Say what would become of each thing, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// As one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Everything is below this directory, and nothing is stopped.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let climbs = path
        .components()
        .any(|part| part == std::path::Component::ParentDir);
    if path.is_absolute() && path.parent().is_some() && !climbs {
        Ok(path)
    } else {
        Err("must be an absolute path".to_owned())
    }
}

fn unit(text: &str) -> Result<String, String> {
    let is_name = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"@._-".contains(&b));
    if !is_name || !text.ends_with(".service") || text.starts_with(['-', '.']) {
        return Err("must be a unit's name, as kai.service is".to_owned());
    }
    if text.starts_with("kai-") {
        return Err("is a name of this kai's own units".to_owned());
    }
    Ok(text.to_owned())
}

/// Carries `migrate` out.
///
/// # Errors
/// The first thing that stands against it. Before anything is changed all is read; after that, the next run
/// goes on.
pub fn run(asked: &Migrate) -> Result<ExitCode, Failure> {
    only_root()?;
    let root = Root::open(&asked.root)?;
    let _lock = lock(&root)?;
    let mut rows = Vec::new();
    let done = carry_out(&root, asked, &mut rows);
    // What was done before something failed is told too.
    rows::show(&rows, asked.json)?;
    done?;
    if !asked.json {
        print(last_word(asked, &rows))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn carry_out(root: &Root, asked: &Migrate, rows: &mut Vec<Row>) -> Result<(), Failure> {
    let mut progress = match Progress::load(root)? {
        Some(progress) => progress,
        None => {
            // Directories that are another kai's may be anybody's: then it is not this one that is installed.
            if let Ok(Some(_)) = root.link_at(CURRENT.as_ref()) {
                return Err(Failure::Migrate(
                    "this kai is installed here already, and migrate comes before apply; bring users over with: \
                     kai-install user add"
                        .to_owned(),
                ));
            }
            let plan = plan::plan(root, asked, rows)?;
            for one in &plan.progress.moves {
                let to = format!("is kept as {}, root's alone", one.to.display());
                rows.push(Row::done("moved aside", &one.from, to));
            }
            if asked.dry_run {
                let users = gifts::of(&plan.settings);
                return look_ahead(root, &plan.progress, &users, rows);
            }
            begin(root, plan, rows)?
        }
    };
    if asked.dry_run {
        let users = gifts::users(root)?;
        return look_ahead(root, &progress, &users, rows);
    }
    go_on(root, &mut progress, rows)
}

/// What is said when all is done.
fn last_word(asked: &Migrate, rows: &[Row]) -> &'static str {
    let any = |fate: Fate| rows.iter().any(|row| row.fate() == fate);
    if asked.dry_run {
        "nothing was changed"
    } else if any(Fate::Waits) {
        "next: sudo kai-install apply, and then sudo kai-install migrate again, for what waits"
    } else if rows.is_empty() {
        "nothing to do: all that has a place here is there"
    } else {
        "done; what is kept is in /etc/kai-before, /opt/kai-before and /var/lib/kai-before"
    }
}

/// Writes down what shall be. With the last file of it, it is decided.
fn begin(root: &Root, plan: Plan, rows: &[Row]) -> Result<Progress, Failure> {
    root.make_directory(KEPT.as_ref(), Access::root(0o700))?;
    let install_yaml = plan.settings.render();
    let texts = [
        plan.kai_yaml.as_deref(),
        Some(plan.users_yaml.as_str()),
        Some(install_yaml.as_str()),
    ];
    for ((place, _, _), text) in NEW.iter().zip(texts) {
        match text {
            Some(text) => root.write(place.as_ref(), &mut text.as_bytes(), Access::root(SECRET))?,
            None => root.remove(place.as_ref())?,
        }
    }
    let mut progress = plan.progress.moved();
    progress.note(rows);
    progress.save(root)?;
    Ok(progress)
}

/// Does what is left to do.
fn go_on(root: &Root, progress: &mut Progress, rows: &mut Vec<Row>) -> Result<(), Failure> {
    if !progress.is_moved && matches!(root.link_at(CURRENT.as_ref()), Ok(Some(_))) {
        old_service::nothing_left(root, &progress.moves)?;
    }
    if !progress.is_stopped {
        old_service::stop(root, &progress.unit, rows)?;
        progress.is_stopped = true;
        progress.save(root)?;
    }
    if !progress.is_moved {
        old_service::move_aside(root, &progress.moves)?;
        progress.is_moved = true;
        progress.save(root)?;
    }
    if !progress.is_put {
        put(root, rows)?;
        progress.is_put = true;
        progress.save(root)?;
    }
    let mut new = Vec::new();
    let users = gifts::users(root)?;
    let data = open(root, progress.data.as_deref())?;
    let mut gifts = gifts(root, progress, data.as_ref(), &users, &mut new);
    gifts.extend(jobs::gifts(root, progress, &users, &mut new)?);
    let done = gifts::bring(root, &users, gifts, progress, &mut new);
    // What is kept was said once.
    new.retain(|row| row.fate() != Fate::Kept || !progress.has_said(row));
    progress.note(&new);
    rows.append(&mut new);
    done?;
    progress.save(root)
}

/// Says what would be brought, without a change.
fn look_ahead(
    root: &Root,
    progress: &Progress,
    users: &[Someone],
    rows: &mut Vec<Row>,
) -> Result<(), Failure> {
    let mut new = Vec::new();
    let data = open(root, progress.data.as_deref())?;
    let gifts = gifts(root, progress, data.as_ref(), users, &mut new);
    let left: Vec<Gift<'_>> = gifts
        .into_iter()
        .filter(|gift| !progress.brought.contains(&gift.key))
        .collect();
    gifts::would_bring(root, users, &left, &mut new)?;
    if let Some((directory, name)) = &progress.database
        && !progress.is_moved
    {
        let place = directory.join(name);
        rows.push(Row::waits(
            "jobs",
            &place,
            "are read once the old kai is stopped",
        ));
    }
    new.retain(|row| row.fate() != Fate::Kept || !progress.has_said(row));
    rows.append(&mut new);
    Ok(())
}

fn open(root: &Root, path: Option<&Path>) -> Result<Option<Foreign>, Failure> {
    match path {
        Some(path) => Foreign::open(root, path),
        None => Ok(None),
    }
}

fn gifts<'a>(
    root: &Root,
    progress: &Progress,
    data: Option<&'a Foreign>,
    users: &[Someone],
    rows: &mut Vec<Row>,
) -> Vec<Gift<'a>> {
    let mut gifts: Vec<Gift<'a>> = memory::gifts(root, progress, users, rows);
    if let Some(data) = data {
        gifts.extend(history::gifts(
            data,
            &progress.kept(&data.path),
            users,
            rows,
        ));
    }
    gifts
}

/// Puts the files for the new kai into their places; the one that apply asks for last.
fn put(root: &Root, rows: &mut Vec<Row>) -> Result<(), Failure> {
    if let Some(directory) = Path::new(CONFIG).parent()
        && root.look(directory)?.is_none()
    {
        root.make_directory(directory, Access::root(0o755))?;
    }
    for (from, to, mode) in NEW {
        let (from, to) = (Path::new(from), Path::new(to));
        let Some(mut new) = root.read(from)? else {
            continue;
        };
        if root.look(to)?.is_some() {
            // By a run that was killed, unless somebody was quicker.
            let same = |path: &Path| {
                root.read_text(path)
                    .map(|text| text.map(zeroize::Zeroizing::new))
            };
            if same(to)? != same(from)? {
                let why = format!(
                    "is there already, and stays; what was brought over is in {}",
                    from.display()
                );
                rows.push(Row::look("file", to, why));
            }
            continue;
        }
        root.write(to, &mut new, Access::root(mode))?;
    }
    Ok(())
}
