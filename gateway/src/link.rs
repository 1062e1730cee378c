//! The connection to one user's worker: not there, being made, or there.

use std::{future::Future, path::PathBuf, pin::Pin, time::Duration};

use futures_util::{SinkExt, StreamExt};
use kai_proto::{
    conversation::{FromWorker, ToWorker},
    grant::Grant,
    ids::TelegramId,
    limits,
};
use tokio::time::{Instant, sleep_until};

use crate::{
    broker::{self, AttachError, Attached},
    pass::PassView,
};

type Attaching = Pin<Box<dyn Future<Output = Result<Attached, AttachError>> + Send>>;

/// The connection.
pub struct Link {
    broker: PathBuf,
    user: TelegramId,
    pass: PassView,
    /// What the newest attach carried.
    presented: Option<Grant>,
    state: State,
}

enum State {
    Detached,
    Pausing(Instant),
    Attaching(Attaching),
    Attached(Box<Attached>),
    /// This side ended it, and that is still to be said.
    Broken,
}

/// What happens to a [`Link`].
#[derive(Debug)]
pub enum Event {
    /// The worker said Hello.
    Attached,
    /// There is no worker at the other end, and why.
    Failed(AttachError),
    /// The worker says something.
    Said(FromWorker),
    /// The connection ended.
    Ended,
}

impl Link {
    /// A connection that is not there, to the worker of `user`. Each attach carries the grant that the
    /// user's gate holds then.
    #[must_use]
    pub fn new(broker: PathBuf, user: TelegramId, pass: PassView) -> Self {
        Self {
            broker,
            user,
            pass,
            presented: None,
            state: State::Detached,
        }
    }

    /// True if the worker can be told something.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        matches!(self.state, State::Attached(_))
    }

    /// True if the newest attach carried the grant that is held now.
    #[must_use]
    pub fn presented_what_is_held(&self) -> bool {
        self.presented == self.pass.borrow().grant()
    }

    /// Begins to attach, unless it has begun.
    pub fn want(&mut self) {
        if matches!(self.state, State::Detached) {
            self.attach();
        }
    }

    /// Attaches after a pause.
    pub fn want_after(&mut self, pause: Duration) {
        self.state = State::Pausing(Instant::now() + pause);
    }

    /// Ends the connection, or what would lead to one, which the next event says.
    pub fn break_off(&mut self) {
        self.state = State::Broken;
    }

    /// Gives up what would lead to a connection; one that is there stays.
    pub fn rest(&mut self) {
        if matches!(self.state, State::Pausing(_) | State::Attaching(_)) {
            self.state = State::Detached;
        }
    }

    /// Waits for the next event; for ever while detached. Nothing is lost if the wait is given up.
    pub async fn event(&mut self) -> Event {
        if let State::Pausing(until) = self.state {
            sleep_until(until).await;
            self.attach();
        }
        match &mut self.state {
            State::Detached | State::Pausing(_) => std::future::pending().await,
            State::Broken => {
                self.state = State::Detached;
                Event::Ended
            }
            State::Attaching(attaching) => match attaching.await {
                Ok(attached) => {
                    self.state = State::Attached(Box::new(attached));
                    Event::Attached
                }
                Err(error) => {
                    self.state = State::Detached;
                    Event::Failed(error)
                }
            },
            State::Attached(attached) => match attached.events.next().await {
                Some(Ok(said)) => Event::Said(said),
                Some(Err(_)) | None => {
                    self.state = State::Detached;
                    Event::Ended
                }
            },
        }
    }

    /// Tells the worker something. If it cannot be told, the connection ends, which the next event
    /// says.
    pub async fn tell(&mut self, request: ToWorker) {
        let State::Attached(attached) = &mut self.state else {
            return;
        };
        let sent = tokio::time::timeout(limits::FRAME_DEADLINE, attached.requests.send(request));
        if !matches!(sent.await, Ok(Ok(()))) {
            self.break_off();
        }
    }

    fn attach(&mut self) {
        let (broker, user) = (self.broker.clone(), self.user);
        let grant = self.pass.borrow().grant();
        self.presented.clone_from(&grant);
        let attaching = async move { broker::attach(&broker, user, grant).await };
        self.state = State::Attaching(Box::pin(attaching));
    }
}
