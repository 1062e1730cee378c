//! Commands of kai-install's in what it says, as they can be typed at that moment: before `apply`, and after
//! `uninstall`, no shell and no sudo(8) finds it by its name.

use std::path::{Path, PathBuf};

use crate::{items::versions, source};

/// The commands that are named in what is said.
const NAMED: [&str; 9] = [
    "agent",
    "apply",
    "check",
    "config",
    "migrate",
    "rollback",
    "status",
    "uninstall",
    "user",
];

/// `text`, with the whole path in each command if a shell would not find it.
pub fn as_typed(text: String) -> String {
    if Path::new(versions::COMMANDS).join(source::SELF).exists() {
        return text;
    }
    // One that has just removed its own file is in the package still, or nowhere.
    let own = std::env::current_exe()
        .ok()
        .filter(|program| program.exists());
    let program = own.unwrap_or_else(|| PathBuf::from(source::DEFAULT).join(source::SELF));
    with_path(text, &program)
}

fn with_path(text: String, program: &Path) -> String {
    NAMED.iter().fold(text, |text, command| {
        let named = format!("{} {command}", source::SELF);
        let whole = format!("{} {command}", program.display());
        // What stands behind a slash has its path already.
        let mut typed = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(at) = rest.find(&named) {
            let (before, from) = rest.split_at(at);
            typed.push_str(before);
            typed.push_str(if before.ends_with('/') {
                &named
            } else {
                &whole
            });
            rest = &from[named.len()..];
        }
        typed + rest
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_get_their_path_and_other_words_stay() {
        let said = "another kai-install changes this host; next: sudo kai-install apply, kai-install user add --help \
                    and /opt/kai/kai-install status";
        assert_eq!(
            with_path(said.to_owned(), Path::new("/usr/lib/kai/kai-install")),
            "another kai-install changes this host; next: sudo /usr/lib/kai/kai-install apply, \
             /usr/lib/kai/kai-install user add --help and /opt/kai/kai-install status"
        );
    }
}
