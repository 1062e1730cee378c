//! Ending the agent with all that it started, and reaping.
//!
//! An agent's tools leave its process group and session, so neither reaches them all. The worker is
//! the first process of its PID namespace: everything in reach of `kill(-1)` is its agent's, and every
//! orphan becomes its child.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{confinement::FirstProcess, sys};

/// What a look for ended children found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaped {
    /// One ended.
    Ended {
        /// Which.
        pid: Pid,
        /// Its exit status, or the negated number of the signal that ended it.
        status: i32,
    },
    /// None has ended; some run.
    Running,
    /// There is none.
    NoneLeft,
}

/// The processes below a worker.
pub trait Tree {
    /// Ends all of them. Some may be starting others meanwhile: to be called until none is left.
    fn kill(&mut self);
    /// Reaps one that has ended.
    fn reap(&mut self) -> Reaped;
    /// Told of each start.
    fn started(&mut self, agent: Pid);
}

impl Tree for FirstProcess {
    fn kill(&mut self) {
        // That there is nobody left (ESRCH) is what is wanted.
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    }

    fn reap(&mut self) -> Reaped {
        sys::reap(Pid::from_raw(-1))
    }

    fn started(&mut self, _: Pid) {}
}
