//! Acting as another account for a moment, in the process of the test.

use std::thread;

use kai_playground::ground::accounts::Account;

/// Runs `act` in a thread of `account`'s: what it connects to takes it for that account.
///
/// Ids belong to threads in Linux, and the C library is what changes them all at once: so the calls are
/// made here by their numbers, and the other threads of the test stay root's.
///
/// # Panics
/// If the ids cannot be changed, or `act` panics.
#[allow(unsafe_code)]
pub fn as_account<R: Send>(account: &Account, act: impl FnOnce() -> R + Send) -> R {
    let (uid, gid) = (account.uid, account.gid);
    let acted = thread::scope(|scope| {
        let acting = scope.spawn(move || {
            // SAFETY: none of these calls takes a pointer but the empty list of groups.
            let done = unsafe {
                libc::syscall(libc::SYS_setgroups, 0, 0) == 0
                    && libc::syscall(libc::SYS_setresgid, gid, gid, gid) == 0
                    && libc::syscall(libc::SYS_setresuid, uid, uid, uid) == 0
            };
            assert!(done, "cannot become {}", account.name);
            act()
        });
        acting.join()
    });
    acted.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
