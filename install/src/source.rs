//! The directory that kai is installed from: what the package owns, or an installed version's own copy.
//! Both have the same form, which is what lets a version be gone back to with its units and rules.
//!
//! ```text
//! version.yaml   kai-*   systemd/*.service, *.socket, *.target   systemd/kai.tmpfiles   sudoers.d/kai
//! ```

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use kai_program::{
    trusted_file::{Trust, TrustedFile},
    yaml::Document,
};

use crate::{checks::programs::OURS, failure::Failure};

/// What the package owns.
pub const DEFAULT: &str = "/usr/lib/kai";
/// The file that says which version it is.
pub const VERSION: &str = "version.yaml";
/// The name of this program.
pub const SELF: &str = "kai-install";
/// What a unit's name ends with.
const UNITS: [&str; 5] = [".service", ".socket", ".slice", ".target", ".timer"];

/// Which version it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The name of its directory.
    pub name: String,
    /// The major version of authd's tables.
    pub authd_schema: i64,
}

/// The directory.
#[derive(Debug, Clone)]
pub struct Source {
    path: PathBuf,
    /// Which version it is.
    pub version: Version,
    /// The names of its programs.
    pub programs: Vec<String>,
    /// The names of its units.
    pub units: Vec<Unit>,
    /// The lines of tmpfiles.d(5).
    pub tmpfiles: String,
    /// The lines of sysusers.d(5), if it has any.
    pub sysusers: Option<String>,
    /// The rules of sudoers(5).
    pub sudoers: String,
}

/// A unit of systemd's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// Its text.
    pub text: String,
}

impl Unit {
    /// The values of `key`, one for each word.
    #[must_use]
    pub fn words(&self, key: &str) -> Vec<&str> {
        self.text
            .lines()
            .filter_map(|line| line.split_once('='))
            .filter(|(name, _)| name.trim() == key)
            .flat_map(|(_, value)| value.split_whitespace())
            .collect()
    }

    /// The links that enabling it makes, below `/etc/systemd/system`.
    #[must_use]
    pub fn wanted_by(&self) -> Vec<String> {
        let links = |key: &str, suffix: &str| -> Vec<String> {
            let link = |by: &str| format!("{by}.{suffix}/{}", self.name);
            self.words(key).into_iter().map(link).collect()
        };
        [links("WantedBy", "wants"), links("RequiredBy", "requires")].concat()
    }

    /// True if it is started by itself and not by others.
    #[must_use]
    pub fn is_to_run(&self) -> bool {
        !self.wanted_by().is_empty()
    }

    /// True if it is a socket.
    #[must_use]
    pub fn is_socket(&self) -> bool {
        self.name.ends_with(".socket")
    }

    /// True if it is a program that runs.
    #[must_use]
    pub fn is_service(&self) -> bool {
        self.name.ends_with(".service")
    }
}

/// True for the name of a unit of kai's.
#[must_use]
pub fn is_unit(name: &str) -> bool {
    (name.starts_with("kai-") || name.starts_with("kai."))
        && UNITS.iter().any(|suffix| name.ends_with(suffix))
}

impl Source {
    /// Reads and judges the directory at `path`: root's, or this account's, and nobody else's to write.
    ///
    /// # Errors
    /// What is wrong with it, and how to mend it.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let bad = |problem: String| Failure::Source {
            path: path.to_owned(),
            problem,
        };
        let text = TrustedFile::open(&path.join(VERSION), Trust::Configuration)
            .and_then(TrustedFile::read)
            .map_err(|problem| bad(problem.to_string()))?;
        let version = parse_version(&path.join(VERSION), &text)?;
        let mut programs = Vec::new();
        for name in OURS.into_iter().chain([SELF]) {
            let program = path.join(name);
            let found = fs::metadata(&program)
                .map_err(|error| bad(format!("{name} cannot be used: {error}")))?;
            if found.uid() != 0 && found.uid() != nix::unistd::geteuid().as_raw()
                || found.mode() & 0o022 != 0
            {
                return Err(bad(format!("{name} can be changed by others than root")));
            }
            programs.push(name.to_owned());
        }
        let read = |name: &str| -> Result<String, Failure> {
            TrustedFile::open(&path.join(name), Trust::Configuration)
                .and_then(TrustedFile::read)
                .map(|text| text.to_string())
                .map_err(|problem| bad(problem.to_string()))
        };
        let mut units = Vec::new();
        let listed = fs::read_dir(path.join("systemd"))
            .map_err(|error| bad(format!("systemd/ cannot be listed: {error}")))?;
        for entry in listed.flatten() {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if is_unit(&name) {
                let text = read(&format!("systemd/{name}"))?;
                units.push(Unit { name, text });
            }
        }
        units.sort_by(|a, b| a.name.cmp(&b.name));
        if units.is_empty() {
            return Err(bad("systemd/ has no unit of kai's".to_owned()));
        }
        let sysusers = "systemd/kai.sysusers";
        Ok(Self {
            version,
            programs,
            units,
            tmpfiles: read("systemd/kai.tmpfiles")?,
            sysusers: match path.join(sysusers).exists() {
                true => Some(read(sysusers)?),
                false => None,
            },
            sudoers: read("sudoers.d/kai")?,
            path: path.to_owned(),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads `version.yaml`.
///
/// # Errors
/// The first mistake in it.
pub fn parse_version(file: &Path, text: &str) -> Result<Version, Failure> {
    let mut map = Document::parse(file, text)?.into_map()?;
    let node = map.required("version")?;
    let name = node.text()?.to_owned();
    // It becomes the name of a directory beside `current`, `previous` and `agent`.
    let fits = name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_digit())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".+~-".contains(&b));
    if !fits {
        return Err(node
            .mistake("must begin with a digit, and have only letters, digits and . + ~ -")
            .into());
    }
    let authd_schema = map.required("authd_schema")?.number(1..=1_000_000)?;
    map.finish()?;
    Ok(Version { name, authd_schema })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checked_in_version_is_that_of_the_programs() {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(tree.join(VERSION)).unwrap();
        let schema = fs::read_to_string(tree.join("../authd/src/store/schema.rs")).unwrap();

        let version = parse_version(Path::new(VERSION), &text).unwrap();

        assert_eq!(version.name, env!("CARGO_PKG_VERSION"));
        let major = format!("pub const MAJOR: i64 = {};", version.authd_schema);
        assert!(schema.contains(&major), "{major}");
    }

    #[test]
    fn a_version_that_would_be_another_path_is_refused() {
        for name in ["../1", "current", "", "1/2", "1 2"] {
            let text = format!("version: '{name}'\nauthd_schema: 1\n");
            assert!(parse_version(Path::new("v"), &text).is_err(), "{name}");
        }
    }

    #[test]
    fn the_links_of_a_unit_are_those_of_its_install_section() {
        let unit = Unit {
            name: "kai-x.service".to_owned(),
            text: "[Service]\nExecStart=/x\n[Install]\nWantedBy=multi-user.target a.target\n"
                .to_owned(),
        };
        assert_eq!(
            unit.wanted_by(),
            [
                "multi-user.target.wants/kai-x.service",
                "a.target.wants/kai-x.service"
            ]
        );
    }
}
