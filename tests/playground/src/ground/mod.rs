//! A whole second kai in a directory of its own: accounts, configuration and the real programs.
//!
//! The playground shows it to people, the tests take it apart. As root it separates as an installed
//! kai does: accounts for the gateway and each person, made for this run and removed after it, and the
//! broker that launches workers under them. Without root everything runs under one account, the
//! broker's place is taken by [`crate::launcher`], and what that leaves open is in
//! [`Ground::not_separated`].
//!
//! Everything is written down before it is made ([`record`]), removed when a [`Ground`] is dropped, and
//! otherwise at the next one's start.

pub mod accounts;
mod answers;
mod control;
mod layout;
mod make;
mod options;
mod people;
pub mod programs;
mod record;
mod removal;
pub mod status;
pub mod supervisor;

use std::{
    io,
    os::unix::fs::chown,
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;

use self::{
    accounts::Account, layout::Layout, programs::Programs, removal::Made, supervisor::Supervisor,
};
pub use self::{
    options::{Agent, Names, Options, Person},
    removal::{Emergency, clean_up},
    supervisor::Daemon,
};

/// Why there is no ground, or why it is of no use.
#[derive(Debug, thiserror::Error)]
pub enum GroundError {
    /// A program is missing or could not be built.
    #[error("{0}")]
    Programs(String),
    /// Accounts could not be made or removed.
    #[error("{0}")]
    Accounts(String),
    /// A file or directory could not be made.
    #[error("{what}: {error}")]
    Files {
        /// What was to be done.
        what: String,
        /// What the kernel says.
        error: io::Error,
    },
    /// A daemon does not do what it should.
    #[error("{0}")]
    Daemon(String),
    /// There is nobody, or nothing, of that name.
    #[error("{0}")]
    Nobody(String),
}

/// Whether each person has an account of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Separation {
    /// As on an installed host.
    Accounts,
    /// Everything runs under the account of whoever started this.
    OneAccount,
}

/// A second kai. Dropping it ends its processes and removes what was made for it.
#[derive(Debug)]
pub struct Ground {
    layout: Layout,
    separation: Separation,
    people: Vec<Person>,
    accounts: Vec<Account>,
    gateway: Account,
    restarts: bool,
    // In this order: the daemons end before what they use is removed.
    supervisor: Supervisor,
    made: Made,
}

impl Ground {
    /// Makes accounts, directories and configuration, and starts no daemon. Removes first what runs
    /// that were killed left behind. Under `cargo test` it builds the programs first, once.
    ///
    /// # Errors
    /// One sentence that says what is in the way.
    pub fn new(options: &Options) -> Result<Self, GroundError> {
        programs::build_once(true)?;
        let programs = Programs::locate()?;
        Self::with_programs(options, &programs)
    }

    /// As [`new`](Self::new), with programs from another place.
    ///
    /// # Errors
    /// One sentence that says what is in the way.
    pub fn with_programs(options: &Options, programs: &Programs) -> Result<Self, GroundError> {
        let separation = separation();
        removal::clean_up()?;
        let id = make::unique_id();
        let mut made = Made::begin(separation, &id)?;
        let layout = Layout::new(removal::root(separation, &id));
        let parts = make::prepare(options, programs, separation, &layout, &mut made)?;
        let ground = Self::of_parts(options, separation, layout, made, parts)?;
        // Once, and never by the daemon: a missing database is a lost one.
        ground.auth_command(&["init"])?;
        Ok(ground)
    }

    fn of_parts(
        options: &Options,
        separation: Separation,
        layout: Layout,
        made: Made,
        parts: people::Parts,
    ) -> Result<Self, GroundError> {
        let supervisor = Supervisor::new(make::plans(&layout, separation, &parts.gateway, options))
            .map_err(files("cannot start a thread"))?;
        Ok(Self {
            layout,
            separation,
            people: options.people.clone(),
            accounts: parts.people,
            gateway: parts.gateway,
            restarts: options.restarts,
            supervisor,
            made,
        })
    }

    /// Writes users.yaml anew with these of the people; they keep their accounts. The broker takes it
    /// at its next reload.
    ///
    /// # Errors
    /// If somebody has no account here, or the file cannot be written.
    pub fn write_users(&self, people: &[Person]) -> Result<(), GroundError> {
        let mut accounts = Vec::new();
        for person in people {
            accounts.push(self.account(&person.name)?.clone());
        }
        self.layout
            .write_users(people, &accounts, self.separation)
            .map_err(files("cannot write users.yaml"))
    }

    /// The account of the person called `name`.
    ///
    /// # Errors
    /// If nobody is called so.
    pub fn account(&self, name: &str) -> Result<&Account, GroundError> {
        self.people
            .iter()
            .position(|person| person.name == name)
            .and_then(|index| self.accounts.get(index))
            .ok_or_else(|| GroundError::Nobody(format!("nobody is called {name}")))
    }

    /// The account of the gateway.
    #[must_use]
    pub fn gateway_account(&self) -> &Account {
        &self.gateway
    }

    /// Where the worker of the person called `name` keeps its state.
    ///
    /// # Errors
    /// If nobody is called so.
    pub fn user_state(&self, name: &str) -> Result<PathBuf, GroundError> {
        let account = self.account(name)?;
        let directory = match self.separation {
            Separation::Accounts => account.name.as_str(),
            Separation::OneAccount => name,
        };
        Ok(self.layout.state().join("users").join(directory))
    }

    /// Writes a file that belongs to the person called `name` into their home, for them alone.
    ///
    /// # Errors
    /// If nobody is called so, or what the file system answers.
    pub fn write_in_home(
        &self,
        name: &str,
        file: &str,
        text: &str,
    ) -> Result<PathBuf, GroundError> {
        let account = self.account(name)?;
        let path = account.home.join(file);
        layout::write(&path, 0o600, text)
            .and_then(|()| chown(&path, Some(account.uid), Some(account.gid)))
            .map_err(files("cannot write into a home"))?;
        Ok(path)
    }

    /// The one directory that all of this ground is in.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.layout.root()
    }

    /// Its `kai.yaml`.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.layout.config()
    }

    /// The directory of its sockets.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.layout.run()
    }

    /// The directory of its state.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.layout.state()
    }

    /// The directory of its programs.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        self.layout.programs()
    }

    /// Whether each person has an account of their own.
    #[must_use]
    pub fn separation(&self) -> Separation {
        self.separation
    }

    /// What is not separated here and would be on an installed host, one sentence each.
    #[must_use]
    pub fn not_separated(&self) -> &'static [&'static str] {
        match self.separation {
            Separation::Accounts => &[],
            Separation::OneAccount => crate::launcher::NOT_SEPARATED,
        }
    }

    /// What a panic hook needs to clean up where nothing is dropped any more.
    #[must_use]
    pub fn emergency(&self) -> Emergency {
        self.made.emergency()
    }
}

/// Whether this process may make accounts.
#[must_use]
pub fn separation() -> Separation {
    if geteuid().is_root() {
        Separation::Accounts
    } else {
        Separation::OneAccount
    }
}

fn files(what: &str) -> impl FnOnce(io::Error) -> GroundError + use<> {
    let what = what.to_owned();
    move |error| GroundError::Files { what, error }
}
