//! Programs that kai starts: root's, nobody else's to change, and the users' accounts' to run.

use std::path::{Path, PathBuf};

use super::{
    Finding,
    files::{Kind, Look, Unseen},
};

/// kai's own programs, which are installed together.
pub const OURS: [&str; 8] = [
    "kai-gateway",
    "kai-brokerd",
    "kai-authd",
    "kai-worker",
    "kai-tools",
    "kai-probe",
    "kai-broker",
    "kai-auth",
];

/// Whoever is neither the owner nor in the group may write.
const WRITABLE: u32 = 0o022;
/// Everybody may execute, or enter.
const EXECUTABLE: u32 = 0o001;

/// A program at `path`, judged by everything on the way to it: each directory as it is named, each
/// as it is behind links, and at the end the file.
pub fn program(path: &Path, way: &[(PathBuf, Look)]) -> Finding {
    for (at, look) in way {
        let shown = at.display();
        let seen = match look {
            Ok(seen) => seen,
            Err(Unseen::Denied) => {
                return Finding::needs_root(format!("{shown} is hidden from others"));
            }
            Err(Unseen::Absent) => {
                return Finding::missing(
                    format!("{shown} does not exist"),
                    format!("install the program as {}", path.display()),
                );
            }
            Err(Unseen::Failed(problem)) => {
                return Finding::missing(format!("{shown}: {problem}"), "look at what is there");
            }
        };
        if seen.uid != 0 || seen.mode & WRITABLE != 0 {
            return Finding::missing(
                format!(
                    "{shown} (uid {}, mode {:04o}) can be changed by others than root",
                    seen.uid, seen.mode
                ),
                format!("chown root {shown} && chmod go-w {shown}"),
            );
        }
        if seen.mode & EXECUTABLE == 0 {
            return Finding::missing(
                format!(
                    "{shown} has mode {:04o}, which keeps users' accounts out",
                    seen.mode
                ),
                format!("chmod a+x {shown}, or install the program elsewhere"),
            );
        }
    }
    match way.last() {
        Some((_, Ok(seen))) if seen.kind == Kind::File => Finding::ok(path.display().to_string()),
        _ => Finding::missing(
            format!("{} is not a program", path.display()),
            "name the program itself",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            State::{Missing, NeedsRoot, Ok as Good},
            files::Seen,
        },
        *,
    };

    const DIRECTORY: Seen = Seen {
        kind: Kind::Directory,
        uid: 0,
        gid: 0,
        mode: 0o755,
        links: 2,
        empty: false,
    };
    const PROGRAM: Seen = Seen {
        kind: Kind::File,
        links: 1,
        ..DIRECTORY
    };

    #[test]
    fn every_step_of_the_way_is_judged() {
        let good = Ok(DIRECTORY);
        let denied = || Err(Unseen::Denied);
        for (directory, file, state, said) in [
            (good.clone(), Ok(PROGRAM), Good, "/opt/agent"),
            (
                good.clone(),
                Ok(Seen {
                    mode: 0o775,
                    ..PROGRAM
                }),
                Missing,
                "0775",
            ),
            (
                good.clone(),
                Ok(Seen {
                    uid: 1000,
                    ..PROGRAM
                }),
                Missing,
                "uid 1000",
            ),
            (
                good.clone(),
                Ok(Seen {
                    mode: 0o644,
                    ..PROGRAM
                }),
                Missing,
                "0644",
            ),
            (good.clone(), Ok(DIRECTORY), Missing, "not a program"),
            (good.clone(), Err(Unseen::Absent), Missing, "does not exist"),
            (good.clone(), denied(), NeedsRoot, "hidden"),
            (
                Ok(Seen {
                    mode: 0o777,
                    ..DIRECTORY
                }),
                Ok(PROGRAM),
                Missing,
                "/opt (uid 0",
            ),
            (
                Ok(Seen {
                    mode: 0o1777,
                    ..DIRECTORY
                }),
                Ok(PROGRAM),
                Missing,
                "1777",
            ),
            (
                Ok(Seen {
                    uid: 7,
                    ..DIRECTORY
                }),
                Ok(PROGRAM),
                Missing,
                "uid 7",
            ),
            (
                Ok(Seen {
                    mode: 0o700,
                    ..DIRECTORY
                }),
                Ok(PROGRAM),
                Missing,
                "keeps users",
            ),
            (denied(), denied(), NeedsRoot, "hidden"),
        ] {
            let way = [("/opt".into(), directory), ("/opt/agent".into(), file)];
            let finding = program(Path::new("/opt/agent"), &way);
            assert_eq!(finding.state, state, "{way:?}");
            assert!(finding.found.contains(said), "{finding:?}");
        }
    }

    #[test]
    fn a_way_without_a_step_leads_to_no_program() {
        assert_eq!(program(Path::new("/x"), &[]).state, Missing);
    }
}
