//! `kai-install config`: asks where there is a terminal, and takes flags or a file where there is none.

use std::{
    io::{self, BufRead, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use kai_proto::ids::{AccountName, Role, UserName};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::{
    DEFAULT, Settings, Token, User,
    interview::{Answers, Judges, interview, telegram_id},
    is_address,
    prove::{Proof, TELEGRAM, prove},
};
use crate::{
    accounts::Accounts,
    failure::Failure,
    items::{secrets::TOKEN, token::ENCRYPTED},
    root::{Access, Root},
};

/// Longest token that is read.
const LONGEST: u64 = 4096;

/// What `config` is told.
#[derive(Debug, Args)]
pub struct Config {
    /// The file that is written, and that gives the defaults if it is there.
    #[arg(long, value_name = "FILE", default_value = DEFAULT)]
    pub file: PathBuf,
    /// Take everything from this file, which has the form of install.yaml.
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// Read the bot's token from this file; - is standard input.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// A Bot API server other than Telegram's own.
    #[arg(long, value_name = "URL")]
    pub api_url: Option<String>,
    /// The agent's program and its leading arguments.
    #[arg(long, value_name = "WORDS", num_args = 1.., value_delimiter = ' ')]
    pub agent_command: Option<Vec<String>>,
    /// A Messages API other than the agent's own.
    #[arg(long, value_name = "URL")]
    pub base_url: Option<String>,
    /// A user to begin with: ID:ACCOUNT, ID:ACCOUNT:NAME or ID:ACCOUNT:NAME:admin. Once for each.
    #[arg(long, value_name = "USER")]
    pub user: Vec<String>,
    /// Make the accounts of these users if they do not exist, closed to people.
    #[arg(long)]
    pub create_accounts: bool,
    /// An account that may look at kai with sudo. Once for each.
    #[arg(long, value_name = "ACCOUNT")]
    pub admin: Vec<String>,
    /// Do not ask the Bot API about the token.
    #[arg(long)]
    pub offline: bool,
}

impl Config {
    /// True if a flag says what shall be, so that nothing is asked.
    fn says_something(&self) -> bool {
        self.from.is_some()
            || self.token_file.is_some()
            || self.api_url.is_some()
            || self.agent_command.is_some()
            || self.base_url.is_some()
            || !self.user.is_empty()
            || !self.admin.is_empty()
    }
}

/// Carries `config` out.
///
/// # Errors
/// The first thing that is wrong; nothing is written then.
pub fn run(asked: &Config) -> Result<ExitCode, Failure> {
    let root = Root::host()?;
    let file = std::path::absolute(&asked.file).map_err(|error| Failure::io(&asked.file, error))?;
    let mut settings = match (&asked.from, root.look(&file)?) {
        (Some(from), _) => Settings::load(from)?,
        (None, Some(_)) => Settings::load(&file)?,
        (None, None) => Settings::default(),
    };
    let accounts = Accounts::of(&root);
    if !asked.says_something() && io::stdin().is_terminal() && io::stdout().is_terminal() {
        let judges = Judges {
            token: &|token, settings| proof(asked, token, settings),
            account: &|name| accounts.can_host(name),
            has_token: file == Path::new(DEFAULT)
                && [TOKEN, ENCRYPTED]
                    .iter()
                    .any(|path| matches!(root.look(path.as_ref()), Ok(Some(_)))),
            is_made: &|name| accounts.is_kai_s_to_make(name).unwrap_or(false),
        };
        settings = interview(&settings, &judges, &mut Terminal).map_err(Failure::Interview)?;
    } else {
        if !asked.says_something() {
            return Err(Failure::Flag {
                flag: "from",
                problem: "there is no terminal to ask at; give everything by flags, or in a file"
                    .to_owned(),
            });
        }
        take_flags(asked, &accounts, &mut settings)?;
        if let Some(token) = &settings.token {
            match proof(asked, token, &settings) {
                Proof::Known(name) => say(&format!("the token is that of @{name}"))?,
                Proof::Unknown(why) => say(&format!("the token cannot be checked: {why}"))?,
                Proof::Refused => return Err(Failure::TokenRefused),
            }
        }
    }
    // What was put together from several places is judged as a whole.
    Settings::parse(&file, &settings.render())?;
    let me = Access {
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
        mode: 0o600,
    };
    if file == Path::new(DEFAULT)
        && let Some(directory) = file.parent()
        && root.look(directory)?.is_none()
    {
        root.make_directory(directory, Access::root(0o755))?;
    }
    root.write(&file, &mut settings.render().as_bytes(), me)?;
    say(&format!(
        "wrote {}; next: sudo kai-install apply",
        file.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn proof(asked: &Config, token: &Token, settings: &Settings) -> Proof {
    if asked.offline {
        return Proof::Unknown("it was not to be asked about");
    }
    prove(token, settings.api_url.as_deref().unwrap_or(TELEGRAM))
}

fn take_flags(
    asked: &Config,
    accounts: &Accounts<'_>,
    settings: &mut Settings,
) -> Result<(), Failure> {
    let bad = |flag: &'static str, problem: &str| Failure::Flag {
        flag,
        problem: problem.to_owned(),
    };
    if let Some(file) = &asked.token_file {
        settings.token = Some(read_token(file)?);
    }
    for (flag, given, place) in [
        ("api-url", &asked.api_url, &mut settings.api_url),
        ("base-url", &asked.base_url, &mut settings.base_url),
    ] {
        if let Some(url) = given {
            if !is_address(url) {
                return Err(bad(
                    flag,
                    "must be an http:// or https:// address without credentials",
                ));
            }
            *place = Some(url.clone());
        }
    }
    if let Some(words) = &asked.agent_command {
        if !words.first().is_some_and(|word| word.starts_with('/')) {
            return Err(bad("agent-command", "must begin with an absolute path"));
        }
        settings.agent_command = Some(words.clone());
    }
    for text in &asked.user {
        let user = user(text, asked.create_accounts, accounts)?;
        settings
            .users
            .retain(|known| known.telegram_id != user.telegram_id && known.os_user != user.os_user);
        settings.users.push(user);
    }
    if !asked.admin.is_empty() {
        settings.admins = asked
            .admin
            .iter()
            .map(|name| AccountName::try_from(name.clone()))
            .collect::<Result<_, _>>()
            .map_err(|invalid| bad("admin", &invalid.to_string()))?;
    }
    Ok(())
}

fn user(text: &str, create: bool, accounts: &Accounts<'_>) -> Result<User, Failure> {
    let bad = |problem: String| Failure::Flag {
        flag: "user",
        problem,
    };
    let form = || bad("must have the form ID:ACCOUNT[:NAME[:admin]]".to_owned());
    let mut parts = text.split(':');
    let telegram_id = parts.next().and_then(telegram_id).ok_or_else(form)?;
    let os_user = parts.next().ok_or_else(form)?;
    let name = parts.next().unwrap_or(os_user);
    let role = match parts.next() {
        None | Some("user") => Role::User,
        Some("admin") => Role::Admin,
        Some(_) => return Err(form()),
    };
    if parts.next().is_some() {
        return Err(form());
    }
    let os_user =
        AccountName::try_from(os_user.to_owned()).map_err(|invalid| bad(invalid.to_string()))?;
    let exists = accounts
        .can_host(&os_user)
        .map_err(|why| Failure::UnfitAccount {
            account: os_user.clone(),
            why,
        })?;
    if !exists && !create {
        return Err(bad(format!(
            "there is no account {os_user}; add --create-accounts to have it made"
        )));
    }
    Ok(User {
        telegram_id,
        name: UserName::try_from(name.to_owned()).map_err(|invalid| bad(invalid.to_string()))?,
        create: accounts.is_kai_s_to_make(&os_user)?,
        os_user,
        role,
        uid: None,
    })
}

fn read_token(file: &Path) -> Result<Token, Failure> {
    let mut text = Zeroizing::new(String::with_capacity(LONGEST as usize));
    let read = if file == Path::new("-") {
        io::stdin().lock().take(LONGEST).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(LONGEST).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::io(file, error))?;
    Token::parse(&text)
}

fn say(text: &str) -> Result<(), Failure> {
    writeln!(io::stdout(), "{text}").map_err(|error| Failure::io("standard output", error))
}

/// The terminal of whoever runs this.
struct Terminal;

impl Terminal {
    fn line(&self) -> io::Result<Zeroizing<String>> {
        let mut line = Zeroizing::new(String::with_capacity(LONGEST as usize));
        match io::stdin().lock().take(LONGEST).read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line),
        }
    }
}

impl Answers for Terminal {
    fn say(&mut self, text: &str) -> io::Result<()> {
        writeln!(io::stdout(), "{text}")
    }

    fn ask(&mut self, question: &str) -> io::Result<String> {
        write!(io::stdout(), "{question}")?;
        io::stdout().flush()?;
        self.line().map(|line| line.trim().to_owned())
    }

    fn ask_secretly(&mut self, question: &str) -> io::Result<Zeroizing<String>> {
        let shown = tcgetattr(io::stdin())?;
        let mut hidden = shown.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        hidden.local_flags.insert(LocalFlags::ECHONL);
        // Before the question: who answers quickly is not shown either.
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &hidden)?;
        let line = write!(io::stdout(), "{question}")
            .and_then(|()| io::stdout().flush())
            .and_then(|()| self.line());
        tcsetattr(io::stdin(), SetArg::TCSANOW, &shown)?;
        line
    }
}
