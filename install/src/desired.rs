//! The list of all that there is once kai is installed, in the order in which it is brought about. What
//! changes, what would change, what has drifted and what is taken away is read from this list alone.

use std::path::{Path, PathBuf};

use kai_proto::ids::AccountName;

use crate::{
    accounts::{ADMINS, GATEWAY},
    agent,
    failure::Failure,
    items::{
        Goes, Item,
        accounts::{Closed, Fit, Group, Home, Member, Service},
        clear::NotInClear,
        configuration::{KaiYaml, UsersYaml},
        files::{Absent, Contents, Directory, File, Judge, Parent, directories},
        leftover::NoLeftover,
        lines::Line,
        secrets::Database,
        token::Kept,
        units::{self, Enabled, Running},
        versions::{self, Command, Current, Place, Pruned},
    },
    root::Root,
    settings::Settings,
    source::{self, Source, Unit},
    tools,
};

const SUDOERS: &str = "/etc/sudoers.d";
const TMPFILES: &str = "/etc/tmpfiles.d";
const SYSUSERS: &str = "/etc/sysusers.d";
const SSHD: &str = "/etc/ssh/sshd_config.d";
/// How kai's file there begins.
const DENIED: &str = "# Accounts that kai made for agents alone.";

/// All that there shall be.
pub type Desired = Vec<Box<dyn Item>>;

/// The list for these settings and the files in this source.
///
/// # Errors
/// If a file of the source is not understood.
pub fn desired(root: &Root, settings: &Settings, source: &Source) -> Result<Desired, Failure> {
    all(root, settings, source, &Kept::of(root, settings))
}

/// As [`desired`], with the token kept so.
///
/// # Errors
/// As [`desired`].
pub fn all(
    root: &Root,
    settings: &Settings,
    source: &Source,
    token: &Kept,
) -> Result<Desired, Failure> {
    let (mut list, to_run) = prepared(root, settings, source, token)?;
    for unit in &to_run {
        list.push(Box::new(Enabled(unit.clone())));
    }
    list.push(Box::new(Running {
        units: to_run,
        version: source.version.name.clone(),
    }));
    // Last: until the units run, what they were started with must be there to start them again.
    if let Some(path) = token.other() {
        list.push(Box::new(Absent(path.to_owned())));
    }
    if let Kept::Encrypted(keys) = token {
        list.push(Box::new(NotInClear {
            token: settings.token.clone(),
            keys: keys.clone(),
        }));
    }
    list.push(Box::new(Pruned(source.version.name.clone())));
    Ok(list)
}

/// The beginning of the list that starts nothing, now or when the host boots, and takes nothing away from what runs, and the units to run.
///
/// # Errors
/// As [`desired`].
pub fn prepared(
    root: &Root,
    settings: &Settings,
    source: &Source,
    token: &Kept,
) -> Result<(Desired, Vec<Unit>), Failure> {
    let mut list: Desired = Vec::new();
    for directory in parents() {
        list.push(Box::new(directory));
    }
    list.extend(accounts(root, settings)?);
    let lines = source.path().join("systemd/kai.tmpfiles");
    for directory in directories(&lines, &source.tmpfiles)? {
        list.push(Box::new(directory));
    }
    programs(&mut list, source);
    list.push(token.item(settings.token.clone()));
    list.push(Box::new(KaiYaml {
        settings: settings.clone(),
        agent: agent::COMMAND,
    }));
    list.push(Box::new(UsersYaml(settings.clone())));
    list.push(Box::new(Database {
        programs: versions::directory(&source.version.name),
    }));
    list.push(Box::new(Current(source.version.name.clone())));
    for name in ["kai-broker", "kai-auth", "kai-install"] {
        list.push(Box::new(Command(name)));
    }
    list.push(Box::new(NoLeftover::but(source)));
    let units: Vec<Unit> = source.units.iter().map(|unit| token.unit(unit)).collect();
    rules(&mut list, source, &units);
    let to_run: Vec<Unit> = units.into_iter().filter(Unit::is_to_run).collect();
    Ok((list, to_run))
}

/// The directories of the host's that something is put into, from the top.
fn parents() -> Vec<Parent> {
    let places = [
        units::PLACE,
        TMPFILES,
        SYSUSERS,
        SUDOERS,
        "/home",
        "/opt",
        "/run",
        versions::COMMANDS,
        "/var/lib",
        "/var/log",
    ];
    let mut parents: Vec<Parent> = Vec::new();
    for place in places {
        let way: Vec<&Path> = Path::new(place).ancestors().collect();
        // The last is the tree itself.
        for step in way.into_iter().rev().skip(1) {
            if parents.iter().all(|known| known.0 != step) {
                parents.push(Parent(step.to_owned()));
            }
        }
    }
    parents
}

/// The part of the list that is about accounts.
///
/// # Errors
/// If the tree cannot be looked at.
pub fn accounts(root: &Root, settings: &Settings) -> Result<Desired, Failure> {
    let mut list: Desired = Vec::new();
    list.push(Box::new(Group(ADMINS)));
    list.push(Box::new(Service(GATEWAY)));
    let closed: Vec<&AccountName> = settings
        .users
        .iter()
        .filter(|user| user.create)
        .map(|user| &user.os_user)
        .collect();
    for user in &settings.users {
        if user.create {
            list.push(Box::new(Closed {
                name: user.os_user.clone(),
                uid: user.uid,
            }));
            list.push(Box::new(Home(user.os_user.clone())));
        } else {
            list.push(Box::new(Fit(user.os_user.clone())));
        }
    }
    for account in &settings.admins {
        list.push(Box::new(Member {
            group: ADMINS,
            account: account.clone(),
        }));
    }
    for name in &closed {
        for line in denied(name) {
            list.push(Box::new(line));
        }
        let lingers = Path::new("/var/lib/systemd/linger").join(name.as_str());
        list.push(Box::new(Absent(lingers)));
    }
    let denied = Path::new(SSHD).join("kai.conf");
    if closed.is_empty() {
        let is_ours = |text: String| text.starts_with(DENIED);
        if root.read_text(&denied)?.is_some_and(is_ours) {
            list.push(Box::new(Absent(denied)));
        }
    } else if root.look(SSHD.as_ref())?.is_some() {
        let names: Vec<&str> = closed.iter().map(|name| name.as_str()).collect();
        let names = names.join(" ");
        list.push(Box::new(text(
            denied,
            &format!("{DENIED}\nDenyUsers {names}\n"),
            0o644,
        )));
    }
    Ok(list)
}

/// The lines that deny an account cron(8) and at(1). They ask whether it has expired, too.
#[must_use]
pub fn denied(name: &AccountName) -> [Line; 2] {
    let line = |path: &str, make| Line {
        path: path.into(),
        line: name.as_str().to_owned(),
        make,
    };
    // Without any file at(1) is root's alone, so none is made.
    [line("/etc/cron.deny", true), line("/etc/at.deny", false)]
}

fn programs(list: &mut Desired, source: &Source) {
    let place = versions::directory(&source.version.name);
    let directory = |path: PathBuf| Directory {
        path,
        user: "root".to_owned(),
        group: "root".to_owned(),
        mode: 0o755,
        goes: Goes::WithKai,
    };
    list.push(Box::new(Place(directory(versions::PLACE.into()))));
    for path in [
        place.clone(),
        place.join("systemd"),
        place.join("sudoers.d"),
    ] {
        list.push(Box::new(directory(path)));
    }
    let mut copy = |name: &str, mode: u32| {
        list.push(Box::new(File {
            path: place.join(name),
            contents: Contents::Copy(source.path().join(name)),
            mode,
            judge: Judge::Nobody,
            goes: Goes::WithKai,
        }));
    };
    copy(source::VERSION, 0o644);
    for program in &source.programs {
        copy(program, 0o755);
    }
    for unit in &source.units {
        copy(&format!("systemd/{}", unit.name), 0o644);
    }
    copy("systemd/kai.tmpfiles", 0o644);
    if source.sysusers.is_some() {
        copy("systemd/kai.sysusers", 0o644);
    }
    copy("sudoers.d/kai", 0o644);
}

fn rules(list: &mut Desired, source: &Source, units: &[Unit]) {
    for unit in units {
        let path = Path::new(units::PLACE).join(&unit.name);
        list.push(Box::new(text(path, &unit.text, 0o644)));
    }
    let path = Path::new(TMPFILES).join("kai.conf");
    list.push(Box::new(text(path, &source.tmpfiles, 0o644)));
    if let Some(lines) = &source.sysusers {
        list.push(Box::new(text(
            Path::new(SYSUSERS).join("kai.conf"),
            lines,
            0o644,
        )));
    }
    // Without sudo nobody could use it, and nobody could say whether it can be read.
    if tools::find("visudo").is_some() {
        list.push(Box::new(File {
            judge: Judge::Visudo,
            ..text(Path::new(SUDOERS).join("kai"), &source.sudoers, 0o440)
        }));
    }
}

fn text(path: PathBuf, text: &str, mode: u32) -> File {
    File {
        path,
        contents: Contents::Text(text.to_owned()),
        mode,
        judge: Judge::Nobody,
        goes: Goes::WithKai,
    }
}
