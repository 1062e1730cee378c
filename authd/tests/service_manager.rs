//! What stands between the daemon and the service manager: sockets that it makes, and words that it waits
//! for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod ground;

use std::{
    fmt::Write,
    fs,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{MetadataExt, PermissionsExt},
            net::UnixDatagram,
        },
    },
    path::PathBuf,
    process::ExitStatus,
    time::{Duration, Instant},
};

use ground::{Ground, programs::is_root};
use kai_proto::sockets;
use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::signal::Signal,
};

/// Sockets on these paths that a daemon inherits, and the command that starts it with them, as the service
/// manager does.
fn activated(paths: &[PathBuf]) -> (Vec<OwnedFd>, Vec<String>) {
    let inherit = |path: &PathBuf| {
        let listener = sockets::listen(path, None).unwrap();
        // Without close-on-exec; where no descriptor of the shell's own is.
        let number = fcntl(&listener, FcntlArg::F_DUPFD(200)).unwrap();
        (OwnedFd::from(listener), number)
    };
    let (listeners, numbers): (Vec<_>, Vec<_>) = paths.iter().map(inherit).unzip();
    let mut script = String::new();
    for (at, number) in numbers.iter().enumerate() {
        let _ = write!(script, "exec {}<&{number} {number}<&-; ", at + 3);
    }
    let _ = write!(
        script,
        "LISTEN_PID=$$ LISTEN_FDS={} exec \"$@\"",
        paths.len()
    );
    let command = ["bash", "-c", &script, "bash"].map(str::to_owned);
    (listeners, command.into())
}

fn paths(ground: &Ground) -> Vec<PathBuf> {
    let run = ground.run();
    vec![
        sockets::admin_authd(&run),
        sockets::gateway_authd(&run),
        sockets::broker_authd(&run),
    ]
}

fn start(ground: &mut Ground, before: &[String]) -> Result<(), ExitStatus> {
    let before: Vec<&str> = before.iter().map(String::as_str).collect();
    ground.try_start(&before)
}

#[test]
fn sockets_that_the_service_manager_made_are_served_as_they_are() {
    if !is_root() {
        return;
    }
    let mut ground = Ground::new("");
    let paths = paths(&ground);
    let (_listeners, before) = activated(&paths);
    let made = || {
        let numbers = paths.iter().map(|path| fs::symlink_metadata(path).unwrap());
        numbers.map(|found| found.ino()).collect::<Vec<_>>()
    };
    let at_first = made();

    start(&mut ground, &before).unwrap();

    assert!(ground.done(&["status"]).contains("nobody is enrolled"));
    // Nothing that was passed on reaches anybody else, and none is made in their place or taken away.
    ground.stop();
    assert_eq!(made(), at_first);
}

#[test]
fn a_socket_that_others_can_reach_or_that_no_peer_looks_for_is_refused() {
    if !is_root() {
        return;
    }
    for (path, mode, says) in [
        (None, 0o666, "SocketMode="),
        (Some("admin/other.sock"), 0o600, "paths.run"),
    ] {
        let mut ground = Ground::new("");
        let mut paths = paths(&ground);
        paths.extend(path.map(|path| ground.run().join(path)));
        let (_listeners, before) = activated(&paths);
        fs::set_permissions(&paths[0], PermissionsExt::from_mode(mode)).unwrap();

        let ended = start(&mut ground, &before);

        assert!(ended.is_err(), "{says}");
        assert!(ground.log().contains(says), "{}", ground.log());
    }
}

#[test]
fn it_says_when_it_is_ready_that_it_is_alive_and_that_it_stops() {
    if !is_root() {
        return;
    }
    let mut ground = Ground::new("");
    let name = ground.path("notify");
    let manager = UnixDatagram::bind(&name).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let says = || {
        let mut word = [0; 64];
        let length = manager.recv(&mut word).expect("nothing is said");
        String::from_utf8_lossy(&word[..length]).into_owned()
    };
    let socket = format!("NOTIFY_SOCKET={}", name.display());
    let before = ["env", &socket, "WATCHDOG_USEC=900000"].map(str::to_owned);

    start(&mut ground, &before).unwrap();

    assert_eq!(says(), "READY=1");
    let began = Instant::now();
    assert_eq!([says(), says()], ["WATCHDOG=1", "WATCHDOG=1"]);
    let two = began.elapsed();
    assert!(
        (Duration::from_millis(300)..Duration::from_millis(900)).contains(&two),
        "{two:?}"
    );
    // One that hangs says nothing.
    ground.signal(Signal::SIGSTOP);
    while manager.recv(&mut [0; 64]).is_ok() {
        manager
            .set_read_timeout(Some(Duration::from_millis(700)))
            .unwrap();
    }
    ground.signal(Signal::SIGCONT);
    assert_eq!(says(), "WATCHDOG=1");
    ground.stop();
    let mut words = Vec::new();
    manager.set_nonblocking(true).unwrap();
    let mut word = [0; 64];
    while let Ok(length) = manager.recv(&mut word) {
        words.push(String::from_utf8_lossy(&word[..length]).into_owned());
    }
    let last = words.last().unwrap();
    assert!(
        last.starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC="),
        "{last}"
    );
}
