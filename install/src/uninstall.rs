//! `kai-install uninstall`: takes away what `apply` made, the last first.

use std::process::ExitCode;

use clap::Args;

use crate::{
    apply::{Place, lock, only_root},
    desired::desired,
    failure::Failure,
    items::{Goes, secrets::CURRENT, versions},
    print,
    root::Root,
    say,
    settings::Settings,
    source::Source,
    tools,
};

/// What `uninstall` is told.
#[derive(Debug, Args)]
pub struct Uninstall {
    /// Configuration, secrets, audit logs and all that kai keeps of its users go too; homes stay.
    #[arg(long)]
    pub purge: bool,
    /// Which tree.
    #[command(flatten)]
    pub place: Place,
}

/// Carries `uninstall` out.
///
/// # Errors
/// The first thing that cannot be taken away; it can be run again.
pub fn run(asked: &Uninstall) -> Result<ExitCode, Failure> {
    only_root()?;
    let root = Root::open(&asked.place.root)?;
    let _lock = lock(&root)?;
    let settings = match root.look(crate::settings::DEFAULT.as_ref())? {
        None if asked.place.file.is_none() => Settings::default(),
        _ => asked.place.settings(&root)?,
    };
    let source = match versions::at(&root, CURRENT.as_ref())? {
        // What went with the copy that runs, its package may still have.
        Some(current) => Source::open(&root.shown(&versions::directory(&current.name)))
            .or_else(|_| Source::open(&asked.place.source))?,
        None => Source::open(&asked.place.source)?,
    };
    let mut removed = 0;
    let mut kept = None;
    let list = desired(&root, &settings, &source)?;
    let (last, first): (Vec<_>, Vec<_>) = list.iter().rev().partition(|item| item.goes_last());
    for item in first.into_iter().chain(last) {
        // With what is kept stays what takes it away another time, and whose it is.
        if item.goes_last() && kept.is_some() {
            break;
        }
        let goes = match item.goes() {
            Goes::WithKai => true,
            Goes::WithData => asked.purge,
            Goes::Never => false,
        };
        if !goes {
            continue;
        }
        match item.take_away(&root) {
            Ok(false) => {}
            Ok(true) => {
                say(&format!("removed  {item}"));
                removed += 1;
            }
            // Whoever has files in it may have made more of them meanwhile; the rest goes all the same.
            Err(problem) if item.goes() == Goes::WithData => {
                say(&format!("kept     {item}: {problem}"));
                kept.get_or_insert(problem);
            }
            Err(problem) => return Err(problem),
        }
    }
    if root.is_host() && removed > 0 {
        tools::run("systemctl", &["daemon-reload"], None)?;
    }
    for user in settings.users.iter().filter(|user| user.create) {
        print(&format!(
            "left     account {0}, closed to people, and its home; to remove both: userdel --remove {0}",
            user.os_user
        ))?;
    }
    if root.look(versions::PLACE.as_ref())?.is_some() {
        print(&format!(
            "left     {}: what is in it is not kai's",
            versions::PLACE
        ))?;
    }
    if !asked.purge {
        print(
            "left     configuration, secrets, logs and users' data; to remove them: kai-install uninstall --purge",
        )?;
    }
    if let Some(problem) = kept {
        return Err(Failure::HalfWay {
            problem: Box::new(problem),
            done: format!(
                "{removed} things were removed; mend this, and again: kai-install uninstall --purge"
            ),
        });
    }
    print(&match removed {
        0 => "nothing was there to remove".to_owned(),
        1 => "1 thing was removed".to_owned(),
        n => format!("{n} things were removed"),
    })?;
    Ok(ExitCode::SUCCESS)
}
