//! Where the built programs are, and building them when cargo started us.

use std::{
    env,
    ffi::OsStr,
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use super::GroundError;

/// Every program of a whole kai, and those that only the playground has.
pub const NAMES: [&str; 10] = [
    "kai-authd",
    "kai-brokerd",
    "kai-gateway",
    "kai-worker",
    "kai-tools",
    "kai-probe",
    "kai-broker",
    "kai-auth",
    "kai-play-agent",
    "kai-play-launcher",
];

/// The packages that [`NAMES`] come from.
const PACKAGES: [&str; 8] = [
    "kai-authd",
    "kai-brokerd",
    "kai-broker",
    "kai-auth",
    "kai-gateway",
    "kai-worker",
    "kai-probe",
    "kai-playground",
];

/// A directory with all of kai's programs in it.
#[derive(Debug, Clone)]
pub struct Programs {
    directory: PathBuf,
}

impl Programs {
    /// Finds the programs beside the running one, or, for a test, in the directory above its `deps`.
    ///
    /// # Errors
    /// One sentence that names what is missing.
    pub fn locate() -> Result<Self, GroundError> {
        Self::in_directory(&own_directory()?)
    }

    /// Takes the programs from `directory`.
    ///
    /// # Errors
    /// One sentence that names what is missing.
    pub fn in_directory(directory: &Path) -> Result<Self, GroundError> {
        let missing: Vec<&str> = NAMES
            .into_iter()
            .filter(|name| !directory.join(name).is_file())
            .collect();
        if missing.is_empty() {
            return Ok(Self {
                directory: directory.to_owned(),
            });
        }
        Err(GroundError::Programs(format!(
            "{} {} not in {}; build all of kai first: cargo build --workspace{}",
            missing.join(", "),
            if missing.len() == 1 { "is" } else { "are" },
            directory.display(),
            if directory.ends_with("release") {
                " --release"
            } else {
                ""
            },
        )))
    }

    /// Where the program `name` is.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Builds all programs with the cargo that runs this one, into the same directory, once in a process.
/// Does nothing if no cargo does.
///
/// # Errors
/// If cargo fails; what it says is already on the terminal.
pub fn build_if_run_by_cargo() -> Result<(), GroundError> {
    build_once(false)
}

/// The same, with nothing on the terminal but what goes wrong: `cargo test` builds a package's programs
/// for that package's own tests alone, and leaves those of others as they were.
pub(super) fn build_once(quiet: bool) -> Result<(), GroundError> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build(quiet).map_err(|problem| problem.to_string()));
    built.clone().map_err(GroundError::Programs)
}

fn build(quiet: bool) -> Result<(), GroundError> {
    let (Some(cargo), Some(manifest)) = (env::var_os("CARGO"), env::var_os("CARGO_MANIFEST_DIR"))
    else {
        return Ok(());
    };
    let workspace = Path::new(&manifest)
        .ancestors()
        .find(|above| above.join("Cargo.lock").is_file())
        .ok_or_else(|| GroundError::Programs("the checkout has no Cargo.lock".to_owned()))?;
    let directory = own_directory()?;
    let mut build = Command::new(cargo);
    build.current_dir(workspace).args(["build", "--bins"]);
    if quiet {
        build.arg("--quiet");
    }
    // What the outer cargo says of the package that it runs: build scripts that look at the same
    // variables would take them for a change, and everything above them would be built again.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if ["CARGO_MANIFEST_", "CARGO_PKG_"]
            .iter()
            .any(|about| name.starts_with(about))
        {
            build.env_remove(&*name);
        }
    }
    if let (Some(target), Some(profile)) = (directory.parent(), directory.file_name()) {
        // The one profile whose directory has another name.
        let profile = if profile == "debug" {
            OsStr::new("dev")
        } else {
            profile
        };
        build
            .arg("--target-dir")
            .arg(target)
            .arg("--profile")
            .arg(profile);
    }
    for package in PACKAGES {
        build.args(["--package", package]);
    }
    match build.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(GroundError::Programs(
            "cargo could not build the other programs".to_owned(),
        )),
        Err(error) => Err(GroundError::Programs(format!("cannot run cargo: {error}"))),
    }
}

/// Where cargo puts programs, seen from the running one: a test is one directory further down.
fn own_directory() -> Result<PathBuf, GroundError> {
    let program = env::current_exe()
        .map_err(|error| GroundError::Programs(format!("cannot find itself: {error}")))?;
    let beside = program.parent().unwrap_or(Path::new("/"));
    Ok(match beside.file_name() {
        Some(name) if name == "deps" => beside.parent().unwrap_or(beside).to_owned(),
        _ => beside.to_owned(),
    })
}

/// Puts the program `from` at `to`, so that it belongs to this process's account and nobody else can
/// write it: as a second link if it is so already, as a copy otherwise.
///
/// # Errors
/// What the file system answers.
pub fn install(from: &Path, to: &Path) -> io::Result<()> {
    let from = fs::canonicalize(from)?;
    let found = fs::metadata(&from)?;
    let me = nix::unistd::geteuid().as_raw();
    let fit = found.is_file() && found.uid() == me && found.mode() & 0o7777 == 0o755;
    if fit && fs::hard_link(&from, to).is_ok() {
        return Ok(());
    }
    fs::copy(&from, to)?;
    fs::set_permissions(to, PermissionsExt::from_mode(0o755))
}
