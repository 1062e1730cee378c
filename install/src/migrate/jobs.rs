//! `kai.db`: its jobs have no place here yet; each user gets theirs as a file to look them up in. The rest is
//! counted, and kept.

use std::{collections::BTreeMap, path::Path};

use kai_program::spare_uids::spare_uids;

use super::{
    child::{database, write::Parcel},
    foreign::Foreign,
    gifts::{Gift, PLACE, Someone},
    memory::find,
    progress::Progress,
    rows::Row,
};
use crate::{
    failure::Failure,
    root::{Access, Root},
};

/// Longest database, in bytes.
const LONGEST: u64 = 64 * 1024 * 1024;
/// Where it is copied to, for the time that it is read.
const COPY: &str = "/etc/kai-before/.database";

/// What of the database goes to whom. It is copied to where root alone comes, and read there under a
/// uid that nobody has: processes that share an account may trace each other.
///
/// # Errors
/// If the copy cannot be removed again.
pub fn gifts(
    root: &Root,
    progress: &Progress,
    users: &[Someone],
    rows: &mut Vec<Row>,
) -> Result<Vec<Gift<'static>>, Failure> {
    let Some((directory, name)) = &progress.database else {
        return Ok(Vec::new());
    };
    let directory = match Foreign::open(root, directory) {
        Ok(Some(directory)) => directory,
        Ok(None) => return Ok(Vec::new()),
        Err(problem) => {
            rows.push(Row::look("jobs", directory, problem.to_string()));
            return Ok(Vec::new());
        }
    };
    let from = directory.path.join(name);
    let Some(uid) = spare_uids().next() else {
        let why = "the database is not read: it is read under a uid that nobody has, and all from 59000 to 59999 \
                   are taken; free one, and run this again";
        rows.push(Row::look("jobs", &from, why));
        return Ok(Vec::new());
    };
    // A full disk is no reason to bring nothing else.
    let copied =
        copy(root, &directory, name, uid).unwrap_or_else(|problem| Err(problem.to_string()));
    let read = match copied {
        Ok(true) => match root.somebody_s(COPY.as_ref())? {
            Some((copy, _)) => database::read(&copy, uid),
            None => return Ok(Vec::new()),
        },
        Ok(false) => return Ok(Vec::new()),
        Err(why) => Err(why),
    };
    root.remove_all(COPY.as_ref())?;
    let contents = match read {
        Ok(contents) => contents,
        Err(why) => {
            rows.push(Row::look(
                "jobs",
                &from,
                format!("the database is not read: {why}"),
            ));
            return Ok(Vec::new());
        }
    };
    if let Some(problem) = contents.problem {
        let why = format!("the database is not read to its end: {problem}");
        rows.push(Row::look("jobs", &from, why));
    }
    if contents.unreadable > 0 {
        let why = "are not read, for they are too long, too many, or of no chat";
        rows.push(Row::look(
            format!("{} jobs", contents.unreadable),
            &from,
            why,
        ));
    }
    for (table, count) in &contents.counted {
        if progress.brought.is_empty() && *count > 0 {
            rows.push(Row::kept(format!("{count} {table}"), &from, "", &from));
        }
    }
    let mut chats: BTreeMap<i64, (Vec<u8>, usize)> = BTreeMap::new();
    for job in contents.jobs {
        let (lines, count) = chats.entry(job.chat).or_default();
        let line = serde_json::to_vec(&job.columns).unwrap_or_default();
        lines.extend_from_slice(&line);
        lines.push(b'\n');
        *count += 1;
    }
    let mut gifts = Vec::new();
    for (chat, (lines, count)) in chats {
        let Some(user) = find(users, chat) else {
            let why = if chat < 0 {
                "a group's"
            } else {
                "of nobody who is a user here"
            };
            rows.push(Row::kept(
                format!("{count} jobs of chat {chat}"),
                &from,
                why,
                &from,
            ));
            continue;
        };
        let to = format!("{PLACE}/jobs.jsonl");
        let parcel = Parcel::new(&to, None, &lines);
        gifts.push(Gift {
            key: format!("jobs/{chat}"),
            what: format!(
                "{count} jobs of {}, which run no more, as a text",
                user.name
            ),
            from: from.clone(),
            owner: user.id,
            to,
            otherwise: None,
            feed: Box::new(move |send| send(&parcel, &lines).map(|()| Vec::new())),
        });
    }
    Ok(gifts)
}

/// Copies the database, and what was not brought into it yet, for this uid; false if there is none.
fn copy(
    root: &Root,
    directory: &Foreign,
    name: &Path,
    uid: u32,
) -> Result<Result<bool, String>, Failure> {
    root.remove_all(COPY.as_ref())?;
    root.make_directory(COPY.as_ref(), Access::root(0o700))?;
    let access = Access {
        uid,
        gid: uid,
        mode: 0o600,
    };
    for behind in ["", "-wal", "-journal"] {
        let name = format!("{}{behind}", name.display());
        match directory.file(name.as_ref(), LONGEST) {
            Ok(None) if behind.is_empty() => return Ok(Ok(false)),
            Ok(None) => {}
            Ok(Some((file, _))) => {
                let to = Path::new(COPY).join(format!("kai.db{behind}"));
                let mut file = std::io::Read::take(file, LONGEST);
                root.write(&to, &mut file, access)?;
            }
            Err(refused) => return Ok(Err(format!("{name} {refused}"))),
        }
    }
    let access = Access {
        mode: 0o700,
        ..access
    };
    root.give(COPY.as_ref(), access)?;
    Ok(Ok(true))
}
