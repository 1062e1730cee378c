//! What the broker is told: the latest state, at once after a pause and otherwise at most seven times a
//! second.

use std::{
    os::fd::{AsFd, AsRawFd},
    time::{Duration, Instant},
};

use kai_proto::worker_broker::{REPORTS_PER_SECOND, Report};
use nix::sys::socket::{MsgFlags, send};

/// Time between two reports in the long run.
const PAUSE: Duration = Duration::from_millis(150);
/// Reports that may follow each other at once: a turn that begins is told before the broker could
/// take the worker for an idle one.
const BURST: u32 = 3;

// The broker ends a worker that sends more than it allows.
const _: () = assert!(BURST as u128 + 1000 / PAUSE.as_millis() < REPORTS_PER_SECOND as u128);

/// Sends reports.
#[derive(Debug)]
pub struct Reports {
    latest: Report,
    sent: Report,
    /// When all that was sent would have been due at the long run's pace.
    paid: Instant,
}

impl Reports {
    /// Sends the first report.
    pub fn begin(control: &impl AsFd, first: Report, now: Instant) -> Self {
        deliver(control, &first);
        Self {
            latest: first,
            sent: first,
            paid: now + PAUSE,
        }
    }

    /// Takes note of the state, and sends it if it is another and it is time.
    pub fn offer(&mut self, control: &impl AsFd, latest: Report, now: Instant) {
        self.latest = latest;
        if self.due().is_some_and(|due| now >= due) {
            deliver(control, &self.latest);
            self.sent = self.latest;
            self.paid = self.paid.max(now) + PAUSE;
        }
    }

    /// The state last taken note of.
    #[must_use]
    pub fn latest(&self) -> Report {
        self.latest
    }

    /// When the latest state can be sent, if it was not.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let ahead = PAUSE * (BURST - 1);
        (self.latest != self.sent).then(|| self.paid.checked_sub(ahead).unwrap_or(self.paid))
    }
}

/// A report that the broker has no room for is as good as an old one, and the next replaces it.
fn deliver(control: &impl AsFd, report: &Report) {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let _ = send(control.as_fd().as_raw_fd(), &report.to_bytes(), flags);
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, recv, socketpair};

    use super::*;

    #[test]
    fn changes_are_gathered_and_the_last_one_always_arrives() {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_NONBLOCK,
        )
        .unwrap();
        let begin = Instant::now();
        let report = |turns| Report {
            in_turn: turns % 2 == 1,
            agent_pid: 7,
            landlock_abi: 6,
            landlock_whole: true,
            seccomp: true,
            session: [0; 16],
            turns,
        };
        let mut reports = Reports::begin(&ours, report(0), begin);

        for turns in 1..=1000 {
            reports.offer(
                &ours,
                report(turns),
                begin + Duration::from_millis(turns.into()),
            );
        }
        let due = reports.due().unwrap();
        reports.offer(&ours, reports.latest(), due);

        let mut received = Vec::new();
        let mut bytes = [0; 64];
        while let Ok(length) = recv(theirs.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
            received.push(Report::from_bytes(&bytes[..length]).unwrap().turns);
        }
        assert!(
            received.len() <= REPORTS_PER_SECOND as usize,
            "{received:?}"
        );
        assert_eq!(received[..3], [0, 1, 2], "the first ones are not held back");
        assert_eq!(received.last(), Some(&1000));
        assert_eq!(reports.due(), None);
    }
}
