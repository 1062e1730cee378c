//! MEMORY.md, which one agent kept for all. A single user's becomes what their agent is told; where there
//! were several, what one had it write down is not another's to read, so it goes to admins alone. Then, and
//! where others wrote in a group, it is a file to look through: whoever wrote into it could otherwise instruct
//! the agent of somebody else.

use kai_proto::ids::TelegramId;

use super::{
    child::write::Parcel,
    foreign::Foreign,
    gifts::{Gift, PLACE, Someone},
    progress::Progress,
    rows::Row,
};
use crate::root::Root;

/// Longest memory, in bytes.
const LONGEST: u64 = 1024 * 1024;
/// Longest one that an agent is told.
const TOLD: usize = 100 * 1024;

/// What of the memory goes to whom.
pub fn gifts(
    root: &Root,
    progress: &Progress,
    users: &[Someone],
    rows: &mut Vec<Row>,
) -> Vec<Gift<'static>> {
    let Some((directory, name)) = &progress.memory else {
        return Vec::new();
    };
    let directory = match Foreign::open(root, directory) {
        Ok(Some(directory)) => directory,
        Ok(None) => return Vec::new(),
        Err(problem) => {
            rows.push(Row::look("memory", directory, problem.to_string()));
            return Vec::new();
        }
    };
    let from = progress.kept(&directory.path).join(name);
    let what = "memory";
    let bytes = match directory.read(name, LONGEST) {
        Ok(Some((_, access)))
            if progress.is_memory_elsewhere && !is_old_kai_s(root, progress, access.uid) =>
        {
            let why = "belongs neither to root nor to the owner of the old kai's data, and is not read; if it is \
                       the memory, chown it to root, and run this again";
            rows.push(Row::look(what, &from, why));
            return Vec::new();
        }
        Ok(Some((bytes, _))) => bytes,
        Ok(None) => return Vec::new(),
        Err(refused) => {
            rows.push(Row::look(what, &from, refused.to_string()));
            return Vec::new();
        }
    };
    if bytes.trim_ascii().is_empty() {
        return Vec::new();
    }
    let is_alone = progress.users.len() == 1;
    let owners: Vec<i64> = match is_alone {
        true => progress.users.iter().copied().collect(),
        false => progress.admins.clone(),
    };
    let is_told =
        progress.is_memory_one_s && bytes.len() <= TOLD && std::str::from_utf8(&bytes).is_ok();
    let beside = format!("{PLACE}/MEMORY.md");
    let mut gifts = Vec::new();
    for owner in owners {
        let Some(user) = users.iter().find(|user| i64::from(user.id) == owner) else {
            continue;
        };
        let (to, otherwise) = match is_told {
            true => ("CLAUDE.md".to_owned(), Some(beside.clone())),
            false => (beside.clone(), None),
        };
        let bytes = bytes.clone();
        let parcel = Parcel::new(&to, otherwise.as_deref(), &bytes);
        gifts.push(Gift {
            key: format!("memory/{owner}"),
            what: match is_alone {
                true => format!("memory of {}", user.name),
                false => format!("memory that all shared, to {} as an admin alone", user.name),
            },
            from: from.clone(),
            owner: user.id,
            to,
            otherwise,
            feed: Box::new(move |send| send(&parcel, &bytes).map(|()| Vec::new())),
        });
    }
    if gifts.is_empty()
        && progress
            .brought
            .iter()
            .all(|key| !key.starts_with("memory/"))
    {
        let why = "several shared it, and no admin of them is a user here";
        rows.push(Row::kept(what, &from, why, &from));
    }
    gifts
}

/// Whether this is root, or the owner of the old kai's data.
fn is_old_kai_s(root: &Root, progress: &Progress, uid: u32) -> bool {
    let data = progress.data.as_deref();
    let owner = data.and_then(|path| root.somebody_s(path).ok().flatten());
    uid == 0 || owner.is_some_and(|(_, found)| found.access.uid == uid)
}

/// The user with this id, if there is one.
pub fn find(users: &[Someone], chat: i64) -> Option<&Someone> {
    let id = TelegramId::try_from(chat).ok()?;
    users.iter().find(|user| user.id == id)
}
