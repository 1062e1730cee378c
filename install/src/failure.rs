//! Why a command did not do what it was asked: one sentence that says what, and how to mend it.

use std::{io, path::PathBuf};

use kai_program::{config::ConfigError, trusted_file::Distrust, yaml::Mistake};
use kai_proto::ids::AccountName;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Only root may change the host.
    #[error("only root may do this; run it with sudo")]
    NotRoot,
    /// A file of settings cannot be trusted or read.
    #[error(transparent)]
    Distrust(#[from] Distrust),
    /// A file of settings says something that has no meaning.
    #[error(transparent)]
    Mistake(#[from] Mistake),
    /// kai.yaml cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A text is no bot's token.
    #[error(
        "this is not a bot's token of the form NUMBER:LETTERS; copy the line that @BotFather gave"
    )]
    TokenForm,
    /// The Bot API does not know a token.
    #[error("Telegram does not know this bot's token; copy it again from @BotFather")]
    TokenRefused,
    /// There is no token anywhere.
    #[error("there is no bot's token; give it with: kai-install config --token-file FILE")]
    NoToken,
    /// A flag cannot be used as it was given.
    #[error("--{flag}: {problem}")]
    Flag {
        /// Which.
        flag: &'static str,
        /// What is wrong with it, and how it should be.
        problem: String,
    },
    /// A file or directory cannot be used.
    #[error("{path}: {}", said(error))]
    Io {
        /// Which.
        path: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
    /// The disk is full.
    #[error("{path}: no space is left there, {needed} MiB are needed; make room and run it again")]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// How much must be free, in MiB.
        needed: u64,
    },
    /// A link stands where another account could have put it.
    #[error(
        "{0}: is a link that another account than root could have made; put what it leads to in its place"
    )]
    Link(PathBuf),
    /// A directory on the way belongs to somebody else.
    #[error(
        "{path}: belongs to uid {owner}, who could change all below it; if it is to be root's: chown root {path}; \
         otherwise name another place"
    )]
    ForeignDirectory {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// Something else stands where a file or directory must be.
    #[error("{path}: is not a {wanted}; look at what it is, and move it away")]
    NotA {
        /// Which.
        path: PathBuf,
        /// What must be there.
        wanted: &'static str,
    },
    /// A secret is somebody else's, or open to them.
    #[error(
        "{path}: has owner {owner} and mode {mode:04o}, so other accounts may know or have changed it; \
         if you trust it: chown {wanted_owner} {path} && chmod {wanted:04o} {path}"
    )]
    ForeignSecret {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Its mode.
        mode: u32,
        /// Whose it should be, as chown(1) takes it.
        wanted_owner: String,
        /// What its mode should be.
        wanted: u32,
    },
    /// An encrypted secret is not this host's.
    #[error(
        "{path}: cannot be decrypted on this host, as if it came from another one ({problem}); give the token \
         again: kai-install config --token-file FILE, then kai-install apply"
    )]
    Undecryptable {
        /// Which.
        path: PathBuf,
        /// What was said.
        problem: Box<Failure>,
    },
    /// A secret has no use as it is.
    #[error("{path}: {problem}")]
    Secret {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: Box<Failure>,
    },
    /// Two files say different things.
    #[error("install.yaml and kai.yaml say different things for `{key}`; change one of them")]
    Conflict {
        /// About what.
        key: &'static str,
    },
    /// authd's database was there and is gone.
    #[error(
        "{0}: is gone, and with it who has a second factor; bring a copy back with `kai-auth init --restore FILE`, \
         or begin with nobody enrolled with `kai-auth init`"
    )]
    LostDatabase(PathBuf),
    /// A home belongs to another account than that it is the home of.
    #[error(
        "{path}: belongs to uid {owner} and is to be the home of {account}; name another account, or move it away"
    )]
    ForeignHome {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose it should be.
        account: AccountName,
    },
    /// A program of the host cannot be run, or fails.
    #[error("{program}: {said}")]
    Tool {
        /// Which, with its arguments.
        program: String,
        /// What it said.
        said: String,
    },
    /// The directory with kai's programs is not one.
    #[error("{path}: {problem}; install kai's package, or name its files with --source DIR")]
    Source {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// An account of the settings is not there.
    #[error(
        "there is no account {0}; make it with: useradd --create-home {0}, or have kai make it: create: true"
    )]
    NoAccount(AccountName),
    /// An account may not host an agent.
    #[error("the account {account} cannot be used: os_user {why}")]
    UnfitAccount {
        /// Which.
        account: AccountName,
        /// Why, as the broker would say it.
        why: String,
    },
    /// An account that kai would close is a person's.
    #[error(
        "there is an account {0} already, which kai did not make and will not close; leave `create` out to let \
         its agent run under it, or name another account"
    )]
    NotMadeByKai(AccountName),
    /// A group that an account would get is others'.
    #[error(
        "there is a group {0} already, which is the host's or has others in it; name another account, or remove \
         the group"
    )]
    TakenGroup(AccountName),
    /// A uid is another account's.
    #[error(
        "uid {uid}, which {account} shall have, is that of {other}; give another `uid`, or none"
    )]
    TakenUid {
        /// Which.
        uid: u32,
        /// Who shall have it.
        account: AccountName,
        /// Who has it.
        other: String,
    },
    /// The host lacks what kai needs.
    #[error("{name}: {found}; mend it: {mend}")]
    Host {
        /// What.
        name: String,
        /// What was found.
        found: String,
        /// What to do about it.
        mend: String,
    },
    /// systemd is not what runs this host.
    #[error(
        "systemd does not run here; boot the host with it, or use --root DIR to prepare a tree"
    )]
    NoSystemd,
    /// A unit does not start, or does not stay.
    #[error("{unit} does not run ({state}); see why: journalctl -u {unit} -n 20{after}")]
    Unit {
        /// Which.
        unit: String,
        /// As systemd has it.
        state: String,
        /// What was done about it.
        after: String,
    },
    /// Another kai-install is at work.
    #[error("another kai-install changes this host; wait until it is done")]
    Busy,
    /// A change of many failed.
    #[error("{problem}\n{done}")]
    HalfWay {
        /// What failed.
        problem: Box<Failure>,
        /// What was done before, and what to do now.
        done: String,
    },
    /// What was just brought about is not there.
    #[error("{thing}: {still}, although it was just changed; does something else change it?")]
    Stays {
        /// What.
        thing: String,
        /// How it stands.
        still: String,
    },
    /// There is no version to go back to.
    #[error("there is no version before this one to go back to")]
    NoPrevious,
    /// The older version cannot read the newer one's database.
    #[error(
        "{from} cannot be left for {to}: its kai-authd does not know the tables that the database now has; \
         what leads back is a copy that {to} made: kai-install uninstall --purge, install {to}'s package, and restore \
         the copy as README.md says"
    )]
    Schema {
        /// The version that runs.
        from: String,
        /// The version before.
        to: String,
    },
    /// The agent cannot be installed.
    #[error("the agent is not installed: {0}")]
    Agent(String),
    /// users.yaml cannot be edited.
    #[error("{0}")]
    Users(String),
    /// What was there before cannot be brought over.
    #[error("{0}")]
    Migrate(String),
    /// A question cannot be asked.
    #[error("the questions ended before all was known ({0}); nothing was written")]
    Interview(io::Error),
}

/// What the kernel says, with the mend where there is only one.
fn said(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "no space is left there; make room and run it again".to_owned()
        }
        _ => error.to_string(),
    }
}

impl Failure {
    /// An error of the kernel's about `path`.
    pub fn io(path: impl Into<PathBuf>, error: impl Into<io::Error>) -> Self {
        Self::Io {
            path: path.into(),
            error: error.into(),
        }
    }

    /// True if only root could have seen more.
    #[must_use]
    pub fn needs_root(&self) -> bool {
        let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        match self {
            Self::NotRoot => true,
            Self::Io { error, .. } | Self::Distrust(Distrust::Io { error, .. }) => denied(error),
            _ => false,
        }
    }
}
