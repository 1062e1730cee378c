//! For whom a command of root's runs.

/// The uid behind sudo(8), which sets `SUDO_UID`, or this process's own. For the audit log alone:
/// whoever is root may say anything here.
#[must_use]
pub fn acting() -> u32 {
    let own = nix::unistd::getuid();
    if !own.is_root() {
        return own.as_raw();
    }
    std::env::var("SUDO_UID")
        .ok()
        .and_then(|uid| uid.parse().ok())
        .unwrap_or(0)
}
