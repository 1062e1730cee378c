//! Acting as another account: accounts that every Debian has, so that none is made.

use std::thread;

use nix::unistd::User;

/// The account that plays the gateway's.
pub const GATEWAY: &str = "nobody";

/// An account that has no part in kai, as a worker's has none.
pub const OTHER: &str = "daemon";

/// Runs `act` in a thread that is of the account `name` and of no group but its own.
///
/// Ids belong to threads in Linux; it is the C library that changes them all at once. So the calls
/// are made here, and the other threads of the test stay root's.
pub fn as_account<R: Send>(name: &str, act: impl FnOnce() -> R + Send) -> R {
    let account = User::from_name(name).unwrap().expect("every Debian has it");
    let (uid, gid) = (account.uid.as_raw(), account.gid.as_raw());
    thread::scope(|scope| {
        let acted = scope.spawn(|| {
            // SAFETY: none of these calls takes a pointer but the empty list of groups.
            let done = unsafe {
                libc::syscall(libc::SYS_setgroups, 0, 0) == 0
                    && libc::syscall(libc::SYS_setresgid, gid, gid, gid) == 0
                    && libc::syscall(libc::SYS_setresuid, uid, uid, uid) == 0
            };
            assert!(
                done,
                "cannot become {name}: {}",
                std::io::Error::last_os_error()
            );
            act()
        });
        match acted.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
