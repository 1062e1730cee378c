//! What authd's word does to attaches and workers: the broker's own rules.

use std::{os::unix::net::UnixStream, time::Instant};

use kai_brokerd::{
    authd::{Purpose, Question, Said},
    ending::EndReason,
    second_factor::{may_attach, may_stay},
    worker::{Proof, Worker},
};
use kai_proto::{
    admin_broker::WorkerLife,
    broker_authd::{GrantEnd, Standing, User},
    gateway_broker::{Refusal, SecondFactor},
    grant::Grant,
    ids::TelegramId,
};
use tracing::info;

use super::{
    people::Person,
    serve::{Launcher, refuse},
};

impl Launcher {
    /// Asks authd about a connection that is to be attached.
    pub(super) fn ask(
        &mut self,
        user: TelegramId,
        grant: Option<Grant>,
        connection: UnixStream,
        now: Instant,
    ) {
        match self.person(user).map(authd_user) {
            Some(user) => self
                .authd
                .ask(user, grant, Purpose::Attach(connection), now),
            None => refuse(&connection, Refusal::UnknownUser),
        }
    }

    /// Does what authd's words, its answers and its silence ask for.
    pub(super) fn mind_authd(&mut self, now: Instant) {
        for question in self.authd.tick(now) {
            self.answer(question, Standing::Unavailable, now);
        }
        self.authd.flush(now);
        for said in self.authd.receive(now) {
            match said {
                Said::Hello => self.ask_about_workers(now),
                Said::Ended(user, end) => self.proof_ended(user, end, now),
            }
        }
        while let Some((question, standing)) = self.authd.next_answer() {
            self.answer(question, standing, now);
        }
        if self.authd.silent_at().is_some_and(|at| now >= at) {
            for (user, worker) in self.workers.iter_mut() {
                let rule = rule(&self.people, user);
                stay_or_end(worker, rule, Standing::Unavailable);
            }
        }
    }

    fn answer(&mut self, question: Question, standing: Standing, now: Instant) {
        let user = question.user.id;
        let rule = rule(&self.people, user);
        match question.purpose {
            Purpose::Attach(connection) => match may_attach(rule, standing) {
                Ok(()) => {
                    let grant = question.grant;
                    self.attach(user, Proof { grant, standing }, connection, now);
                }
                Err(refusal) => refuse(&connection, refusal),
            },
            Purpose::Stay => {
                let worker = self.workers.get_mut(user);
                if let Some(worker) = worker.filter(|w| w.proof.grant == question.grant) {
                    stay_or_end(worker, rule, standing);
                }
            }
        }
    }

    fn ask_about_workers(&mut self, now: Instant) {
        for (id, worker) in self.workers.iter() {
            let person = self.people.iter().find(|person| person.entry.id == id);
            if let (false, Some(person)) = (worker.is_in_last_turn(), person) {
                let grant = worker.proof.grant.clone();
                self.authd
                    .ask(authd_user(person), grant, Purpose::Stay, now);
            }
        }
    }

    fn proof_ended(&mut self, user: TelegramId, end: GrantEnd, now: Instant) {
        let longest = self.config.limits.turn;
        let worker = self.workers.get_mut(user);
        if let Some(worker) = worker.filter(|worker| worker.life != WorkerLife::Dying)
            && let Some(reason) = worker.proof_ended(end, longest, now)
        {
            info!(pid = worker.pid.as_raw(), ?reason, "ending a worker");
            worker.kill(reason);
        }
    }
}

fn stay_or_end(worker: &mut Worker, rule: SecondFactor, standing: Standing) {
    if worker.life != WorkerLife::Dying && may_stay(rule, worker.proof.standing, standing).is_err()
    {
        worker.kill(EndReason::ProofUnknown);
    }
}

fn authd_user(person: &Person) -> User {
    User {
        name: person.entry.name.clone(),
        id: person.entry.id,
    }
}

fn rule(people: &[Person], user: TelegramId) -> SecondFactor {
    let person = people.iter().find(|person| person.entry.id == user);
    person.map_or(SecondFactor::Required, |person| person.entry.second_factor)
}
