//! What has to be there for a test: root, tools, and the program of another package.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// True if this run is root's. If not, says that the test is skipped, and fails where
/// `KAI_TESTS_MUST_RUN` is set, as in continuous integration.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root() || skipped("needs root, as kai-authd does")
}

/// Says that a test is skipped and why; always false.
pub fn skipped(why: &str) -> bool {
    assert!(
        env::var_os("KAI_TESTS_MUST_RUN").is_none(),
        "must not be skipped here, but {why}"
    );
    eprintln!("skipped: {why}");
    false
}

/// True if the program `tool` of the Debian package `package` is there.
pub fn has(tool: &str, package: &str) -> bool {
    let paths = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&paths).any(|path| path.join(tool).is_file())
        || skipped(&format!(
            "{tool} is not installed: apt-get install {package}"
        ))
}

/// The directory with both programs: cargo builds one package's programs for that package's tests
/// alone, so the other is built here, once.
pub fn kai_auth() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let authd = Path::new(env!("CARGO_BIN_EXE_kai-authd"));
        let directory = authd.parent().unwrap();
        if let Some(cargo) = env::var_os("CARGO") {
            let profile = directory.file_name().unwrap().to_str().unwrap();
            let profile = if profile == "debug" { "dev" } else { profile };
            let mut build = Command::new(cargo);
            build
                .args([
                    "build",
                    "--quiet",
                    "--package",
                    "kai-auth",
                    "--profile",
                    profile,
                ])
                .arg("--target-dir")
                .arg(directory.parent().unwrap())
                .current_dir(env!("CARGO_MANIFEST_DIR"));
            // What the outer cargo says of this package is no change of the other one.
            for (name, _) in env::vars_os() {
                let text = name.to_string_lossy();
                if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                    build.env_remove(&name);
                }
            }
            assert!(
                build.status().unwrap().success(),
                "kai-auth could not be built"
            );
        }
        directory.join("kai-auth")
    })
}
