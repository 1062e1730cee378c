//! One worker: where it is in its life, and what its user proved for it.
//!
//! ```text
//! launch -> Starting -> Live -> Dying -> reaped, gone from the table
//!                \________________^
//! ```
//!
//! A worker is Dying from the moment at which it is known to end: it was killed, or its end of the
//! control socket closed, which is seen up to half a millisecond before its process can be reaped. A
//! connection for a dying worker is parked, and authd is asked about it again for the next one.

use std::{
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
    broker_authd::{GrantEnd, Standing},
    grant::Grant,
    ids::{UnixSeconds, UserName},
    limits::FRAME_DEADLINE,
    worker_broker::{HANDOVER, REPORTS_PER_SECOND, Report},
};
use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, MsgFlags, recv, sendmsg},
    unistd::Pid,
};

use crate::{
    cgroups::Cgroup,
    ending::{EndReason, LastTurn, REPORT_DELAY},
    launch::Launched,
    sys,
};

/// From the fork to the first report; a worker that takes longer is stuck.
const START_DEADLINE: Duration = Duration::from_secs(5);

/// From the moment at which another grant took the place of the one that a worker lives by until that one
/// has to be presented for it: the gateway does so at once.
const REPLACED: Duration = Duration::from_millis(800);

/// What a worker gets beyond a turn's limit, to interrupt its agent and to end it.
const TURN_GRACE: Duration = Duration::from_secs(60);

/// What stands behind an attach.
#[derive(Debug, Clone)]
pub struct Proof {
    /// What the gateway presented, in memory alone: to ask authd again.
    pub grant: Option<Grant>,
    /// How the user stood with it.
    pub standing: Standing,
}

/// A connection that waits for a dying worker to be gone.
#[derive(Debug)]
pub struct Parked {
    /// The gateway's.
    pub connection: UnixStream,
    /// What was presented for it.
    pub grant: Option<Grant>,
}

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
    /// What stands behind the last attach.
    pub proof: Proof,
    /// A connection that waits for this worker to be gone.
    pub parked: Option<Parked>,
    /// How long one of its turns may take.
    pub turn_limit: Option<Duration>,
    cgroup: Option<Cgroup>,
    user: UserName,
    started: Instant,
    started_at: UnixSeconds,
    report: Option<Report>,
    reported_at: UnixSeconds,
    active: Instant,
    handover_due: Option<Instant>,
    last_turn: Option<LastTurn>,
    /// By when the grant has to be presented that took the place of the one behind the last attach.
    replaced_due: Option<Instant>,
    why: Option<EndReason>,
    rate: ReportRate,
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
    /// The worker of `user` that was just forked, with the broker's duplicate of its connection.
    #[must_use]
    pub fn new(
        launched: Launched,
        user: UserName,
        (attached, proof): (UnixStream, Proof),
        now: Instant,
        at: UnixSeconds,
    ) -> Self {
        Self {
            pid: launched.pid,
            pidfd: launched.pidfd,
            control: launched.control,
            status: Some(launched.status),
            life: WorkerLife::Starting,
            attached: Some(attached),
            proof,
            parked: None,
            turn_limit: None,
            cgroup: launched.cgroup,
            user,
            started: now,
            started_at: at,
            report: None,
            reported_at: 0,
            active: now,
            handover_due: None,
            last_turn: None,
            replaced_due: None,
            why: None,
            rate: ReportRate::new(now),
        }
    }

    /// Sends a further connection to the worker, without blocking; the one before ends. The proof behind
    /// it takes the place of the one before, and a worker that was to end with its turn is not any more.
    pub fn hand_over(&mut self, connection: UnixStream, proof: Proof, now: Instant) -> Handover {
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
            self.parked = Some(Parked {
                connection,
                grant: proof.grant,
            });
            return Handover::Refused;
        }
        self.end_connection();
        self.attached = Some(connection);
        self.proof = proof;
        self.last_turn = None;
        self.replaced_due = None;
        self.handover_due = Some(now + FRAME_DEADLINE);
        self.active = now;
        Handover::Sent
    }

    /// What the worker's user proved does not hold any more: the connection ends at once. Gives why the
    /// worker is to be ended too, unless a turn runs that may finish, or another grant may be presented
    /// for it: then [`overdue`](Self::overdue) does when the turn has finished, or after `longest`, or when
    /// none was.
    #[must_use]
    pub fn proof_ended(
        &mut self,
        end: GrantEnd,
        longest: Duration,
        now: Instant,
    ) -> Option<EndReason> {
        let at_once = Some(EndReason::ProofEnded(end));
        let (WorkerLife::Live, Some(report)) = (self.life, self.report) else {
            // It has no turn yet, and the broker still has the first word on its connection.
            return at_once;
        };
        self.end_connection();
        if end == GrantEnd::Replaced {
            self.replaced_due.get_or_insert(now + REPLACED);
            return None;
        }
        let idle_for_sure = self.idle(now).is_some_and(|idle| idle >= REPORT_DELAY);
        if !end.lets_a_turn_finish() || idle_for_sure {
            return at_once;
        }
        let (in_turn, turns) = (report.in_turn, report.turns);
        self.last_turn
            .get_or_insert(LastTurn::new(end, in_turn, turns, longest, now));
        None
    }

    /// True if the worker only lives to the end of a turn.
    #[must_use]
    pub fn is_in_last_turn(&self) -> bool {
        self.last_turn.is_some()
    }

    /// True while the grant is awaited that took the place of the one behind the last attach.
    #[must_use]
    pub fn awaits_another_grant(&self) -> bool {
        self.replaced_due.is_some()
    }

    /// Ends the gateway's connection, whatever the worker does with its copy.
    pub fn end_connection(&mut self) {
        if let Some(connection) = self.attached.take() {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Kills the worker, and with it everything in its PID namespace. It stays in the table until it
    /// is reaped.
    pub fn kill(&mut self, why: EndReason) {
        self.why.get_or_insert(why);
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
        if let (Some(last), Some(report)) = (&self.last_turn, &self.report)
            && last.is_over(report.in_turn, report.turns, now)
        {
            return Some(last.reason());
        }
        if self.replaced_due.is_some_and(|due| now >= due) {
            return Some(EndReason::ProofEnded(GrantEnd::Replaced));
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
                let last_turn = self.last_turn.map(|last| last.next_look(in_turn));
                let moments = [
                    self.handover_due,
                    idle,
                    last_turn,
                    self.replaced_due,
                    self.turn_due(),
                ];
                moments.into_iter().flatten().min()
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

    /// What its user was called when it was started.
    #[must_use]
    pub fn user(&self) -> &UserName {
        &self.user
    }

    /// Why it was ended, if it was.
    #[must_use]
    pub fn why(&self) -> Option<EndReason> {
        self.why
    }

    /// Turns that it has finished, by its own word.
    #[must_use]
    pub fn turns(&self) -> u32 {
        self.report.map_or(0, |report| report.turns)
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
