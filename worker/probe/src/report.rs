//! What the attempts came to, one line each, in a file of the throw-away account's home: `name`, the
//! answer's word and what was seen, apart by tabs. The last line says that nothing is missing.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::answer::Answer;

const FILE: &str = "report";
const END: &str = "end\n";
/// Longest report that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// A report that is being written.
#[derive(Debug)]
pub struct Report(File);

impl Report {
    /// Goes on with the one in `home`, or begins it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn append(home: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600);
        Ok(Self(options.open(home.join(FILE))?))
    }

    /// Adds the answer of the attempt `name`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn add(&mut self, name: &str, answer: &Answer) -> io::Result<()> {
        let seen = answer.detail().replace(['\n', '\t'], " ");
        let line = format!("{name}\t{}\t{seen}\n", answer.word());
        self.0.write_all(line.as_bytes())
    }

    /// Says that nothing is missing.
    ///
    /// # Errors
    /// What the file system says.
    pub fn end(&mut self) -> io::Result<()> {
        self.0.write_all(END.as_bytes())
    }
}

/// The finished report in `home`; none while it is being written.
///
/// # Errors
/// What the file system says.
pub fn finished(home: &Path) -> io::Result<Option<BTreeMap<String, Answer>>> {
    let mut text = String::new();
    let mut options = OpenOptions::new();
    // The home is the attacker's.
    options
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    match options.open(home.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(file) => file.take(LONGEST).read_to_string(&mut text)?,
    };
    Ok(text.strip_suffix(END).map(|lines| {
        let read = |line: &str| {
            let mut parts = line.splitn(3, '\t');
            let (name, word, detail) = (parts.next()?, parts.next()?, parts.next()?);
            Some((name.to_owned(), Answer::read(word, detail)?))
        };
        lines.lines().filter_map(read).collect()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_once_it_is_finished() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(finished(home.path()).unwrap(), None);
        let mut report = Report::append(home.path()).unwrap();
        let blocked = Answer::Blocked("EPERM".into());
        report.add("one", &blocked).unwrap();
        report.add("two", &Answer::Open("a\nb".into())).unwrap();
        assert_eq!(finished(home.path()).unwrap(), None);

        report.end().unwrap();

        let read = finished(home.path()).unwrap().unwrap();
        assert_eq!(read["one"], blocked);
        assert_eq!(read["two"], Answer::Open("a b".into()));
    }
}
