//! The environment of the Python kai: `KEY=value` lines, from `/etc/kai/env` and `.env`. A value is never shown.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::rows::Row;

/// Longest environment, in bytes.
pub const LONGEST: u64 = 256 * 1024;

/// Longest key that is shown.
const LONGEST_SHOWN: usize = 40;

/// One key.
pub struct Entry {
    /// The number of its line.
    line: usize,
    /// Its name.
    pub key: String,
    /// What it says.
    pub value: Zeroizing<String>,
    /// The file that says so.
    pub file: PathBuf,
}

impl Entry {
    /// Its key, if that looks like one; otherwise its line. A secret on a line of its own may end in `=` and
    /// so look like a key too.
    #[must_use]
    pub fn shown(&self) -> String {
        let key = &self.key;
        let is_name = key.len() <= LONGEST_SHOWN
            && key.starts_with(|c: char| c.is_ascii_uppercase())
            && key
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        // Base32 has capitals and digits alone.
        let is_padded = !key.contains('_') && self.value.trim_matches('=').is_empty();
        if is_name && !is_padded {
            key.clone()
        } else {
            format!("line {}", self.line)
        }
    }
}

/// All that the files say.
#[derive(Default)]
pub struct Env(Vec<Entry>);

impl Env {
    /// Adds what `text`, that of `file`, says. What an earlier file says stands; in one file, the last line.
    pub fn add(&mut self, file: &Path, text: &str, rows: &mut Vec<Row>) {
        let mut new: Vec<Entry> = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((key, value)) = pair(line) else {
                rows.push(Row::look(
                    format!("line {}", at + 1),
                    file,
                    "is not of the form KEY=value, and was passed over",
                ));
                continue;
            };
            new.retain(|entry| entry.key != key);
            new.push(Entry {
                line: at + 1,
                key: key.to_owned(),
                value,
                file: file.to_owned(),
            });
        }
        for entry in new {
            if self.0.iter().all(|known| known.key != entry.key) {
                self.0.push(entry);
            }
        }
    }

    /// Each key.
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// What the key says.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let entry = self.0.iter().find(|entry| entry.key == key)?;
        Some(entry.value.as_str())
    }
}

/// Key and value of a line, as dotenv and systemd's EnvironmentFile= have them alike.
fn pair(line: &str) -> Option<(&str, Zeroizing<String>)> {
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (key, value) = line.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let is_key = (1..=64).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !key.starts_with(|c: char| c.is_ascii_digit());
    if !is_key || value.contains('\0') {
        return None;
    }
    for quote in ['"', '\''] {
        if let Some(rest) = value.strip_prefix(quote) {
            let (inside, behind) = rest.split_once(quote)?;
            let behind = behind.trim();
            let is_all = behind.is_empty() || behind.starts_with('#');
            return is_all.then(|| (key, Zeroizing::new(inside.to_owned())));
        }
    }
    let value = value.split_once(" #").map_or(value, |(value, _)| value);
    Some((key, Zeroizing::new(value.trim_end().to_owned())))
}

#[cfg(test)]
mod tests {
    use super::{super::taken::Taken, *};

    fn env(text: &str) -> (Env, Vec<Row>) {
        let (mut env, mut rows) = (Env::default(), Vec::new());
        env.add(Path::new("/etc/kai/env"), text, &mut rows);
        (env, rows)
    }

    #[test]
    fn lines_are_read_as_dotenv_and_systemd_read_them() {
        let (env, rows) = env(
            "# c\r\n\nexport A=1\r\nB = two words # c\nC='a # b' # c\nD=\"x\"\nE=\nA=2\nF=a#b\nG=a=b\n",
        );

        for (key, value) in [
            ("A", "2"),
            ("B", "two words"),
            ("C", "a # b"),
            ("D", "x"),
            ("E", ""),
            ("F", "a#b"),
            ("G", "a=b"),
        ] {
            assert_eq!(env.get(key), Some(value), "{key}");
        }
        assert!(rows.is_empty());
    }

    #[test]
    fn an_unreadable_line_is_named_by_its_number_and_never_shown() {
        let (env, rows) = env("A=1\nhunter2\nhunter 2=x\nB=\"hunter2\nC='a' hunter2\n");

        let said = serde_json::to_string(&rows).unwrap();
        assert_eq!(rows.len(), 4);
        assert!(said.contains("line 2") && said.contains("line 5"), "{said}");
        assert!(!said.contains("hunter"), "{said}");
        assert_eq!(env.get("A"), Some("1"));
    }

    #[test]
    fn what_does_not_look_like_a_key_is_not_shown_either() {
        let long = "A".repeat(LONGEST_SHOWN + 1);
        let (env, mut rows) = env(&format!(
            "MY_KEY2=x\nhunterHunter==\nJBSWY3DPEHPK3PXP=\n{long}=x\n_HUNTER=x\nMY_EMPTY=\n"
        ));
        Taken::of(&env, &|_| "/kept".into(), &mut rows);

        let said = serde_json::to_string(&rows).unwrap();
        for named in [
            "MY_KEY2", "line 2", "line 3", "line 4", "line 5", "MY_EMPTY",
        ] {
            assert!(said.contains(&format!("\"{named}\"")), "{named}: {said}");
        }
        for hidden in ["unter", "JBSW", "AAAA", "HUNTER"] {
            assert!(!said.contains(hidden), "{hidden}: {said}");
        }
    }

    #[test]
    fn what_an_earlier_file_says_stands() {
        let (mut env, mut rows) = env("A=1\n");
        env.add(Path::new("/opt/kai/.env"), "A=2\nB=3\n", &mut rows);

        assert_eq!((env.get("A"), env.get("B")), (Some("1"), Some("3")));
    }
}
