//! The table of workers: one a user at most, and where each is in its life.
//!
//! ```text
//! launch -> Starting -> Live -> Dying -> reaped, gone from the table
//!                \________________^
//! ```
//!
//! A worker is Dying from the moment at which it is known to end: it was killed, or its end of the
//! control socket closed, which is seen up to half a millisecond before its process can be reaped. A
//! connection for a dying worker is parked, and gets the next one.

use std::{
    collections::HashMap,
    fs::File,
    io::IoSlice,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use kai_proto::{
    admin_broker::{WorkerLife, WorkerStatus},
    ids::{TelegramId, UnixSeconds},
    limits::FRAME_DEADLINE,
    worker_broker::{HANDOVER, REPORTS_PER_SECOND, Report},
};
use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, MsgFlags, recv, sendmsg},
    unistd::Pid,
};

use crate::{cgroups::Cgroup, launch::Launched, sys};

/// From the fork to the first report; a worker that takes longer is stuck.
const START_DEADLINE: Duration = Duration::from_secs(5);

/// A worker that was idle for less may have begun a turn that it has not reported yet.
const REPORT_DELAY: Duration = Duration::from_millis(200);

/// What a worker gets beyond a turn's limit, to interrupt its agent and to end it.
const TURN_GRACE: Duration = Duration::from_secs(60);

/// One worker.
#[derive(Debug)]
pub struct Worker {
    /// Its process id.
    pub pid: Pid,
    /// Stands for it; readable when it has ended.
    pub pidfd: OwnedFd,
    /// Reports come, connections go.
    pub control: OwnedFd,
    /// The status pipe, until the exec.
    pub status: Option<File>,
    /// Where it is in its life.
    pub life: WorkerLife,
    /// The broker's duplicate of the gateway's connection: polled for hang-up, shut down to end it.
    pub attached: Option<UnixStream>,
    /// A connection that waits for this worker to be gone.
    pub parked: Option<UnixStream>,
    /// How long one of its turns may take.
    pub turn_limit: Option<Duration>,
    cgroup: Option<Cgroup>,
    started: Instant,
    started_at: UnixSeconds,
    report: Option<Report>,
    reported_at: UnixSeconds,
    active: Instant,
    handover_due: Option<Instant>,
    rate: ReportRate,
}

/// Why a worker is to be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// It did not report in time.
    NeverReported,
    /// It did not take a connection in time.
    Stuck,
    /// It reports too often, or something that is not a report.
    BadReports,
    /// Its control socket closed.
    Closed,
    /// It says that a turn runs, for longer than it should have let one run.
    TurnTooLong,
    /// It had nothing to do for long.
    Idle,
    /// Its user is gone or changed.
    UserChanged,
    /// The broker stops.
    Stopping,
}

/// How a handover went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handover {
    /// The worker has the connection, or will read it next.
    Sent,
    /// The worker takes nothing any more.
    Refused,
}

impl Worker {
    /// A worker that was just forked, with the broker's duplicate of its connection.
    #[must_use]
    pub fn new(launched: Launched, attached: UnixStream, now: Instant, at: UnixSeconds) -> Self {
        Self {
            pid: launched.pid,
            pidfd: launched.pidfd,
            control: launched.control,
            status: Some(launched.status),
            life: WorkerLife::Starting,
            attached: Some(attached),
            parked: None,
            turn_limit: None,
            cgroup: launched.cgroup,
            started: now,
            started_at: at,
            report: None,
            reported_at: 0,
            active: now,
            handover_due: None,
            rate: ReportRate::new(now),
        }
    }

    /// Sends a further connection to the worker, without blocking; the one before ends.
    pub fn hand_over(&mut self, connection: UnixStream, now: Instant) -> Handover {
        let payload = [HANDOVER];
        let descriptors = [connection.as_raw_fd()];
        let sent = sendmsg::<()>(
            self.control.as_raw_fd(),
            &[IoSlice::new(&payload)],
            &[ControlMessage::ScmRights(&descriptors)],
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            None,
        );
        if sent.is_err() {
            self.parked = Some(connection);
            return Handover::Refused;
        }
        self.end_connection();
        self.attached = Some(connection);
        self.handover_due = Some(now + FRAME_DEADLINE);
        self.active = now;
        Handover::Sent
    }

    /// Ends the gateway's connection, whatever the worker does with its copy.
    pub fn end_connection(&mut self) {
        if let Some(connection) = self.attached.take() {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Kills the worker, and with it everything in its PID namespace. It stays in the table until it
    /// is reaped.
    pub fn kill(&mut self) {
        self.life = WorkerLife::Dying;
        self.end_connection();
        // ESRCH: it has ended by itself, and is about to be reaped.
        let _ = sys::kill(&self.pidfd);
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
    }

    /// Takes what the worker has reported.
    ///
    /// # Errors
    /// Why it is to be ended.
    pub fn take_reports(&mut self, now: Instant, at: UnixSeconds) -> Result<(), EndReason> {
        // One byte more than a report has: a longer datagram is seen to be longer. No control buffer:
        // the kernel drops descriptors that are sent along.
        let mut datagram = [0; Report::BYTES + 1];
        loop {
            match recv(
                self.control.as_raw_fd(),
                &mut datagram,
                MsgFlags::MSG_DONTWAIT,
            ) {
                Ok(0) | Err(Errno::ECONNRESET) => return Err(EndReason::Closed),
                Ok(length) => {
                    let report = Report::from_bytes(&datagram[..length]);
                    let report = report.ok_or(EndReason::BadReports)?;
                    if !self.rate.allows(now) {
                        return Err(EndReason::BadReports);
                    }
                    self.note(report, now, at);
                }
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(_) => return Err(EndReason::Closed),
            }
        }
    }

    fn note(&mut self, report: Report, now: Instant, at: UnixSeconds) {
        let last = self.report.replace(report);
        let worked = |report: &Report| (report.in_turn, report.turns);
        if last.as_ref().map(worked) != Some(worked(&report)) {
            self.active = now;
        }
        self.reported_at = at;
        if self.life == WorkerLife::Starting {
            self.life = WorkerLife::Live;
        }
    }

    /// True once the worker has said that it is confined.
    #[must_use]
    pub fn has_reported(&self) -> bool {
        self.report.is_some()
    }

    /// How long it has had nothing to do; none while a turn runs, or before it could have one.
    #[must_use]
    pub fn idle(&self, now: Instant) -> Option<Duration> {
        let in_turn = self.report.as_ref().is_none_or(|report| report.in_turn);
        (self.life == WorkerLife::Live && !in_turn).then(|| now.duration_since(self.active))
    }

    /// Why the worker is to be ended now, judged by the clock alone.
    #[must_use]
    pub fn overdue(&mut self, now: Instant, idle_limit: Duration) -> Option<EndReason> {
        if self.life == WorkerLife::Dying {
            return None;
        }
        if self.life == WorkerLife::Starting && now >= self.started + START_DEADLINE {
            return Some(EndReason::NeverReported);
        }
        if self.handover_due.is_some_and(|due| now >= due) {
            self.handover_due = None;
            if sys::unread_by_peer(&self.control).map_or(true, |unread| unread > 0) {
                return Some(EndReason::Stuck);
            }
        }
        if self.turn_due().is_some_and(|due| now >= due) {
            return Some(EndReason::TurnTooLong);
        }
        self.idle(now)
            .filter(|idle| *idle >= idle_limit)
            .map(|_| EndReason::Idle)
    }

    /// When [`overdue`](Self::overdue) is to be asked next.
    #[must_use]
    pub fn next_look(&self, idle_limit: Duration) -> Option<Instant> {
        match self.life {
            WorkerLife::Dying => None,
            WorkerLife::Starting => Some(self.started + START_DEADLINE),
            WorkerLife::Live => {
                // A turn has no idle limit: a moment that has passed would have the loop spin.
                let in_turn = self.report.as_ref().is_none_or(|report| report.in_turn);
                let idle = (!in_turn).then(|| self.active + idle_limit);
                [self.handover_due, idle, self.turn_due()]
                    .into_iter()
                    .flatten()
                    .min()
            }
        }
    }

    /// When a turn that it says to run must have ended.
    fn turn_due(&self) -> Option<Instant> {
        let in_turn = self.report.as_ref().is_some_and(|report| report.in_turn);
        turn_due(
            in_turn && self.life == WorkerLife::Live,
            self.active,
            self.turn_limit,
        )
    }

    /// How long it lives.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        now.duration_since(self.started)
    }

    /// What root's command is told.
    #[must_use]
    pub fn status(&self) -> WorkerStatus {
        WorkerStatus {
            pid: self.pid.as_raw().unsigned_abs(),
            life: self.life,
            started: self.started_at,
            attached: self.attached.is_some(),
            report: self.report,
            reported: self.reported_at,
        }
    }
}

/// A worker ends its turns itself. One that does not, with all the time that it takes to end an agent,
/// would keep its place for ever.
fn turn_due(in_turn: bool, since: Instant, limit: Option<Duration>) -> Option<Instant> {
    let limit = limit.filter(|_| in_turn)?;
    since.checked_add(limit.saturating_add(TURN_GRACE))
}

/// Counts reports within one second.
#[derive(Debug)]
struct ReportRate {
    window: Instant,
    count: u32,
}

impl ReportRate {
    fn new(now: Instant) -> Self {
        Self {
            window: now,
            count: 0,
        }
    }

    fn allows(&mut self, now: Instant) -> bool {
        if now.duration_since(self.window) >= Duration::from_secs(1) {
            *self = Self::new(now);
        }
        self.count += 1;
        self.count <= REPORTS_PER_SECOND
    }
}

/// All workers by user.
#[derive(Debug, Default)]
pub struct Workers {
    by_user: HashMap<TelegramId, Worker>,
}

impl Workers {
    /// The worker of this user.
    pub fn get_mut(&mut self, user: TelegramId) -> Option<&mut Worker> {
        self.by_user.get_mut(&user)
    }

    /// The worker of this user.
    #[must_use]
    pub fn get(&self, user: TelegramId) -> Option<&Worker> {
        self.by_user.get(&user)
    }

    /// Adds the worker of a user who has none.
    pub fn insert(&mut self, user: TelegramId, worker: Worker) {
        self.by_user.insert(user, worker);
    }

    /// Takes a reaped worker out.
    pub fn remove(&mut self, user: TelegramId) -> Option<Worker> {
        self.by_user.remove(&user)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (TelegramId, &Worker)> {
        self.by_user.iter().map(|(user, worker)| (*user, worker))
    }

    /// All of them, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (TelegramId, &mut Worker)> {
        self.by_user
            .iter_mut()
            .map(|(user, worker)| (*user, worker))
    }

    /// How many are not ending.
    #[must_use]
    pub fn alive(&self) -> usize {
        self.by_user
            .values()
            .filter(|worker| worker.life != WorkerLife::Dying)
            .count()
    }

    /// True if there are none, ending ones included.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_user.is_empty()
    }

    /// The worker that has been idle for longest, and long enough that it surely is.
    #[must_use]
    pub fn most_idle(&self, now: Instant) -> Option<TelegramId> {
        self.by_user
            .iter()
            .filter_map(|(user, worker)| Some((*user, worker.idle(now)?)))
            .filter(|(_, idle)| *idle >= REPORT_DELAY)
            .max_by_key(|(_, idle)| *idle)
            .map(|(user, _)| user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_that_is_said_to_run_for_ever_has_an_end() {
        let begin = Instant::now();
        let hour = Duration::from_secs(3600);

        assert_eq!(
            turn_due(true, begin, Some(hour)),
            Some(begin + hour + TURN_GRACE)
        );
        assert_eq!(turn_due(false, begin, Some(hour)), None);
        assert_eq!(turn_due(true, begin, None), None);
        assert_eq!(turn_due(true, begin, Some(Duration::MAX)), None);
    }

    #[test]
    fn the_eleventh_report_in_a_second_is_one_too_many() {
        let start = Instant::now();
        let mut rate = ReportRate::new(start);

        assert!((0..REPORTS_PER_SECOND).all(|_| rate.allows(start)));
        assert!(!rate.allows(start + Duration::from_millis(999)));
        assert!(rate.allows(start + Duration::from_secs(1)));
    }
}
