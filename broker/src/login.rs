//! The agent's own login, for root's command `kai-broker login`: a worker like every other, started with a
//! terminal in the place of the gateway's connection.
//!
//! The daemon makes the terminal and gives its master away, right behind its answer; not a byte of it passes
//! here. What the command's connection is good for from then on is its end: when it closes, the login is
//! killed with all that it started. It runs beside the user's worker, in a cgroup of its own with the same
//! limits, and shares nothing with it but the account.

use std::{
    fs::File,
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use kai_proto::{
    admin_broker::{LoginEnd, Reply, State, TERMINAL},
    codec::shorten,
    connection::ConnectionError,
    ids::{TelegramId, UserName},
    limits,
};
use nix::{
    pty::openpty,
    sys::{
        socket::{ControlMessage, MsgFlags, sendmsg},
        stat::{Mode, fchmod},
    },
    unistd::Pid,
};
use tracing::{error, info};

use crate::{
    admin::Admin,
    attach::Work,
    audit,
    cgroups::Cgroup,
    daemon::{Daemon, Peer},
    launch::{self, Launched},
    sys,
    users::User,
};

/// Logins that run at once.
const MOST: usize = 8;
/// How long one may take: a forgotten one must not stand open for ever.
const LONGEST: Duration = Duration::from_secs(30 * 60);
/// How long the command may keep its connection once its login is over.
const GOODBYE: Duration = Duration::from_secs(5);

/// A login that runs.
#[derive(Debug)]
pub struct Login {
    peer: u64,
    admin: u32,
    user: TelegramId,
    name: UserName,
    pid: Pid,
    pidfd: OwnedFd,
    status: File,
    cgroup: Option<Cgroup>,
    /// Its launch asks whether the other end is gone.
    _control: OwnedFd,
    due: Instant,
    why: Option<LoginEnd>,
}

impl Login {
    /// The connection of the command that asked for it.
    pub(crate) fn peer(&self) -> u64 {
        self.peer
    }

    /// Readable when it has ended.
    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// When it has taken too long; none while it ends.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.why.is_none().then_some(self.due)
    }

    /// Kills it, and with it everything in its PID namespace. It stays in the list until it is reaped.
    fn kill(&mut self, why: LoginEnd) {
        self.why.get_or_insert(why);
        // ESRCH: it has ended by itself, and is about to be reaped.
        let _ = sys::kill(&self.pidfd);
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
    }
}

impl Daemon {
    /// Starts a login for the user of this name, or says why not. Whether it began or not, nothing more may
    /// be asked on this connection.
    ///
    /// # Errors
    /// Each ends the connection, and so the login.
    pub(crate) fn begin_login(
        &mut self,
        peer: &mut Peer<Admin>,
        name: &UserName,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        peer.state.state = State::LoggingIn;
        let admin = peer.state.uid;
        match self.start_login(peer.key, admin, name, now) {
            Ok(master) => {
                // Until it is over.
                peer.due = None;
                peer.connection.send(&Reply::LoginBegins)?;
                if peer.connection.has_unsent() {
                    return Err(ConnectionError::Stuck);
                }
                Ok(hand_over(peer.connection.as_fd(), &master)?)
            }
            Err(why) => {
                self.audit.note(&audit::login_refused(admin, name, &why));
                let why = shorten(why, limits::RELOAD_REASON);
                peer.connection.send(&Reply::LoginRefused(why))
            }
        }
    }

    /// Forks it, and gives its terminal's master. `admin.login` is on disk before there is a process, and
    /// `login.started` right after the fork; a login without that second line is ended.
    fn start_login(
        &mut self,
        peer: u64,
        admin: u32,
        name: &UserName,
        now: Instant,
    ) -> Result<OwnedFd, String> {
        let record = audit::login_asked(admin, name);
        self.audit.decide(&record).map_err(|why| why.to_string())?;
        let user = self.may_log_in(name)?.clone();
        let (master, slave) =
            terminal().map_err(|why| format!("no terminal can be made: {why}"))?;
        let launched = self
            .start_worker(&user, Work::Login(slave.as_fd()))
            .map_err(|why| why.to_string())?;
        let Launched {
            pid,
            pidfd,
            control,
            status,
            cgroup,
        } = launched;
        let recorded = self
            .audit
            .decide(&audit::login_started(&user, admin, pid.as_raw()));
        info!(user = %user.entry.name, pid = pid.as_raw(), "login forked");
        let mut login = Login {
            peer,
            admin,
            user: user.entry.id,
            name: user.entry.name,
            pid,
            pidfd,
            status,
            cgroup,
            _control: control,
            due: now + LONGEST,
            why: None,
        };
        if recorded.is_err() {
            login.kill(LoginEnd::NotRecorded);
        }
        self.logins.push(login);
        Ok(master)
    }

    /// The user of this name, if a login is of any use to them now.
    fn may_log_in(&self, name: &UserName) -> Result<&User, String> {
        let Some(user) = self.users.iter().find(|user| user.entry.name == *name) else {
            let names: Vec<_> = self
                .users
                .iter()
                .map(|user| user.entry.name.as_str())
                .collect();
            let names = match names.as_slice() {
                [] => "none".to_owned(),
                names => names.join(", "),
            };
            return Err(format!("users.yaml has no user `{name}`; it has {names}"));
        };
        if user.key_file.is_some() || self.config.agent.shared_key_file.is_some() {
            return Err(format!(
                "{name}'s agent is given a key by api_key_file and would not use a login; take the key out \
                 first"
            ));
        }
        if self.stopping {
            return Err("kai-brokerd is stopping; try again when it runs".to_owned());
        }
        if self.logins.iter().any(|login| login.user == user.entry.id) {
            return Err(format!(
                "a login for {name} runs already; end that one first"
            ));
        }
        if self.logins.len() >= MOST {
            return Err(format!("{MOST} logins run already; end one of them first"));
        }
        Ok(user)
    }

    /// Ends what took too long, and what nobody is behind any more.
    pub(crate) fn mind_logins(&mut self, now: Instant) {
        for login in &mut self.logins {
            if login.due().is_some_and(|due| now >= due) {
                login.kill(LoginEnd::TooLong);
            }
            if !self.admin.iter().any(|peer| peer.key == login.peer) {
                login.kill(LoginEnd::HungUp);
            }
        }
    }

    /// Ends the logins of these users.
    pub(crate) fn end_logins(&mut self, whose: impl Fn(TelegramId) -> bool, why: LoginEnd) {
        for login in &mut self.logins {
            if whose(login.user) {
                login.kill(why);
            }
        }
    }

    /// Reaps the login that this connection asked for, if it has ended, and says so there.
    pub(crate) fn reap_login(&mut self, peer: u64, now: Instant) {
        let Some(at) = self.logins.iter().position(|login| login.peer == peer) else {
            return;
        };
        let status = match sys::reap(self.logins[at].pid) {
            Ok(None) => return,
            Ok(Some(ended)) => ended.status,
            Err(problem) => {
                error!("cannot reap a login: {problem}");
                -1
            }
        };
        let mut login = self.logins.swap_remove(at);
        let why = login.why.unwrap_or(LoginEnd::ByItself);
        let pid = login.pid.as_raw();
        info!(pid, status, ?why, "login ended");
        self.audit.note(&audit::login_ended(
            (&login.name, login.user),
            login.admin,
            pid,
            (status, why),
        ));
        let reply = match launch::outcome(&mut login.status) {
            Some(Err(problem)) if login.why.is_none() => {
                error!(pid, "{problem}");
                Reply::LoginRefused(shorten(problem.to_string(), limits::RELOAD_REASON))
            }
            _ => Reply::LoginEnded { status, why },
        };
        if let Some(peer) = self.admin.iter_mut().find(|found| found.key == peer) {
            peer.due = Some(now + GOODBYE);
            // It may be gone.
            let _ = peer.connection.send(&reply);
        }
    }
}

/// A terminal of the host's, whose slave no other account may open.
fn terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    let made = openpty(None, None)?;
    // The host's group tty could write to it otherwise.
    fchmod(&made.slave, Mode::S_IRUSR | Mode::S_IWUSR)?;
    Ok((made.master, made.slave))
}

/// Sends the master along with its byte, without blocking: nothing else is in the socket.
fn hand_over(to: BorrowedFd<'_>, master: &OwnedFd) -> io::Result<()> {
    let descriptors = [master.as_raw_fd()];
    sendmsg::<()>(
        to.as_raw_fd(),
        &[IoSlice::new(&[TERMINAL])],
        &[ControlMessage::ScmRights(&descriptors)],
        MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}
