//! The real agent as the tests use it: where it is installed, and the little it is given.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::messages_api::MessagesApi;

/// The agent is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the real agent is not at {} (npm install --prefix tests/agent)", .0.display())]
pub struct NotInstalled(pub PathBuf);

/// The agent's own program, which needs no Node.
pub fn program() -> Result<PathBuf, NotInstalled> {
    let machine = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "x64"
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .with_file_name("agent")
        .join(format!(
            "node_modules/@anthropic-ai/claude-code-linux-{machine}/claude"
        ));
    if path.is_file() {
        Ok(path)
    } else {
        Err(NotInstalled(path))
    }
}

/// A command for the agent with an environment made from nothing: a home and a temporary directory
/// under `home`, the emulated API, and a key that is made up.
pub fn command(program: &Path, home: &Path, api: &MessagesApi, key: &str) -> Command {
    let mut command = Command::new(program);
    command
        .args([
            "-p",
            "--input-format=stream-json",
            "--output-format=stream-json",
            "--verbose",
        ])
        .args([
            "--include-partial-messages",
            "--permission-prompt-tool=stdio",
        ])
        .args(["--setting-sources=", "--strict-mcp-config"])
        .env_clear()
        .env("HOME", home)
        .env("TMPDIR", home)
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("ANTHROPIC_BASE_URL", api.url())
        .env("ANTHROPIC_API_KEY", key)
        .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
        .env("DISABLE_AUTOUPDATER", "1")
        .current_dir(home);
    command
}
