//! What becomes of workers once they are forked: their reports, their connections, their ends.

use std::{os::fd::AsFd, time::Instant};

use kai_proto::{admin_broker::WorkerLife, gateway_broker::Refusal, ids::TelegramId};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::{error, info, warn};

use crate::{
    attach::refuse,
    audit,
    daemon::{Daemon, unix_now},
    ending::EndReason,
    launch, sys,
    worker::Worker,
};

impl Daemon {
    /// Takes what the worker of `user` has reported.
    pub(crate) fn take_reports(&mut self, user: TelegramId, now: Instant) {
        let Some(worker) = self.workers.get_mut(user) else {
            return;
        };
        let fresh = !worker.has_reported();
        match worker.take_reports(now, unix_now()) {
            Ok(()) if fresh && worker.has_reported() => {
                info!(
                    pid = worker.pid.as_raw(),
                    ms = worker.age(now).as_millis(),
                    "worker ready"
                );
            }
            Ok(()) => {}
            Err(reason) => self.end_worker(user, reason),
        }
    }

    /// Takes how the launch of the worker of `user` went.
    pub(crate) fn take_launch_outcome(&mut self, user: TelegramId) {
        let Some(worker) = self.workers.get_mut(user) else {
            return;
        };
        let Some(outcome) = worker.status.as_mut().and_then(launch::outcome) else {
            return;
        };
        worker.status = None;
        if let Err(problem) = outcome {
            error!(pid = worker.pid.as_raw(), "{problem}");
        }
    }

    /// Ends the connection of the worker of `user` on the broker's side if the gateway has hung up.
    pub(crate) fn check_attached(&mut self, user: TelegramId) {
        let Some(worker) = self.workers.get_mut(user) else {
            return;
        };
        let Some(connection) = &worker.attached else {
            return;
        };
        // Asked again: the event may be that of a connection replaced since.
        let mut polled = [PollFd::new(connection.as_fd(), PollFlags::empty())];
        if poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
            worker.end_connection();
        }
    }

    /// Kills the worker of `user`, if there is one that is not ending.
    pub(crate) fn end_worker(&mut self, user: TelegramId, reason: EndReason) {
        let Some(worker) = self.workers.get_mut(user) else {
            return;
        };
        if worker.life == WorkerLife::Dying {
            return;
        }
        if reason.is_ordinary() {
            info!(pid = worker.pid.as_raw(), ?reason, "ending a worker");
        } else {
            warn!(pid = worker.pid.as_raw(), ?reason, "ending a worker");
        }
        if !worker.has_reported()
            && let Some(connection) = &worker.attached
        {
            refuse(connection, reason.refusal());
        }
        worker.kill(reason);
    }

    /// Reaps the worker of `user` if it has ended.
    pub(crate) fn reap(&mut self, user: TelegramId, now: Instant) {
        let Some(worker) = self.workers.get(user) else {
            return;
        };
        match sys::reap(worker.pid) {
            Ok(None) => {}
            Ok(Some(ended)) => {
                info!(
                    pid = worker.pid.as_raw(),
                    status = ended.status,
                    cpu_ms = ended.cpu.as_millis(),
                    peak_kib = ended.peak_kib,
                    "worker ended"
                );
                self.audit.note(&audit::worker_ended(user, worker, &ended));
                if let Some(worker) = self.workers.remove(user) {
                    self.see_off(user, worker, now);
                }
            }
            Err(problem) => {
                error!(pid = worker.pid.as_raw(), "cannot reap a worker: {problem}");
                self.workers.remove(user);
            }
        }
    }

    /// Sees a worker off that was reaped, and asks about the next one if a connection waits for it.
    fn see_off(&mut self, id: TelegramId, mut worker: Worker, now: Instant) {
        if !worker.has_reported() {
            // It wrote no Hello either: the broker still has the first word.
            if let Some(connection) = &worker.attached {
                refuse(connection, Refusal::LaunchFailed);
            }
        }
        worker.end_connection();
        if let Some(parked) = worker.parked.take() {
            // Again, because much may have ended while it waited.
            if self.stopping {
                self.refuse_attach(id, &parked.connection, Refusal::Stopping);
            } else {
                self.ask(id, parked.grant, parked.connection, now);
            }
        }
    }
}
