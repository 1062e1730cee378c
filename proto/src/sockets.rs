//! Where kai's sockets are and how they come to be: one directory per peer, which only that peer can
//! traverse, because Landlock below ABI 9 does not stop a connect(2) to a socket that has a path.

use std::{
    io,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use nix::unistd::Gid;

use crate::peer;

/// The gateway's socket of the broker.
#[must_use]
pub fn gateway_broker(run: &Path) -> PathBuf {
    run.join("gateway/broker.sock")
}

/// The gateway's socket of authd.
#[must_use]
pub fn gateway_authd(run: &Path) -> PathBuf {
    run.join("gateway/authd.sock")
}

/// The broker's socket of authd.
#[must_use]
pub fn broker_authd(run: &Path) -> PathBuf {
    run.join("broker/authd.sock")
}

/// Root's socket of the broker.
#[must_use]
pub fn admin_broker(run: &Path) -> PathBuf {
    run.join("admin/broker.sock")
}

/// Root's socket of authd.
#[must_use]
pub fn admin_authd(run: &Path) -> PathBuf {
    run.join("admin/authd.sock")
}

/// Listens on `path`, which the caller's own account and members of `group` can reach.
///
/// Makes the directory above it (0700, or 0750 with a group) if it is missing. What another account
/// owns there is refused, not repaired: it was put there by somebody. A socket left by an earlier run
/// of the same account is replaced.
///
/// # Errors
/// What the file system or bind(2) answers, with the path in the message.
pub fn listen(path: &Path, group: Option<Gid>) -> io::Result<UnixListener> {
    let context = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("cannot listen on {}: {error}", path.display()),
        )
    };
    let directory = path.parent().unwrap_or(Path::new("/"));
    let me = nix::unistd::geteuid().as_raw();
    std::fs::create_dir_all(directory).map_err(context)?;
    let found = std::fs::symlink_metadata(directory).map_err(context)?;
    if found.uid() != me || !found.is_dir() {
        return Err(context(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "its directory belongs to another account",
        )));
    }
    let (directory_mode, socket_mode) = if group.is_some() {
        (0o750, 0o660)
    } else {
        (0o700, 0o600)
    };
    chown(directory, None, group.map(Gid::as_raw)).map_err(context)?;
    std::fs::set_permissions(directory, PermissionsExt::from_mode(directory_mode))
        .map_err(context)?;
    if UnixStream::connect(path).is_ok() {
        return Err(context(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another one is running",
        )));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(context(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(context)?;
    chown(path, None, group.map(Gid::as_raw)).map_err(context)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(socket_mode)).map_err(context)?;
    listener.set_nonblocking(true).map_err(context)?;
    // Inherited by every connection that is accepted from it.
    peer::refuse_descriptors(&listener);
    Ok(listener)
}
