//! What a daemon tells the service manager about itself (sd_notify(3)): that it is ready, that it is
//! alive, that it stops.
//!
//! Written here and not taken from a library, because the socket has to be made before a daemon gives up
//! making sockets, and libraries make one for each word.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    time::{Duration, Instant},
};

use tracing::warn;

/// The way to the service manager, if there is one.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    /// How often it wants to hear that the daemon is alive, and when that is due next.
    watchdog: Option<(Duration, Instant)>,
}

impl Notifier {
    /// Connects to the socket that the environment names; to be called before the process confines itself.
    ///
    /// # Errors
    /// If there is one and it cannot be reached: the manager would wait in vain.
    pub fn connect(now: Instant) -> io::Result<Self> {
        let Some(name) = env::var_os("NOTIFY_SOCKET") else {
            return Ok(Self {
                socket: None,
                watchdog: None,
            });
        };
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(&name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        // A manager that does not read must not hold a daemon up.
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: Some(socket),
            watchdog: interval().map(|every| (every, now + every)),
        })
    }

    /// All that the daemon needs is there, and it serves.
    pub fn ready(&self) {
        self.say("READY=1");
    }

    /// The daemon was told to stop, and does so, in this time at most.
    pub fn stopping(&self, within: Duration) {
        let within = within.as_micros();
        self.say(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={within}"));
    }

    /// When [`alive`](Self::alive) is to be called next; none if nobody waits for it.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.watchdog.map(|(_, due)| due)
    }

    /// Says that the daemon is alive, if that is due. To be called by the loop that does the work: one that
    /// hangs is to be noticed.
    pub fn alive(&mut self, now: Instant) {
        if let Some((every, due)) = &mut self.watchdog
            && now >= *due
        {
            *due = now + *every;
            self.say("WATCHDOG=1");
        }
    }

    fn say(&self, word: &str) {
        let said = self
            .socket
            .as_ref()
            .map(|socket| socket.send(word.as_bytes()));
        if let Some(Err(error)) = said {
            warn!("the service manager was not told {word}: {error}");
        }
    }
}

/// A third of the time after which the manager takes this process for dead: two words may be late.
fn interval() -> Option<Duration> {
    let number = |name: &str| -> Option<u64> { env::var(name).ok()?.parse().ok() };
    let mine = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
    let microseconds = number("WATCHDOG_USEC").filter(|_| mine)?;
    Some(Duration::from_micros(microseconds) / 3).filter(|every| !every.is_zero())
}
