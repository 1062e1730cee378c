//! What README.md tells an admin to type.

use std::{fs, path::Path};

/// The commands of the first shell block below this heading, in their order, without their comments.
pub fn commands(readme: &Path, heading: &str) -> Vec<String> {
    let text = fs::read_to_string(readme).unwrap();
    let commands: Vec<String> = text
        .lines()
        .skip_while(|line| *line != heading)
        .skip_while(|line| *line != "```sh")
        .skip(1)
        .take_while(|line| *line != "```")
        .map(|line| {
            line.split("  #")
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned()
        })
        .filter(|line| !line.is_empty())
        .collect();
    assert!(!commands.is_empty(), "{heading} has no commands");
    commands
}
