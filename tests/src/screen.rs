//! A terminal of the test's own, with a command on it.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    pty::{Winsize, openpty},
    sys::{
        signal::{Signal, kill},
        termios::{Termios, tcgetattr},
    },
    unistd::{Pid, setsid},
};

use crate::PATIENCE;

/// A command on a terminal, whose screen is what the command has written.
#[derive(Debug)]
pub struct Screen {
    master: File,
    // Keeps the terminal while nobody else has it open.
    _slave: OwnedFd,
    child: Child,
    shown: Vec<u8>,
}

impl Screen {
    /// Starts `command` on a new terminal of so many rows and columns, which controls it.
    ///
    /// # Panics
    /// If that cannot be.
    #[must_use]
    #[allow(clippy::unwrap_used, unsafe_code)]
    pub fn start(command: &mut Command, (rows, columns): (u16, u16)) -> Self {
        let size = size(rows, columns);
        let made = openpty(&size, None).unwrap();
        for end in [&made.master, &made.slave] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        }
        fcntl(&made.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let stream = || Stdio::from(made.slave.try_clone().unwrap());
        command.stdin(stream()).stdout(stream()).stderr(stream());
        let own = || {
            setsid()?;
            // As sudo(8) does: nothing else is inherited.
            // SAFETY: touches flags of descriptors alone.
            unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) };
            // SAFETY: TIOCSCTTY takes no pointer.
            match unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } {
                -1 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            }
        };
        // SAFETY: calls of the kernel, which are safe between fork and exec.
        unsafe { command.pre_exec(own) };
        let child = command.spawn().unwrap();
        // Its copies of the slave would keep the terminal.
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null());
        Self {
            master: File::from(made.master),
            _slave: made.slave,
            child,
            shown: Vec::new(),
        }
    }

    /// The command's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the terminal is set to.
    ///
    /// # Panics
    /// If it is gone.
    #[must_use]
    #[allow(clippy::unwrap_used)]
    pub fn settings(&self) -> Termios {
        tcgetattr(&self.master).unwrap()
    }

    /// Types.
    ///
    /// # Panics
    /// If the terminal takes nothing.
    #[allow(clippy::unwrap_used)]
    pub fn type_in(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Gives the terminal another size, of which the command is told.
    ///
    /// # Panics
    /// If the terminal is gone.
    #[allow(unsafe_code)]
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = size(rows, columns);
        // SAFETY: TIOCSWINSZ reads one winsize, which outlives the call.
        let done =
            unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(done, 0);
    }

    /// Reads what is there now, at most for so long.
    pub fn look(&mut self, within: Duration) -> &[u8] {
        let due = Instant::now() + within;
        let mut chunk = vec![0; 64 * 1024];
        loop {
            let left = due.saturating_duration_since(Instant::now()).as_millis();
            let mut polled = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut polled, timeout) {
                Ok(1..) => match self.master.read(&mut chunk) {
                    Ok(read @ 1..) => self.shown.extend_from_slice(&chunk[..read]),
                    _ => return &self.shown,
                },
                _ => return &self.shown,
            }
            if left == 0 {
                return &self.shown;
            }
        }
    }

    /// Everything that was shown.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown).into_owned()
    }

    /// Waits until `words` were shown, and gives what was shown since the last call, up to them.
    ///
    /// # Panics
    /// If they are not in [`PATIENCE`], with all that was.
    #[allow(clippy::panic)]
    pub fn wait_for(&mut self, words: &str) -> String {
        let due = Instant::now() + PATIENCE;
        loop {
            let text = self.text();
            if let Some(at) = text.find(words) {
                let end = at + words.len();
                let seen = text[..end].to_owned();
                self.shown = text.as_bytes()[end..].to_vec();
                return seen;
            }
            if Instant::now() > due {
                panic!("no {words:?} in {text:?}");
            }
            self.look(Duration::from_millis(20));
        }
    }

    /// Sends the command a signal.
    ///
    /// # Panics
    /// If it is gone.
    #[allow(clippy::unwrap_used)]
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Waits for the command's end.
    ///
    /// # Panics
    /// If it does not end in [`PATIENCE`].
    #[allow(clippy::unwrap_used, clippy::panic)]
    pub fn end(&mut self) -> ExitStatus {
        let due = Instant::now() + PATIENCE;
        loop {
            self.look(Duration::from_millis(10));
            if let Some(status) = self.child.try_wait().unwrap() {
                self.look(Duration::ZERO);
                return status;
            }
            if Instant::now() > due {
                panic!("does not end; shown: {:?}", self.text());
            }
        }
    }

    /// The terminal goes away, as when a connection breaks. Gives the command.
    #[must_use]
    pub fn hang_up(self) -> HungUp {
        let Self { master, child, .. } = self;
        drop(master);
        HungUp(child)
    }
}

/// A command whose terminal is gone.
#[derive(Debug)]
pub struct HungUp(Child);

impl HungUp {
    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end in [`PATIENCE`].
    #[allow(clippy::unwrap_used, clippy::panic)]
    pub fn end(mut self) -> ExitStatus {
        let due = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > due {
                let _ = self.0.kill();
                panic!("does not end without its terminal");
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
