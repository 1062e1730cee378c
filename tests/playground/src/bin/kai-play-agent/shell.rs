//! The tool: a command of the shell, in a process group of its own so that an interrupt reaches all of
//! it.

use std::{
    env,
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            net::UnixStream,
            process::{CommandExt, ExitStatusExt},
        },
    },
    process::{Child, Command, ExitStatus, Stdio},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// A running command.
#[derive(Debug)]
pub struct Shell {
    child: Child,
    output: UnixStream,
}

impl Shell {
    /// Starts `CLAUDE_CODE_SHELL -c`, or `/bin/sh -c`, with both outputs in one. The real agent takes
    /// that variable's program likewise.
    ///
    /// # Errors
    /// What the start answers.
    pub fn start(command: &str) -> io::Result<Self> {
        let (output, its_output) = UnixStream::pair()?;
        let its_errors = its_output.try_clone()?;
        let shell = env::var_os("CLAUDE_CODE_SHELL").unwrap_or_else(|| "/bin/sh".into());
        let child = Command::new(shell)
            .args(["-c", command])
            .stdin(Stdio::null())
            .stdout(OwnedFd::from(its_output))
            .stderr(OwnedFd::from(its_errors))
            .process_group(0)
            .spawn()?;
        Ok(Self { child, output })
    }

    /// What it writes; nothing at its end.
    ///
    /// # Errors
    /// What read(2) answers.
    pub fn read(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
        self.output.read(chunk)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// What waitpid(2) answers.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// Ends it and all of its group.
    pub fn end(&mut self) {
        if let Ok(group) = i32::try_from(self.child.id()) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

impl AsFd for Shell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }
}

/// What to say of an end, if anything.
#[must_use]
pub fn remark(status: ExitStatus) -> Option<String> {
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(format!("exit status {code}")),
        (None, signal) => Some(format!("ended by signal {}", signal.unwrap_or(0))),
    }
}

/// Cuts bytes into text, holding back a character that is not whole yet.
#[derive(Debug, Default)]
pub struct Decoder {
    rest: Vec<u8>,
}

impl Decoder {
    /// The text of these bytes, with a mark for each that is none.
    pub fn text(&mut self, bytes: &[u8]) -> String {
        self.rest.extend_from_slice(bytes);
        let whole = whole(&self.rest);
        let text = String::from_utf8_lossy(&self.rest[..whole]).into_owned();
        self.rest.drain(..whole);
        text
    }

    /// The text of what was held back.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.rest).into_owned()
    }
}

/// How many bytes end before a character that has begun and may yet become whole.
fn whole(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let begin = bytes.len() - back;
        let needed = match bytes[begin] {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => return bytes.len(),
        };
        return if needed > back { begin } else { bytes.len() };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_the_same_however_the_bytes_are_cut() {
        let text = "aé€😀\u{0}z";
        for piece in 1..text.len() {
            let mut decoder = Decoder::default();
            let mut found = String::new();
            for bytes in text.as_bytes().chunks(piece) {
                found.push_str(&decoder.text(bytes));
            }
            found.push_str(&decoder.finish());
            assert_eq!(found, text, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_no_text_is_marked_and_not_held_back_for_ever() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.text(b"\xff\x80a"), "\u{fffd}\u{fffd}a");
        assert_eq!(decoder.text(b"\xe2\x82"), "");
        assert_eq!(decoder.finish(), "\u{fffd}");
    }
}
