//! Secrets that systemd keeps encrypted for one host and decrypts for one unit: systemd-creds(1), which
//! systemd has from version 250 on. What is secret goes through pipes alone.

use std::{
    mem,
    path::{Path, PathBuf},
};

use nix::sys::{
    statfs::{self, FsType, TMPFS_MAGIC},
    statvfs::{FsFlags, statvfs},
};
use zeroize::Zeroizing;

use crate::{failure::Failure, tools};

const PROGRAM: &str = "systemd-creds";
/// Where systemd keeps the host's key, which it makes when it is first used. It stays when kai goes.
const KEY: &str = "/var/lib/systemd/credential.secret";
/// A file system in memory (linux/magic.h).
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// What a secret is encrypted with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    /// This host's: its TPM's, that in its file, or both together, as systemd-creds(1) finds it.
    Host,
    /// The one in this file, which is made if it is not there.
    File(PathBuf),
}

impl Keys {
    /// This host's, if its systemd can encrypt and has a key or could make one. Nothing is changed.
    #[must_use]
    pub fn of_the_host() -> Option<Self> {
        tools::find(PROGRAM)?;
        let key = Path::new(KEY);
        let has_key = key.exists() || key.parent().is_some_and(is_lasting) || has_tpm();
        has_key.then_some(Self::Host)
    }

    /// Encrypts `secret` so that systemd takes it for the credential `name`, and no other.
    ///
    /// # Errors
    /// [`Failure::Tool`] with what systemd-creds(1) said.
    pub fn encrypt(&self, name: &str, secret: &str) -> Result<String, Failure> {
        let name = format!("--name={name}");
        // To no state of the boot: an update of the firmware would lock the secret away.
        let words = ["encrypt", &name, "--tpm2-pcrs=", "-", "-"];
        self.run(&words, secret)
            .map(|encrypted| encrypted.to_string())
    }

    /// What [`encrypt`](Self::encrypt) was given.
    ///
    /// # Errors
    /// [`Failure::Tool`] with what systemd-creds(1) said.
    pub fn decrypt(&self, name: &str, encrypted: &str) -> Result<Zeroizing<String>, Failure> {
        let name = format!("--name={name}");
        self.run(&["decrypt", &name, "-", "-"], encrypted)
    }

    fn run(&self, words: &[&str], input: &str) -> Result<Zeroizing<String>, Failure> {
        let failed = |said: String| Failure::Tool {
            program: format!("{PROGRAM} {}", words.join(" ")),
            said,
        };
        let program = tools::find(PROGRAM)
            .ok_or_else(|| failed("there is no such program; systemd has it from 250 on".into()))?;
        let mut command = tools::command(program);
        if let Self::File(key) = self {
            command.env("SYSTEMD_CREDENTIAL_SECRET", key);
        }
        let mut output = tools::output(command.args(words), Some(input.as_bytes()))
            .map_err(|error| failed(error.to_string()))?;
        let answer = Zeroizing::new(mem::take(&mut output.stdout));
        if !output.status.success() {
            return Err(failed(tools::last_line(&output)));
        }
        match std::str::from_utf8(&answer) {
            Ok(text) => Ok(Zeroizing::new(text.to_owned())),
            Err(_) => Err(failed("it is no text".to_owned())),
        }
    }
}

/// True if a key that is made there is still there after the next boot.
fn is_lasting(directory: &Path) -> bool {
    let (Ok(system), Ok(flags)) = (statfs::statfs(directory), statvfs(directory)) else {
        return false;
    };
    ![TMPFS_MAGIC, RAMFS_MAGIC].contains(&system.filesystem_type())
        && !flags.flags().contains(FsFlags::ST_RDONLY)
}

fn has_tpm() -> bool {
    tools::run(PROGRAM, &["has-tpm2", "--quiet"], None).is_ok()
}
