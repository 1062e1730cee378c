//! Landlock, from rules to a domain that the worker and all it starts cannot leave.
//!
//! What the kernel does not know is left out, and the status says so. Without Landlock at all the
//! worker goes on: namespaces and the account are the first wall, and whether a host without
//! Landlock is good enough is for the broker's `confinement: strict` to decide from the report.

use std::{
    fs::File,
    io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, NetPort,
    PathBeneath, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope,
};

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};

use super::paths::{Grant, Rule};

/// The newest ABI whose controls are asked for. 7 added only what is logged, 8 several threads; 9
/// controls connecting to sockets that have a path, which waits until it can be measured with agents.
const ASKED: ABI = ABI::V6;

/// Why there is no domain.
#[derive(Debug, thiserror::Error)]
pub enum RulesetFailed {
    /// A path cannot be opened, or not be listed.
    #[error("{path}: {error}")]
    Path {
        /// Which.
        path: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
    /// The kernel refused a ruleset of its own ABI.
    #[error("Landlock failed: {0}")]
    Kernel(#[from] RulesetError),
}

/// What was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Landlocked {
    /// The ABI that both kernel and worker know, 0 without Landlock.
    pub abi: u8,
    /// True if all that was asked for is enforced.
    pub whole: bool,
}

/// Confines this thread to `rules`, and to connecting to `ports` over TCP, if given.
///
/// # Errors
/// [`RulesetFailed`]; a needed path that is missing, too.
pub fn restrict(rules: &[Rule], ports: Option<&[u16]>) -> Result<Landlocked, RulesetFailed> {
    Ok(reached(&prepare(rules, ports)?.restrict_self()?, ASKED))
}

/// A domain of these rules that nothing is in yet.
///
/// # Errors
/// As for [`restrict`].
pub fn prepare(rules: &[Rule], ports: Option<&[u16]>) -> Result<RulesetCreated, RulesetFailed> {
    prepare_for(rules, ports, ASKED)
}

/// The same, as on a kernel that knows `asked` and nothing newer.
fn prepare_for(
    rules: &[Rule],
    ports: Option<&[u16]>,
    asked: ABI,
) -> Result<RulesetCreated, RulesetFailed> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(asked))?;
    // An empty set of scopes is refused.
    if asked >= ABI::V6 {
        ruleset = ruleset.scope(Scope::from_all(asked))?;
    }
    // Binding stays free: a development server of the user's is as reachable as one that the user
    // starts from a shell, and agents and their tools bind to port 0 all the time.
    let ports = ports.filter(|_| asked >= ABI::V4);
    if ports.is_some() {
        ruleset = ruleset.handle_access(AccessNet::ConnectTcp)?;
    }
    let mut created = ruleset.create()?;
    for rule in rules {
        created = add(created, rule, asked)?;
    }
    for port in ports.unwrap_or_default() {
        created = created.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    Ok(created)
}

fn add(created: RulesetCreated, rule: &Rule, asked: ABI) -> Result<RulesetCreated, RulesetFailed> {
    let opened = match reach(rule) {
        Ok(opened) => opened,
        Err(_) if !rule.needed => return Ok(created),
        Err(error) => return Err(path_failed(&rule.path, error)),
    };
    let found = match opened.metadata() {
        Ok(found) => found.file_type(),
        Err(_) if !rule.needed => return Ok(created),
        Err(error) => return Err(path_failed(&rule.path, error)),
    };
    // Sockets are not opened but connected to, which these ABIs do not control.
    if found.is_socket() {
        return Ok(created);
    }
    // What is not handled cannot be granted.
    let mut access = access(rule.grant) & AccessFs::from_all(asked);
    if !found.is_dir() {
        access &= AccessFs::from_file(asked);
    }
    Ok(created.add_rule(PathBeneath::new(opened, access))?)
}

/// What the rule is about, opened once and judged by that descriptor.
fn reach(rule: &Rule) -> io::Result<File> {
    let mut how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC);
    if !rule.follow {
        how = how.resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    }
    Ok(openat2(AT_FDCWD, &rule.path, how)?.into())
}

fn path_failed(path: &Path, error: io::Error) -> RulesetFailed {
    RulesetFailed::Path {
        path: path.to_owned(),
        error,
    }
}

fn access(grant: Grant) -> BitFlags<AccessFs> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    match grant {
        Grant::Read => read,
        Grant::Execute => read | AccessFs::Execute,
        Grant::Use => read | AccessFs::WriteFile | AccessFs::Truncate,
        Grant::Device => read | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev,
        // The ioctls of devices are left out: nobody makes devices there.
        Grant::Own => AccessFs::from_all(ASKED) & !BitFlags::from(AccessFs::IoctlDev),
    }
}

fn reached(status: &RestrictionStatus, asked: ABI) -> Landlocked {
    let abi = match (&status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, _) => 0,
        (_, LandlockStatus::Available { effective_abi, .. }) => effective_abi.min(asked) as u8,
        _ => 0,
    };
    Landlocked {
        abi,
        whole: status.ruleset == RulesetStatus::FullyEnforced && asked == ASKED,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn rule(path: &Path, grant: Grant) -> Rule {
        Rule {
            path: path.to_owned(),
            grant,
            needed: true,
            follow: true,
        }
    }

    /// Runs `act` in a thread of its own, which alone is confined.
    fn confined<R: Send + 'static>(
        rules: Vec<Rule>,
        ports: Option<Vec<u16>>,
        act: impl FnOnce() -> R + Send + 'static,
    ) -> Option<R> {
        std::thread::spawn(move || {
            let reached = restrict(&rules, ports.as_deref()).unwrap();
            if reached.abi == 0 {
                assert!(
                    std::env::var_os("KAI_TESTS_MUST_RUN").is_none(),
                    "no Landlock here"
                );
                eprintln!("skipped: needs Landlock");
                return None;
            }
            Some(act())
        })
        .join()
        .unwrap()
    }

    #[test]
    fn a_link_at_or_above_a_path_of_the_policy_opens_nothing() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        for directory in ["real/below", "secret/below"] {
            fs::create_dir_all(path(directory)).unwrap();
        }
        fs::write(path("secret/below/file"), "x").unwrap();
        std::os::unix::fs::symlink(path("secret"), path("link")).unwrap();
        let by_policy = |name: &str| Rule {
            needed: false,
            follow: false,
            ..rule(&path(name), Grant::Own)
        };
        let rules = vec![
            by_policy("link"),
            by_policy("link/below"),
            by_policy("real/below"),
        ];
        let (secret, real) = (path("secret/below/file"), path("real/below/new"));

        let reached = confined(rules, None, move || {
            (fs::read(secret).is_ok(), fs::write(real, "x").is_ok())
        });

        assert!(reached.is_none_or(|reached| reached == (false, true)));
    }

    #[test]
    fn only_what_is_granted_is_reached() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        for directory in ["own", "read", "closed"] {
            fs::create_dir(path(directory)).unwrap();
            fs::write(path(directory).join("file"), "x").unwrap();
        }
        fs::write(path("single"), "x").unwrap();
        let rules = vec![
            rule(&path("own"), Grant::Own),
            rule(&path("read"), Grant::Read),
            rule(&path("single"), Grant::Read),
        ];
        let root = place.path().to_owned();

        let reached = confined(rules, None, move || {
            let path = |name: &str| root.join(name);
            [
                fs::write(path("own/new"), "x").is_ok(),
                fs::rename(path("own/new"), path("own/other")).is_ok(),
                fs::read(path("read/file")).is_ok(),
                fs::read(path("single")).is_ok(),
                fs::write(path("read/file"), "y").is_ok(),
                fs::read(path("closed/file")).is_ok(),
                fs::read_dir(path("closed")).is_ok(),
                fs::read("/etc/hostname").is_ok(),
            ]
        });

        if let Some(reached) = reached {
            assert_eq!(
                reached,
                [true, true, true, true, false, false, false, false]
            );
        }
    }

    #[test]
    fn only_listed_ports_are_connected_to() {
        let listeners = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let [open, closed] = listeners.each_ref().map(|l| l.local_addr().unwrap());

        let connected = confined(Vec::new(), Some(vec![open.port()]), move || {
            [open, closed].map(|address| std::net::TcpStream::connect(address).is_ok())
        });

        if let Some(connected) = connected {
            assert_eq!(connected, [true, false]);
        }
    }

    #[test]
    fn a_needed_path_that_is_missing_is_an_error_and_another_is_not() {
        let missing = Rule {
            path: "/nowhere".into(),
            grant: Grant::Own,
            needed: true,
            follow: true,
        };
        let optional = Rule {
            needed: false,
            ..missing.clone()
        };

        std::thread::spawn(move || {
            assert!(matches!(
                restrict(&[missing], None),
                Err(RulesetFailed::Path { .. })
            ));
            assert!(restrict(&[optional], None).is_ok());
        })
        .join()
        .unwrap();
    }

    /// What is possible under an older kernel's Landlock, with this one pretending to be it.
    fn under(asked: ABI) -> Option<(Landlocked, [bool; 5])> {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().to_owned();
        for name in ["own", "read", "closed"] {
            fs::create_dir(root.join(name)).unwrap();
            fs::write(root.join(name).join("file"), "content").unwrap();
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let rules = [
                rule(&root.join("own"), Grant::Own),
                rule(&root.join("read"), Grant::Read),
            ];
            let prepared = prepare_for(&rules, Some(&[1]), asked).unwrap();
            let reached = reached(&prepared.restrict_self().unwrap(), asked);
            if reached.abi == 0 {
                eprintln!("skipped: needs Landlock");
                return None;
            }
            let path = |name: &str| root.join(name);
            Some((
                reached,
                [
                    fs::write(path("own/new"), "x").is_ok(),
                    fs::write(path("read/file"), "x").is_ok(),
                    fs::read(path("closed/file")).is_ok(),
                    nix::unistd::truncate(&path("read/file"), 0).is_ok(),
                    std::net::TcpStream::connect(closed).is_ok(),
                ],
            ))
        })
        .join()
        .unwrap()
    }

    #[test]
    fn each_older_abi_holds_what_it_knows_and_says_that_it_is_not_the_whole() {
        // Own files, writing what may be read, reading what is closed; then truncating what may be read,
        // from ABI 3 on denied, and connecting to another port, from ABI 4 on.
        for (asked, truncates, connects) in [
            (ABI::V1, true, true),
            (ABI::V2, true, true),
            (ABI::V3, false, true),
            (ABI::V4, false, false),
            (ABI::V5, false, false),
        ] {
            let Some((reached, possible)) = under(asked) else {
                return;
            };
            assert_eq!(
                possible,
                [true, false, false, truncates, connects],
                "{asked:?}"
            );
            assert!(reached.abi <= asked as u8 && !reached.whole, "{reached:?}");
        }
    }
}
