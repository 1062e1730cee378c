//! kai.yaml with any text in it: a configuration, or a mistake that names a line of the file.
#![no_main]

use std::path::Path;

use kai_program::{config::Config, yaml::Document};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let file = Path::new("kai.yaml");
    if let Err(mistake) = Config::parse(file, text) {
        let said = mistake.to_string();
        let (line, _) = said
            .strip_prefix("kai.yaml:")
            .and_then(|said| said.split_once(": "))
            .expect("begins with file and line");
        let line: usize = line.parse().expect("is a number");
        // One more: where a text without an end is missing something.
        assert!((1..=lines(text) + 1).contains(&line), "{said}");
    }
    if let Ok(node) = Document::parse(file, text) {
        let _ = node.into_map().and_then(|map| map.finish());
    }
});

/// Lines as YAML counts them.
fn lines(text: &str) -> usize {
    1 + text.chars().filter(|c| matches!(c, '\n' | '\r')).count()
}
