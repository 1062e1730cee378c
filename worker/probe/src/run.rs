//! One attempt at a time, each in a process of its own: a filter that kills, a call that never returns, and
//! ids that an attempt changed end with it.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::AsFd,
};

use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, kill},
        wait::{WaitStatus, waitpid},
    },
    unistd::{Pid, pipe2},
};

use crate::{
    Problem,
    answer::Answer,
    attempts::{self, Position, Try},
    report::Report,
    scene::Scene,
    sys::{self, Side},
};

/// How long one may take.
const PATIENCE: u16 = 5000;

/// Runs all attempts that are made from `position` and writes down what they came to.
///
/// # Errors
/// If the report cannot be written.
pub fn all_from(position: Position, scene: &Scene, report: &mut Report) -> Result<(), Problem> {
    for attempt in attempts::all().filter(|attempt| attempt.from == position) {
        report.add(attempt.name, &one(attempt.run, scene))?;
    }
    Ok(())
}

/// Runs one in a child.
#[must_use]
pub fn one(run: Try, scene: &Scene) -> Answer {
    try_one(run, scene).unwrap_or_else(|error| Answer::Unknown(error.to_string()))
}

fn try_one(run: Try, scene: &Scene) -> nix::Result<Answer> {
    let (said, saying) = pipe2(OFlag::O_CLOEXEC)?;
    let child = match sys::fork()? {
        Side::Child => {
            drop(said);
            let answer = run(scene);
            let line = format!("{}\t{}", answer.word(), answer.detail());
            let _ = File::from(saying).write_all(line.as_bytes());
            sys::exit_now();
        }
        Side::Parent(child) => child,
    };
    drop(saying);
    let mut polled = [PollFd::new(said.as_fd(), PollFlags::POLLIN)];
    let in_time = poll(&mut polled, PollTimeout::from(PATIENCE))? > 0;
    if !in_time {
        let _ = kill(child, Signal::SIGKILL);
    }
    let mut line = String::new();
    if in_time {
        let _ = File::from(said).read_to_string(&mut line);
    }
    Ok(match (ended(child), line.split_once('\t')) {
        (_, Some((word, detail))) => {
            Answer::read(word, detail).unwrap_or_else(|| Answer::Unknown(line.clone()))
        }
        (WaitStatus::Signaled(_, Signal::SIGSYS, _), None) => Answer::Blocked("SIGSYS".to_owned()),
        (_, None) if !in_time => Answer::Unknown("no answer in five seconds".to_owned()),
        // What the processor or the kernel answers to an instruction that is not to be had here.
        (WaitStatus::Signaled(_, Signal::SIGSEGV | Signal::SIGILL, _), None) => {
            Answer::Blocked("a signal".to_owned())
        }
        (status, None) => Answer::Unknown(format!("{status:?}")),
    })
}

/// Waits for it. The first process of a namespace gets others' children too, and theirs are not waited for.
fn ended(child: Pid) -> WaitStatus {
    loop {
        match waitpid(child, None) {
            Err(nix::Error::EINTR) => {}
            Err(_) => return WaitStatus::StillAlive,
            Ok(status) => return status,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_of_an_attempt_is_told_from_the_others() {
        let scene = Scene::default();
        let at = |run: Try| one(run, &scene);

        assert_eq!(at(|_| Answer::open()), Answer::open());
        let refused = |_: &Scene| Answer::from(Err::<(), _>(nix::Error::EPERM));
        assert_eq!(at(refused), Answer::Blocked("EPERM".into()));
        let filtered = |_: &Scene| {
            let _ = nix::sys::signal::raise(Signal::SIGSYS);
            Answer::open()
        };
        assert_eq!(at(filtered), Answer::Blocked("SIGSYS".into()));
        let killed = |_: &Scene| {
            let _ = nix::sys::signal::raise(Signal::SIGKILL);
            Answer::open()
        };
        assert!(matches!(at(killed), Answer::Unknown(_)));
    }
}
