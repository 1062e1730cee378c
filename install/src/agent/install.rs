//! `kai-install agent`: the agent's native program, root's and nobody else's to change.
//!
//! What is fetched and unpacked is fetched and unpacked under a uid that nobody has, without running any
//! script of the package's; root takes one program and one version from it.

use std::{
    fs::{self, File, OpenOptions},
    io::Read,
    os::unix::fs::{MetadataExt, OpenOptionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use clap::Args;
use kai_program::spare_uids::spare_uids;
use nix::fcntl::OFlag;

use super::{CURRENT, PLACE};
use crate::{
    apply::{lock, only_root},
    failure::Failure,
    items::versions,
    judge::{self, MIB},
    print,
    root::{Access, Kind, Root},
    tools,
};

/// The scope and the beginning of the names of the packages with native programs.
const PACKAGE: &str = "@anthropic-ai/claude-code-linux-";
/// The version that kai's tests are run with. A newer one may speak to its host in a way that this kai does not know.
pub const TESTED: &str = "2.1.197";
/// The program's name in each of them.
const PROGRAM: &str = "claude";
/// Where packages are fetched to, and how the directories' names begin. Nobody but root can put anything above: npm takes
/// the first directory upwards with a package.json for its project, and obeys the .npmrc there.
const FETCHED: (&str, &str) = ("/var/cache", "kai-agent.");
/// What must be free to fetch a package, and to unpack it and put its program beside what was unpacked, in bytes.
const ROOM: [(&str, u64); 2] = [("/var/cache", 250 * MIB), (PLACE, 600 * MIB)];
/// Longest program.
const LONGEST: u64 = 1 << 30;
/// Longest description of a package.
const LONGEST_DESCRIPTION: u64 = 64 * 1024;
/// What npm may know of the way to its registry.
const NPM: [&str; 9] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "NODE_EXTRA_CA_CERTS",
    "npm_config_registry",
    "NPM_CONFIG_REGISTRY",
];

/// What `agent` is told.
#[derive(Debug, Args)]
pub struct Agent {
    /// The version, or a tag of the registry's such as latest; without it, the one that this kai was tested with. With a
    /// program of its own as --from it must be given.
    pub version: Option<String>,
    /// Take it from this package (.tgz), this directory of a package, or this program, and ask no registry.
    #[arg(long, value_name = "FILE|DIR")]
    pub from: Option<PathBuf>,
    /// Everything is below this directory.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
}

/// Carries `agent` out.
///
/// # Errors
/// [`Failure::Agent`] and those of the tree; the agent that was there stays then.
pub fn run(asked: &Agent) -> Result<ExitCode, Failure> {
    only_root()?;
    let root = Root::open(&asked.root)?;
    let _lock = lock(&root)?;
    judge_the_space(&root)?;
    let version = match &asked.from {
        Some(from) => from_file(&root, from, asked.version.as_deref())?,
        None => from_registry(&root, asked.version.as_deref().unwrap_or(TESTED))?,
    };
    print(&format!("the agent is {version}, in {PLACE}/{version}"))?;
    Ok(ExitCode::SUCCESS)
}

/// All that is fetched and unpacked has room.
///
/// # Errors
/// [`Failure::NoSpace`].
pub fn judge_the_space(root: &Root) -> Result<(), Failure> {
    judge::has_room(root, &ROOM)
}

/// Installs the version that `wanted` means to the registry.
///
/// # Errors
/// As [`run`].
pub fn from_registry(root: &Root, wanted: &str) -> Result<String, Failure> {
    if !fits(wanted) {
        return Err(Failure::Agent(format!("{wanted:?} is not a version")));
    }
    let bring = format!(
        "bring the package: npm pack {0}@{wanted}, then kai-install agent --from FILE",
        name()
    );
    let Some(npm) = tools::find("npm") else {
        return Err(Failure::Agent(format!(
            "npm, which fetches it, is not here; install it with: apt-get install npm, or {bring}"
        )));
    };
    let place = Fetched::new()?;
    let mut command = as_nobody(&npm, place.uid);
    command
        .args([
            "pack",
            "--ignore-scripts",
            "--no-audit",
            "--no-update-notifier",
            "--silent",
        ])
        .arg(format!("--prefix={}", place.path.display()))
        .arg(format!("{}@{wanted}", name()))
        .env("HOME", &place.path)
        .env("npm_config_cache", place.path.join("cache"))
        .current_dir(&place.path);
    for variable in NPM {
        if let Some(value) = std::env::var_os(variable) {
            command.env(variable, value);
        }
    }
    let output = command.output().map_err(|error| Failure::io(&npm, error))?;
    if !output.status.success() {
        let said = tools::last_line(&output);
        return Err(Failure::Agent(format!(
            "npm cannot fetch it: {said}; or {bring}"
        )));
    }
    let package = fs::read_dir(&place.path)
        .map_err(|error| Failure::io(&place.path, error))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "tgz"))
        .ok_or_else(|| Failure::Agent("npm has fetched nothing".to_owned()))?;
    from_package(root, &package, None)
}

/// A number that nobody has. The account nobody is no such: services that share it could put a program of their
/// own in place of the one that is fetched.
fn nobodys() -> Result<u32, Failure> {
    spare_uids().next().ok_or_else(|| {
        Failure::Agent(
            "all uids from 59000 to 59999 are taken, and it is fetched under one that nobody has"
                .to_owned(),
        )
    })
}

/// A directory of a uid's that nobody has, removed with the value.
struct Fetched {
    path: PathBuf,
    uid: u32,
}

impl Fetched {
    fn new() -> Result<Self, Failure> {
        let uid = nobodys()?;
        let (above, prefix) = FETCHED;
        // What a run that was killed has left: no other one runs while the tree is locked.
        for entry in fs::read_dir(above).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let template = format!("{above}/{prefix}XXXXXXXXXX");
        let made = tools::run("mktemp", &["--directory", &template], None)?;
        let fetched = Self {
            path: PathBuf::from(made.trim()),
            uid,
        };
        chown(&fetched.path, Some(uid), Some(uid))
            .map_err(|error| Failure::io(&fetched.path, error))?;
        Ok(fetched)
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn from_file(root: &Root, from: &Path, version: Option<&str>) -> Result<String, Failure> {
    let found = fs::metadata(from).map_err(|error| Failure::io(from, error))?;
    if found.is_dir() {
        let inner = from.join("node_modules").join(name());
        let package = [from.to_owned(), inner]
            .into_iter()
            .find(|directory| directory.join(PROGRAM).is_file())
            .ok_or_else(|| Failure::Agent(format!("{} has no {PROGRAM} in it", from.display())))?;
        let description = open(&package.join("package.json"))?;
        let version = judge_version(description, version)?;
        return put(root, &version, &mut open(&package.join(PROGRAM))?);
    }
    let mut start = [0; 2];
    let mut file = open(from)?;
    file.read_exact(&mut start)
        .map_err(|error| Failure::io(from, error))?;
    // As gzip(1) begins all that it packs.
    if start == [0x1f, 0x8b] {
        return from_package(root, from, version);
    }
    let version = version.filter(|version| fits(version)).ok_or_else(|| {
        Failure::Agent("a program by itself does not say its version; name it: kai-install agent --from FILE VERSION".to_owned())
    })?;
    put(root, version, &mut open(from)?)
}

fn from_package(root: &Root, package: &Path, version: Option<&str>) -> Result<String, Failure> {
    let uid = nobodys()?;
    let member = |name: &str| -> Result<(std::process::Child, std::process::ChildStdout), Failure> {
        let tar = tools::find("tar").ok_or_else(|| {
            Failure::Agent("tar is not installed: apt-get install tar".to_owned())
        })?;
        let mut child = as_nobody(&tar, uid)
            .args(["--extract", "--gzip", "--to-stdout", "--file=-"])
            .arg(format!("package/{name}"))
            .stdin(open(package)?)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| Failure::io(&tar, error))?;
        let out = child.stdout.take();
        let out = out.ok_or_else(|| Failure::Agent("tar says nothing".to_owned()))?;
        Ok((child, out))
    };
    let bad = || {
        Failure::Agent(format!(
            "{} is not a whole package of the agent's; fetch it again with: npm pack {}",
            package.display(),
            name()
        ))
    };
    let (mut tar, description) = member("package.json")?;
    let version = judge_version(description, version);
    let ended = tar.wait().is_ok_and(|status| status.success());
    let version = if ended { version? } else { return Err(bad()) };
    let (mut tar, mut program) = member(PROGRAM)?;
    // The end of the stream is no proof that it is whole.
    let directory = prepare(root, &version)?;
    let path = directory.join(".fetched");
    let written = write(root, &path, &mut program);
    drop(program);
    let whole = tar.wait().is_ok_and(|status| status.success());
    let put = match (written, whole) {
        (Ok(()), true) => {
            let mut file = root.read(&path)?.ok_or_else(bad)?;
            put(root, &version, &mut file)
        }
        (Err(problem), true) => Err(problem),
        (_, false) => Err(bad()),
    };
    root.remove(&path)?;
    remove_what_is_empty(root, &directory)?;
    put
}

/// A version that was not installed leaves no directory of its own.
fn remove_what_is_empty(root: &Root, directory: &Path) -> Result<(), Failure> {
    for path in [directory, PLACE.as_ref(), versions::PLACE.as_ref()] {
        root.remove_if_empty(path)?;
    }
    Ok(())
}

fn prepare(root: &Root, version: &str) -> Result<PathBuf, Failure> {
    let directory = Path::new(PLACE).join(version);
    let make = || -> Result<(), Failure> {
        for path in ["/opt", versions::PLACE, PLACE] {
            if root.look(path.as_ref())?.is_none() {
                root.make_directory(path.as_ref(), Access::root(0o755))?;
            }
        }
        root.make_directory(&directory, Access::root(0o755))
    };
    if let Err(problem) = make() {
        remove_what_is_empty(root, &directory)?;
        return Err(problem);
    }
    Ok(directory)
}

fn write(root: &Root, path: &Path, program: &mut dyn Read) -> Result<(), Failure> {
    let mut start = [0; 4];
    let is_native = program.read_exact(&mut start).is_ok() && start == *b"\x7fELF";
    if !is_native {
        return Err(Failure::Agent(
            "it is not a native program of this system".to_owned(),
        ));
    }
    let mut whole = start.chain(program).take(LONGEST);
    root.write(path, &mut whole, Access::root(0o755))
}

/// Puts the program in its place and has `current` lead to it; the version before is kept.
fn put(root: &Root, version: &str, program: &mut dyn Read) -> Result<String, Failure> {
    let directory = prepare(root, version)?;
    let written = write(root, &directory.join(PROGRAM), program);
    if let Err(problem) = written {
        remove_what_is_empty(root, &directory)?;
        return Err(problem);
    }
    let before = root.link_at(CURRENT.as_ref())?;
    root.link(CURRENT.as_ref(), version.as_ref())?;
    for name in root.names(PLACE.as_ref())? {
        let path = Path::new(PLACE).join(&name);
        let is_kept = name == version || before.as_deref() == Some(Path::new(&name));
        let found = root.look(&path)?;
        // Run again with the same version, it knows of none before, and takes none away.
        let is_same = before.as_deref() == Some(Path::new(version));
        if !is_kept && !is_same && found.is_some_and(|found| found.kind == Kind::Directory) {
            root.remove_all(&path)?;
        }
    }
    Ok(version.to_owned())
}

fn judge_version(description: impl Read, wanted: Option<&str>) -> Result<String, Failure> {
    #[derive(serde::Deserialize)]
    struct Description {
        version: String,
    }
    let mut text = String::new();
    let read = description
        .take(LONGEST_DESCRIPTION)
        .read_to_string(&mut text);
    let described: Option<Description> = read.ok().and_then(|_| serde_json::from_str(&text).ok());
    let version = described
        .map(|description| description.version)
        .filter(|version| fits(version) && version.starts_with(|c: char| c.is_ascii_digit()))
        .ok_or_else(|| Failure::Agent("its package.json names no version".to_owned()))?;
    match wanted {
        Some(wanted) if wanted != version => Err(Failure::Agent(format!(
            "the package is of version {version}, not {wanted}"
        ))),
        _ => Ok(version),
    }
}

/// True for what can be a directory's name beside `current`, and stand behind a package's name.
fn fits(version: &str) -> bool {
    (1..=64).contains(&version.len())
        && version != "current"
        && version.starts_with(|c: char| c.is_ascii_alphanumeric())
        && version
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".+-".contains(&b))
}

/// The package with the program for this machine.
fn name() -> String {
    let machine = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{PACKAGE}{machine}")
}

/// Root reads what the admin named; a package that was fetched is read where a link could stand.
fn open(path: &Path) -> Result<File, Failure> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path)
        .and_then(|file| Ok((file.metadata()?, file)))
        .map_err(|error| Failure::io(path, error))?;
    match opened {
        (found, file) if found.is_file() && found.nlink() >= 1 => Ok(file),
        _ => Err(Failure::NotA {
            path: path.to_owned(),
            wanted: "regular file",
        }),
    }
}

/// A command of a uid that owns nothing and can become no other.
fn as_nobody(program: &Path, uid: u32) -> Command {
    let mut command = tools::command("setpriv");
    command
        .arg(format!("--reuid={uid}"))
        .arg(format!("--regid={uid}"))
        .args([
            "--clear-groups",
            "--no-new-privs",
            "--inh-caps=-all",
            "--bounding-set=-all",
            "--",
        ])
        .arg(program);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_that_the_tests_are_run_with() {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR"));
        let tests = fs::read_to_string(tree.join("../tests/agent/package.json")).unwrap();
        assert!(
            tests.contains(&format!("claude-code\": \"{TESTED}\"")),
            "{tests}"
        );
    }

    #[test]
    fn a_version_is_no_path_and_no_flag() {
        for good in ["2.1.197", "latest", "2.0.0-rc.1+x"] {
            assert!(fits(good), "{good}");
        }
        for bad in ["", "../x", "a/b", "-x", ".x", "current", "a b"] {
            assert!(!fits(bad), "{bad}");
        }
    }
}
