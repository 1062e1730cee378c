//! The gateway's account, the bot's token and the table of users, by owner and mode: none is opened.

use std::path::Path;

use super::Finding;
use crate::items::token::ENCRYPTED;

/// What kind of thing stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A link, a device, a socket.
    Other,
}

/// What stat(2) says of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// What stands there.
    pub kind: Kind,
    /// Whose it is.
    pub uid: u32,
    /// Whose group it is.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// How many names it has.
    pub links: u64,
    /// True if there is nothing in it.
    pub empty: bool,
}

/// Why nothing is known of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unseen {
    /// Nothing is there.
    Absent,
    /// This account may not look.
    Denied,
    /// The kernel's answer.
    Failed(String),
}

/// A look at a path.
pub type Look = Result<Seen, Unseen>;

/// The numbers of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// Its user.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
}

/// The account that the gateway runs as: there, and nothing like root.
pub fn gateway_account(name: &str, found: &Result<Option<Ids>, String>) -> Finding {
    let make = format!("useradd --system --home-dir / --shell /usr/sbin/nologin {name}");
    match found {
        Err(problem) => Finding::missing(
            format!("{name} cannot be looked up: {problem}"),
            "look at nsswitch.conf(5) and what it names",
        ),
        Ok(None) => Finding::missing(format!("{name} does not exist"), make),
        Ok(Some(Ids { uid: 0, .. } | Ids { gid: 0, .. })) => Finding::missing(
            format!("{name} has root's user or group"),
            format!("name another account as accounts.gateway in kai.yaml, made with: {make}"),
        ),
        Ok(Some(Ids { uid, .. })) => Finding::ok(format!("{name} (uid {uid})")),
    }
}

/// The bot's token: root's, who gives it to the gateway, or the gateway's own to read, and nobody
/// else's.
pub fn token(path: &Path, look: &Look, gateway: Option<Ids>) -> Finding {
    let shown = path.display();
    let mend = if path == Path::new(ENCRYPTED) {
        "give the token again: kai-install config --token-file FILE, then kai-install apply"
            .to_owned()
    } else {
        format!("write the line from @BotFather to {shown}, with owner root and mode 0600")
    };
    let seen = match secret(path, look, &mend) {
        Ok(seen) => seen,
        Err(finding) => return finding,
    };
    if seen.uid != 0 && gateway.is_none_or(|gateway| gateway.uid != seen.uid) {
        return foreign(path, seen.uid);
    }
    // The gateway's group holds nobody but the gateway.
    let (forbidden, wanted) = if gateway.is_some_and(|gateway| gateway.gid == seen.gid) {
        (0o037, 0o640)
    } else {
        (0o077, 0o600)
    };
    if seen.mode & forbidden != 0 {
        return open_to_others(path, seen.mode, wanted);
    }
    if seen.empty {
        return Finding::missing(format!("{shown} is empty"), mend);
    }
    Finding::ok(format!("{shown}, mode {:04o}", seen.mode))
}

/// The table of users: root's, and nobody else's to read.
pub fn users(path: &Path, look: &Look, root: bool) -> Finding {
    let shown = path.display();
    if !root {
        return Finding::needs_root(format!("{shown} is root's to read"));
    }
    let mend = format!("write the users to {shown}, with owner root and mode 0600");
    let seen = match secret(path, look, &mend) {
        Ok(seen) => seen,
        Err(finding) => return finding,
    };
    if seen.uid != 0 {
        return foreign(path, seen.uid);
    }
    if seen.mode & 0o077 != 0 {
        return open_to_others(path, seen.mode, 0o600);
    }
    Finding::ok(format!("{shown}, mode {:04o}", seen.mode))
}

/// A regular file of one name, or why not.
fn secret(path: &Path, look: &Look, mend: &str) -> Result<Seen, Finding> {
    let shown = path.display();
    match look {
        Err(Unseen::Denied) => Err(Finding::needs_root(format!(
            "{shown} is hidden from others"
        ))),
        Err(Unseen::Absent) => Err(Finding::missing(format!("{shown} does not exist"), mend)),
        Err(Unseen::Failed(problem)) => Err(Finding::missing(format!("{shown}: {problem}"), mend)),
        Ok(seen) if seen.kind != Kind::File => Err(Finding::missing(
            format!("{shown} is not a regular file"),
            mend,
        )),
        Ok(seen) if seen.links != 1 => Err(Finding::missing(
            format!("{shown} has {} names", seen.links),
            format!("copy it to a file of its own and put that in its place: {shown}"),
        )),
        Ok(seen) => Ok(*seen),
    }
}

fn foreign(path: &Path, owner: u32) -> Finding {
    let shown = path.display();
    Finding::missing(
        format!("{shown} belongs to uid {owner}"),
        format!("chown root {shown}, and take it for known to that account"),
    )
}

fn open_to_others(path: &Path, mode: u32, wanted: u32) -> Finding {
    let shown = path.display();
    Finding::missing(
        format!("{shown} has mode {mode:04o}, which lets other accounts in"),
        format!("chmod {wanted:04o} {shown}"),
    )
}

#[cfg(test)]
mod tests {
    use super::{
        super::State::{Missing, NeedsRoot, Ok as Good},
        *,
    };

    const GATEWAY: Ids = Ids { uid: 990, gid: 980 };
    const SECRET: Seen = Seen {
        kind: Kind::File,
        uid: 0,
        gid: 0,
        mode: 0o600,
        links: 1,
        empty: false,
    };

    #[test]
    fn the_gateway_has_an_account_that_is_not_root_s() {
        let cases = [
            (Ok(Some(GATEWAY)), Good),
            (Ok(None), Missing),
            (Ok(Some(Ids { uid: 0, gid: 980 })), Missing),
            (Ok(Some(Ids { uid: 990, gid: 0 })), Missing),
            (Err("down".to_owned()), Missing),
        ];
        for (found, state) in cases {
            assert_eq!(
                gateway_account("kai-gateway", &found).state,
                state,
                "{found:?}"
            );
        }
    }

    #[test]
    fn only_root_and_the_gateway_may_have_the_token() {
        let path = Path::new("/etc/kai/credentials/telegram-token");
        let of_gateway = Seen {
            uid: GATEWAY.uid,
            gid: GATEWAY.gid,
            ..SECRET
        };
        let by_group = Seen {
            gid: GATEWAY.gid,
            mode: 0o640,
            ..SECRET
        };
        for (look, state, said) in [
            (Ok(SECRET), Good, "0600"),
            (
                Ok(Seen {
                    mode: 0o400,
                    ..SECRET
                }),
                Good,
                "0400",
            ),
            (Ok(of_gateway), Good, "0600"),
            (Ok(by_group), Good, "0640"),
            (
                Ok(Seen {
                    mode: 0o660,
                    ..by_group
                }),
                Missing,
                "0660",
            ),
            (
                Ok(Seen {
                    mode: 0o644,
                    ..by_group
                }),
                Missing,
                "0644",
            ),
            (
                Ok(Seen {
                    mode: 0o640,
                    ..SECRET
                }),
                Missing,
                "0640",
            ),
            (
                Ok(Seen {
                    uid: 1000,
                    ..SECRET
                }),
                Missing,
                "uid 1000",
            ),
            (Ok(Seen { links: 2, ..SECRET }), Missing, "2 names"),
            (
                Ok(Seen {
                    empty: true,
                    ..SECRET
                }),
                Missing,
                "empty",
            ),
            (
                Ok(Seen {
                    kind: Kind::Other,
                    ..SECRET
                }),
                Missing,
                "regular",
            ),
            (Err(Unseen::Absent), Missing, "does not exist"),
            (Err(Unseen::Failed("broken".to_owned())), Missing, "broken"),
            (Err(Unseen::Denied), NeedsRoot, "hidden"),
        ] {
            let finding = token(path, &look, Some(GATEWAY));
            assert_eq!(finding.state, state, "{look:?}");
            assert!(finding.found.contains(said), "{finding:?}");
        }
    }

    #[test]
    fn without_an_account_of_the_gateway_the_token_is_root_s_alone() {
        let path = Path::new("/token");
        let foreign = Seen { uid: 990, ..SECRET };
        assert_eq!(token(path, &Ok(SECRET), None).state, Good);
        assert_eq!(token(path, &Ok(foreign), None).state, Missing);
    }

    #[test]
    fn the_table_of_users_is_root_s_alone_and_judged_by_root_alone() {
        let path = Path::new("/etc/kai/users.yaml");
        for (look, root, state) in [
            (Ok(SECRET), true, Good),
            (Ok(SECRET), false, NeedsRoot),
            (Err(Unseen::Absent), false, NeedsRoot),
            (Err(Unseen::Absent), true, Missing),
            (
                Ok(Seen {
                    mode: 0o640,
                    ..SECRET
                }),
                true,
                Missing,
            ),
            (Ok(Seen { uid: 990, ..SECRET }), true, Missing),
            (Ok(Seen { links: 3, ..SECRET }), true, Missing),
            (
                Ok(Seen {
                    kind: Kind::Directory,
                    ..SECRET
                }),
                true,
                Missing,
            ),
        ] {
            assert_eq!(users(path, &look, root).state, state, "{look:?} {root}");
        }
    }
}
