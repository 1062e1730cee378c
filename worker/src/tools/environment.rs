//! What the tools' environment is: the agent's, without what is the agent's alone.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    process::Command,
};

use super::SYSTEM_PATH;

/// Variables that the tools do not get, with the reason. A name that ends in `*` stands for all that
/// begin so.
const FORGOTTEN: &[(&str, &str)] = &[
    ("ANTHROPIC_*", "the agent's key, and where it is sent"),
    (
        "CLAUDE_*",
        "the agent's tokens, and what it was told of its host",
    ),
    ("AWS_*", "keys of another place where its model may be"),
    ("GOOGLE_APPLICATION_CREDENTIALS", "likewise"),
    ("AZURE_*", "likewise"),
    (
        "SHELL",
        "names this program: tmux and script would start it again",
    ),
    ("PATH", "begins with links to this program"),
];

/// Exceptions from those.
const KEPT: &[(&str, &str)] = &[
    (
        "CLAUDE_CODE_EXECPATH",
        "the agent's own search programs, which its shell functions start",
    ),
    ("CLAUDE_CODE_TMPDIR", "where its shell functions write"),
];

/// The shell of the tools.
const SHELL: &str = "/bin/bash";

/// Gives `command` the tools' part of `variables`.
pub fn arrange(command: &mut Command, variables: impl Iterator<Item = (OsString, OsString)>) {
    command.env_clear();
    let mut path = OsString::from(SYSTEM_PATH);
    for (name, value) in variables {
        // What somebody put into the home does not stand in for the system's programs. A colon
        // would make two directories of one.
        if name == "HOME" && !value.as_bytes().contains(&b':') {
            path.push(":");
            path.push(&value);
            path.push("/.local/bin");
        }
        if !is_forgotten(&name) {
            command.env(name, value);
        }
    }
    command.env("PATH", path).env("SHELL", SHELL);
}

fn is_forgotten(name: &OsStr) -> bool {
    let fits = |(pattern, _): &(&str, &str)| match pattern.strip_suffix('*') {
        Some(prefix) => name.as_bytes().starts_with(prefix.as_bytes()),
        None => name == *pattern,
    };
    FORGOTTEN.iter().any(fits) && !KEPT.iter().any(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_and_the_agents_own_are_left_out_and_the_rest_is_not() {
        let variables = [
            ("ANTHROPIC_API_KEY", "sk"),
            ("ANTHROPIC_AUTH_TOKEN", "sk"),
            ("ANTHROPIC_BASE_URL", "http://x"),
            ("CLAUDE_CODE_OAUTH_TOKEN", "sk"),
            ("CLAUDE_CODE_SHELL", "/s/tools/bash"),
            ("CLAUDE_CODE_SHELL_PREFIX", "/opt/kai-tools"),
            ("CLAUDE_CODE_EXECPATH", "/opt/claude"),
            ("CLAUDECODE", "1"),
            ("AWS_SECRET_ACCESS_KEY", "sk"),
            ("HOME", "/home/alice"),
            ("LANG", "C.UTF-8"),
            ("PATH", "/s/tools:/bin"),
            ("SHELL", "/s/tools/bash"),
            ("TMPDIR", "/tmp/x"),
        ]
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let mut command = Command::new("true");

        arrange(&mut command, variables.into_iter());

        let mut left: Vec<(&str, &str)> = command
            .get_envs()
            .map(|(name, value)| (name.to_str().unwrap(), value.unwrap().to_str().unwrap()))
            .collect();
        left.sort_unstable();
        let path = format!("{SYSTEM_PATH}:/home/alice/.local/bin");
        assert_eq!(
            left,
            [
                ("CLAUDECODE", "1"),
                ("CLAUDE_CODE_EXECPATH", "/opt/claude"),
                ("HOME", "/home/alice"),
                ("LANG", "C.UTF-8"),
                ("PATH", &path),
                ("SHELL", "/bin/bash"),
                ("TMPDIR", "/tmp/x"),
            ]
        );
    }

    #[test]
    fn a_home_with_a_colon_does_not_become_two_directories() {
        let mut command = Command::new("true");

        arrange(
            &mut command,
            [("HOME".into(), "/home/a:/evil".into())].into_iter(),
        );

        let path = command.get_envs().find(|(name, _)| *name == "PATH");
        assert_eq!(path.unwrap().1.unwrap(), SYSTEM_PATH);
    }

    #[test]
    fn every_entry_has_a_reason() {
        assert!(
            FORGOTTEN
                .iter()
                .chain(KEPT)
                .all(|(_, reason)| !reason.is_empty())
        );
    }
}
