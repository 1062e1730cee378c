//! The admin's terminal: opened anew, raw while the login runs, and as it was afterwards.

use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
    panic,
    sync::Mutex,
};

use nix::{
    fcntl::OFlag,
    sys::termios::{FlushArg, SetArg, Termios, cfmakeraw, tcflush, tcgetattr, tcsetattr},
};

use super::LoginError;

/// The window's title is kept (xterm's CSI 22 t), and what follows, up to [`TITLE_ENDS`], is shown for it. Terminals
/// without titles drop both.
const TITLE_BEGINS: &str = "\x1b[22;2t\x1b]2;";
/// The end of a title.
const TITLE_ENDS: &str = "\x1b\\";

/// The title gone, or as it was kept, colours off, cursor shown, and whatever follows begins a line.
const AS_IT_WAS: &[u8] = b"\x1b]2;\x1b\\\x1b[23;2t\x1b[0m\x1b[?25h\r\n";

/// The terminal that this command was started on.
#[derive(Debug)]
pub struct Terminal {
    file: File,
    found: Termios,
}

impl Terminal {
    /// Opens it a second time: not to wait for it is then this command's own matter, and not that of whoever
    /// shares the first.
    ///
    /// # Errors
    /// [`LoginError::NoTerminal`], and what open(2) answers.
    pub fn of_this_command() -> Result<Self, LoginError> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Err(LoginError::NoTerminal);
        }
        let own = OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(own.bits())
            .open("/proc/self/fd/0")
            .map_err(LoginError::Terminal)?;
        let found = tcgetattr(&file).map_err(|error| LoginError::Terminal(error.into()))?;
        Ok(Self { file, found })
    }

    /// Every key goes to the agent, Ctrl-C too, until what this gives is dropped, or the process panics. Its
    /// window has `title` meanwhile, which no agent can write.
    ///
    /// # Errors
    /// What tcsetattr(3) answers.
    pub fn make_raw(&self, title: &str) -> io::Result<Raw<'_>> {
        let (file, found) = (self.file.try_clone()?, Mutex::new(self.found.clone()));
        let usual = panic::take_hook();
        // A panic aborts where nothing is unwound, and drops nothing.
        panic::set_hook(Box::new(move |why| {
            if let Ok(found) = found.lock() {
                restore(&file, &found);
            }
            usual(why);
        }));
        let mut raw = self.found.clone();
        cfmakeraw(&mut raw);
        let made = Raw(self);
        tcsetattr(&self.file, SetArg::TCSANOW, &raw)?;
        let _ = write!(&self.file, "{TITLE_BEGINS}{title}{TITLE_ENDS}");
        Ok(made)
    }
}

/// The terminal while it is raw.
#[derive(Debug)]
pub struct Raw<'a>(&'a Terminal);

impl Raw<'_> {
    /// For its bytes, which are read and written without waiting.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.0.file
    }
}

impl AsFd for Raw<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        restore(&self.0.file, &self.0.found);
    }
}

/// Does not wait for what the terminal has not shown yet: it may be stopped, or gone. What was typed for the agent
/// and not read is not to be the next command of the admin's shell.
fn restore(mut file: &File, found: &Termios) {
    let _ = file.write(AS_IT_WAS);
    let _ = tcflush(file, FlushArg::TCIFLUSH);
    let _ = tcsetattr(file, SetArg::TCSANOW, found);
}

#[cfg(test)]
mod tests {
    use std::{io::Read, thread};

    use nix::{
        poll::{PollFd, PollFlags, PollTimeout, poll},
        pty::openpty,
    };

    use super::*;

    /// A terminal, and its other side.
    fn terminal() -> (Terminal, File) {
        let made = openpty(None, None).unwrap();
        let terminal = Terminal {
            found: tcgetattr(&made.slave).unwrap(),
            file: File::from(made.slave),
        };
        (terminal, File::from(made.master))
    }

    fn is_readable(file: &File, within: PollTimeout) -> bool {
        poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLIN)], within).unwrap() == 1
    }

    #[test]
    fn a_panic_leaves_the_terminal_as_it_was() {
        let (terminal, master) = terminal();
        let now = || tcgetattr(&master).unwrap();
        let raw = terminal.make_raw("").unwrap();
        assert_ne!(now(), terminal.found);

        let panicked = thread::spawn(|| panic!("on purpose")).join();

        assert!(panicked.is_err());
        assert_eq!(now(), terminal.found);
        drop(raw);
    }

    #[test]
    fn what_was_typed_for_the_agent_is_not_there_afterwards() {
        let (terminal, mut master) = terminal();
        let raw = terminal.make_raw("a title").unwrap();
        master.write_all(b"rm -rf all\n").unwrap();
        assert!(is_readable(&terminal.file, PollTimeout::from(5000_u16)));
        drop(raw);

        assert!(!is_readable(&terminal.file, PollTimeout::from(50_u8)));
        let mut shown = [0; 200];
        let read = master.read(&mut shown).unwrap();
        let shown = str::from_utf8(&shown[..read]).unwrap();
        assert!(shown.contains("\x1b]2;a title\x1b\\"), "{shown:?}");
    }
}
