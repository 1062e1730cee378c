//! What authd's word does to attaches that wait and to workers that live.
//!
//! | | connection | worker |
//! |---|---|---|
//! | a proof ended: /lock, or an admin | ends | ends |
//! | a proof ended: idle, or its absolute end | ends | ends with its turn |
//! | a proof ended: another one took its place | ends | ends within a second, unless that one is presented |
//! | authd is there again and knows the proof | stays | stays |
//! | authd is there again and does not | ends | ends |
//! | authd is away for longer than an answer may take | ends | ends |
//!
//! The last two rows leave those alone who had no second factor to prove and need none.

use std::time::{Duration, Instant};

use kai_proto::{
    admin_broker::WorkerLife,
    broker_authd::{GrantEnd, Standing},
    gateway_broker::{Refusal, SecondFactor},
    grant::Grant,
    ids::TelegramId,
};
use tracing::{info, warn};

use crate::{
    attach::authd_user,
    authd::{Purpose, Question, Said},
    daemon::Daemon,
    ending::EndReason,
    second_factor::may_stay,
    worker::{Proof, Worker},
};

/// Attaches that are gone on with before others get their turn: each may take a line on a slow disk.
const ANSWERS_PER_WAKE: usize = 8;

/// How often authd is asked about workers that live by a proof: one that is there and does not answer is
/// noticed also while nobody attaches.
const RECHECK: Duration = Duration::from_secs(5);

impl Daemon {
    /// Reads what authd says. Ends come before answers: [`Said::Ended`].
    pub(crate) fn hear_authd(&mut self, now: Instant) {
        for said in self.authd.receive(now) {
            match said {
                Said::Hello => self.ask_about_workers(now),
                Said::Ended(user, end) => self.proof_ended(user, end, now),
            }
        }
    }

    /// Goes on with some of what authd has answered.
    pub(crate) fn take_answers(&mut self, now: Instant) {
        for _ in 0..ANSWERS_PER_WAKE {
            let Some((question, standing)) = self.authd.next_answer() else {
                return;
            };
            let grant = question.grant;
            match question.purpose {
                Purpose::Attach(connection) => {
                    let proof = Proof { grant, standing };
                    self.attach(&question.user, proof, connection, now);
                }
                Purpose::Stay => self.stay_or_end(question.user.id, grant.as_ref(), standing),
            }
        }
    }

    /// Does what is due because of authd's silence.
    pub(crate) fn mind_authd(&mut self, now: Instant) {
        for question in self.authd.tick(now) {
            self.unanswered(question);
        }
        if self.authd.silent_at().is_some_and(|at| now >= at) {
            for user in self.living_by_a_proof() {
                self.end_worker(user, EndReason::AuthdAway);
            }
        } else if self.authd.connected() && now >= self.recheck_due {
            self.ask_about_workers(now);
        }
    }

    /// When [`mind_authd`](Self::mind_authd) has something to do.
    pub(crate) fn authd_next_look(&self, now: Instant) -> Option<Instant> {
        if self.authd.has_answers() {
            return Some(now);
        }
        // Nobody needs it looked at who lives by no proof: the daemon sleeps then.
        let minded = !self.living_by_a_proof().is_empty();
        let silence = self.authd.silent_at().unwrap_or(self.recheck_due);
        let moments = [self.authd.next_look(), minded.then_some(silence)];
        moments.into_iter().flatten().min()
    }

    fn unanswered(&mut self, question: Question) {
        let user = question.user.id;
        match question.purpose {
            Purpose::Attach(connection) => {
                warn!("authd does not answer: refusing an attach");
                self.refuse_attach(user, &connection, Refusal::AuthdUnavailable);
            }
            Purpose::Stay => {
                self.stay_or_end(user, question.grant.as_ref(), Standing::Unavailable);
            }
        }
    }

    /// Asks whether each worker may stay, with what was presented for it.
    fn ask_about_workers(&mut self, now: Instant) {
        self.recheck_due = now + RECHECK;
        if !self.authd.connected() {
            return;
        }
        for (id, worker) in self.workers.iter() {
            // Of these it is known that the proof does not hold.
            let settled = worker.life == WorkerLife::Dying
                || worker.is_in_last_turn()
                || worker.awaits_another_grant();
            if let (false, Some(user)) = (settled, self.users.get(id)) {
                let grant = worker.proof.grant.clone();
                self.authd
                    .ask(authd_user(&user.entry), grant, Purpose::Stay, now);
            }
        }
    }

    /// Ends the worker that was attached with `grant`, unless its user may stay.
    fn stay_or_end(&mut self, id: TelegramId, grant: Option<&Grant>, standing: Standing) {
        let rule = self.rule(id);
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        // One that was attached anew since was asked about anew.
        let settled = worker.is_in_last_turn() || worker.awaits_another_grant();
        if settled || worker.proof.grant.as_ref() != grant {
            return;
        }
        match may_stay(rule, worker.proof.standing, standing) {
            Ok(()) if standing == Standing::Unavailable => {}
            Ok(()) => worker.proof.standing = standing,
            Err(Refusal::AuthdUnavailable) => self.end_worker(id, EndReason::AuthdAway),
            Err(_) => self.end_worker(id, EndReason::ProofUnknown),
        }
    }

    fn proof_ended(&mut self, id: TelegramId, end: GrantEnd, now: Instant) {
        // That a turn has begun may be there and not read yet.
        self.take_reports(id, now);
        let user = self.users.get(id);
        let longest = user
            .and_then(|user| user.turn)
            .unwrap_or(self.config.limits.turn);
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        match worker.proof_ended(end, longest, now) {
            Some(reason) => self.end_worker(id, reason),
            None => info!(
                pid = worker.pid.as_raw(),
                ?end,
                "a worker may go on for a while"
            ),
        }
    }

    /// Whose worker has to end if nobody can say that a proof holds.
    fn living_by_a_proof(&self) -> Vec<TelegramId> {
        let by_one = |id, worker: &Worker| {
            let then = worker.proof.standing;
            worker.life != WorkerLife::Dying
                && may_stay(self.rule(id), then, Standing::Unavailable).is_err()
        };
        let workers = self.workers.iter();
        workers
            .filter(|(id, worker)| by_one(*id, worker))
            .map(|(id, _)| id)
            .collect()
    }

    /// The rule for this user; the stricter one for somebody who is no user any more.
    fn rule(&self, id: TelegramId) -> SecondFactor {
        self.users
            .get(id)
            .map_or(SecondFactor::Required, |user| user.entry.second_factor)
    }
}
