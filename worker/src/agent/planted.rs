//! What an agent reads at its start although its settings are off, and what its tools can write: files
//! of the home. Before each start they are made harmless. Nothing of the account runs then but the
//! worker, so nobody changes them between this and the start.
//!
//! Found with Claude Code 2.1.197: `env` in `~/.claude.json` is applied whatever `--setting-sources`
//! says, so that a tool could have the next agent send its key elsewhere, or start its tools outside
//! of their domain.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use serde_json::Value;

/// Files of the agent's configuration that lose what is in [`LOST`].
const CONFIGURATION: [&str; 2] = [".claude.json", ".claude/.config.json"];

/// Keys that are taken out, with the reason.
const LOST: [(&str, &str); 1] = [(
    "env",
    "variables of the agent's own environment: where its key goes, how its tools start",
)];

/// Files that are taken away, with the reason.
const REMOVED: [(&str, &str); 1] = [(
    ".claude/remote-settings.json",
    "what an organisation's settings were when they were last fetched, hooks and variables included",
)];

/// Longest configuration, in bytes: it grows with each directory that the agent worked in.
const LONGEST: u64 = 64 * 1024 * 1024;

/// Makes the files of `home` harmless.
///
/// # Errors
/// What the file system answers; the agent is not to be started then.
pub fn make_harmless(home: &Path) -> io::Result<()> {
    for name in CONFIGURATION {
        let path = home.join(name);
        match read(&path) {
            Ok(text) => match without_lost(&text) {
                Ok(None) => {}
                Ok(Some(text)) => replace(&path, &text)?,
                Err(NotJson) => set_aside(&path)?,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // A directory, a FIFO, a giant: whatever the agent would make of it.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => set_aside(&path)?,
            Err(error) => return Err(error),
        }
    }
    for (name, _) in REMOVED {
        match fs::remove_file(home.join(name)) {
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(error);
            }
            _ => {}
        }
    }
    Ok(())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // O_NONBLOCK: opening a FIFO would wait for somebody to write. Links are followed, as the agent
    // does: whoever keeps the home's files elsewhere has them there.
    let file = match File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
    {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(io::ErrorKind::NotFound.into());
        }
        other => other?,
    };
    let found = file.metadata()?;
    if !found.is_file() || found.len() > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text)?;
    Ok(text)
}

/// The text is not what this worker takes for JSON; the agent might all the same.
#[derive(Debug, PartialEq, Eq)]
struct NotJson;

/// The text without what is lost; none if nothing is.
fn without_lost(text: &[u8]) -> Result<Option<Vec<u8>>, NotJson> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    if text.trim_ascii().is_empty() {
        return Ok(None);
    }
    let Ok(Value::Object(mut object)) = serde_json::from_slice(text) else {
        return Err(NotJson);
    };
    let before = object.len();
    for (key, _) in LOST {
        object.remove(key);
    }
    if object.len() == before {
        return Ok(None);
    }
    serde_json::to_vec_pretty(&object)
        .map(Some)
        .map_err(|_| NotJson)
}

/// Whole or not at all, in the place of what is there now, behind links too.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let mut temporary = path.clone().into_os_string();
    temporary.push(".kai-new");
    let _ = fs::remove_file(&temporary);
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(text)?;
    fs::rename(&temporary, &path)
}

/// Gives it another name, by which the agent does not find it and the user does.
fn set_aside(path: &Path) -> io::Result<()> {
    let mut aside = path.to_owned().into_os_string();
    aside.push(".set-aside");
    fs::rename(path, aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(text: &[u8]) -> Option<String> {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(".claude.json");
        fs::write(&file, text).unwrap();
        make_harmless(home.path()).unwrap();
        fs::read_to_string(file).ok()
    }

    #[test]
    fn variables_are_taken_out_and_nothing_else_is() {
        let kept = after(br#"{"a":1,"env":{"ANTHROPIC_BASE_URL":"http://evil"},"z":[{"env":2}]}"#);
        let kept: Value = serde_json::from_str(&kept.unwrap()).unwrap();
        assert_eq!(kept, serde_json::json!({"a": 1, "z": [{"env": 2}]}));

        let untouched = "{ \"b\": 1,\n\"a\": 2.50}";
        assert_eq!(after(untouched.as_bytes()).as_deref(), Some(untouched));
        assert_eq!(after(b"").as_deref(), Some(""));
    }

    #[test]
    fn what_might_hide_variables_is_set_aside() {
        for text in [
            &b"{\"env\":{}"[..],
            b"{\"a\":\"\\ud800\",\"env\":{}}",
            b"[{\"env\":{}}]",
            b"{\"env\":{}}\xff",
        ] {
            assert_eq!(after(text), None, "{}", String::from_utf8_lossy(text));
        }
        assert_eq!(after(b"\xef\xbb\xbf{\"env\":{}}").as_deref(), Some("{}"));
        assert_eq!(
            after(br#"{"env":{"a":1},"e\u006ev":{"b":1}}"#).as_deref(),
            Some("{}")
        );
    }

    #[test]
    fn links_fifos_directories_and_other_places_do_not_help() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        fs::create_dir(at(".claude")).unwrap();
        fs::write(at("elsewhere"), "{\"env\":{}}").unwrap();
        std::os::unix::fs::symlink("elsewhere", at(".claude.json")).unwrap();
        nix::unistd::mkfifo(&at(".claude/.config.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(at(".claude/remote-settings.json"), "{}").unwrap();

        make_harmless(home.path()).unwrap();

        assert_eq!(fs::read_to_string(at(".claude.json")).unwrap(), "{}");
        assert!(
            fs::symlink_metadata(at(".claude.json"))
                .unwrap()
                .is_symlink()
        );
        assert!(!at(".claude/.config.json").exists());
        assert!(!at(".claude/remote-settings.json").exists());
        make_harmless(home.path()).unwrap();

        fs::remove_file(at(".claude.json")).unwrap();
        fs::create_dir(at(".claude.json")).unwrap();
        make_harmless(home.path()).unwrap();
        assert!(!at(".claude.json").exists());
    }

    #[test]
    fn a_home_without_any_of_it_stays_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        make_harmless(home.path()).unwrap();
        fs::write(home.path().join(".claude"), "no directory").unwrap();
        make_harmless(home.path()).unwrap();
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }
}
