//! Standard output and input without a buffer of this process: what is secret is written and read in
//! place and wiped by its owner, and no copy stays behind.

use std::{
    fs::File,
    io::{self, IsTerminal, Read, Write},
    os::fd::AsFd,
};

use zeroize::Zeroizing;

use crate::failure::Failure;

/// Longest line that is read, in bytes: a code, and blanks around it.
const LINE: usize = 64;

/// Writes `text` as it is.
///
/// # Errors
/// [`Failure::Print`]; a closed pipe is an error to report, not a panic.
pub fn show(text: &str) -> Result<(), Failure> {
    write(text).map_err(Failure::Print)
}

/// Writes `text` as it is.
///
/// # Errors
/// What write(2) answers.
pub fn write(text: &str) -> io::Result<()> {
    File::from(io::stdout().as_fd().try_clone_to_owned()?).write_all(text.as_bytes())
}

/// True if somebody sits before standard input and can be asked again.
#[must_use]
pub fn can_be_asked() -> bool {
    io::stdin().is_terminal()
}

/// How many columns the terminal has; none if standard output is no terminal.
#[must_use]
pub fn columns() -> Option<usize> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = terminal_size::terminal_size_of(stdout);
    // A serial line does not know its width, and those that do not have 80.
    Some(size.map_or(80, |(width, _)| usize::from(width.0)))
}

/// Reads one line, without its end; none at the end of the input.
///
/// # Errors
/// [`Failure::Read`]; of a line that is too long, the rest stays unread.
pub fn read_line() -> Result<Option<Zeroizing<String>>, Failure> {
    let stdin = io::stdin().as_fd().try_clone_to_owned();
    line_of(&mut File::from(stdin.map_err(Failure::Read)?)).map_err(Failure::Read)
}

/// Byte by byte, so that nothing beyond the line is taken.
fn line_of(input: &mut impl Read) -> io::Result<Option<Zeroizing<String>>> {
    // All of its room at once: a text that grows leaves copies behind.
    let mut line = Zeroizing::new(String::with_capacity(LINE));
    let mut byte = Zeroizing::new([0]);
    let mut any = false;
    while line.len() < LINE {
        match input.read(byte.as_mut()) {
            Ok(0) => break,
            Ok(_) => any = true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if byte[0] == b'\n' {
            break;
        }
        // A code is ASCII: anything else makes the line no code, whatever it was.
        line.push(if byte[0].is_ascii() {
            char::from(byte[0])
        } else {
            '?'
        });
    }
    Ok(any.then_some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_read_and_the_next_left_alone() {
        let mut input = "123456\n654321".as_bytes();

        assert_eq!(line_of(&mut input).unwrap().unwrap().as_str(), "123456");
        assert_eq!(line_of(&mut input).unwrap().unwrap().as_str(), "654321");
        assert!(line_of(&mut input).unwrap().is_none());
    }

    #[test]
    fn a_line_without_end_is_cut_and_foreign_letters_are_no_digits() {
        let long = "1".repeat(1000);
        assert_eq!(line_of(&mut long.as_bytes()).unwrap().unwrap().len(), LINE);
        let foreign = line_of(&mut "١٢٣".as_bytes()).unwrap().unwrap();
        assert!(!foreign.bytes().any(|byte| byte.is_ascii_digit()));
    }
}
