//! The question for a code in one chat: one message, however often what it asks about changes.
//!
//! Each new message that waits has the question posted anew below it, and the older one removed:
//! somebody who holds the same Telegram account can delete a message on this account's devices alone,
//! which no bot is told, and what its owner then sees is the newest question.

use std::{collections::VecDeque, sync::Arc};

use kai_proto::ids::ChatId;
use tokio::sync::{mpsc, oneshot};

use crate::{
    rendered::Rendered,
    telegram::{Posted, Telegram, Trouble},
};

/// The way to the task that keeps the question of one chat.
#[derive(Debug)]
pub struct Board {
    orders: mpsc::UnboundedSender<Order>,
}

#[derive(Debug)]
enum Order {
    Show {
        version: u64,
        text: Rendered,
        anew: bool,
    },
    Close {
        text: Rendered,
        stood: oneshot::Sender<bool>,
    },
}

impl Board {
    /// Starts the task. `shown` is told each version that the chat shows, and as what it was posted.
    #[must_use]
    pub fn start(
        telegram: Arc<Telegram>,
        chat: ChatId,
        shown: impl Fn(u64, Posted) + Send + Sync + 'static,
    ) -> Self {
        let (orders, incoming) = mpsc::unbounded_channel();
        let keeper = Keeper {
            telegram,
            chat,
            shown: Box::new(shown),
            orders: VecDeque::new(),
            message: None,
        };
        tokio::spawn(keeper.run(incoming));
        Self { orders }
    }

    /// Shows a text: as the newest message of the chat, or in the question that stands there.
    pub fn show(&self, version: u64, text: Rendered, anew: bool) {
        let _ = self.orders.send(Order::Show {
            version,
            text,
            anew,
        });
    }

    /// Puts a text in place of the question, which is over. What comes back is true if the question
    /// still stood there.
    pub fn close(&self, text: Rendered) -> oneshot::Receiver<bool> {
        let (stood, answer) = oneshot::channel();
        let _ = self.orders.send(Order::Close { text, stood });
        answer
    }
}

struct Keeper {
    telegram: Arc<Telegram>,
    chat: ChatId,
    shown: Box<dyn Fn(u64, Posted) + Send + Sync>,
    orders: VecDeque<Order>,
    /// The question that stands in the chat.
    message: Option<Posted>,
}

impl Keeper {
    /// Works until nobody has anything to show any more and all is shown.
    async fn run(mut self, mut incoming: mpsc::UnboundedReceiver<Order>) {
        loop {
            if self.orders.is_empty() {
                match incoming.recv().await {
                    Some(order) => self.note(order),
                    None => return,
                }
            }
            while let Ok(order) = incoming.try_recv() {
                self.note(order);
            }
            if let Some(order) = self.orders.pop_front()
                && let Some(unfinished) = self.work(order).await
            {
                self.orders.push_front(unfinished);
            }
        }
    }

    /// Only the newest text is worth showing.
    fn note(&mut self, mut order: Order) {
        if let Some(Order::Show { anew: was, .. }) = self.orders.back() {
            if let Order::Show { anew, .. } = &mut order {
                *anew |= was;
            }
            self.orders.pop_back();
        }
        self.orders.push_back(order);
    }

    /// Tries once; gives the order back if it has to be tried again.
    async fn work(&mut self, order: Order) -> Option<Order> {
        let (text, anew) = match &order {
            Order::Show { text, anew, .. } => (text, *anew),
            Order::Close { text, .. } => (text, false),
        };
        let old = self.message;
        let mut stood = false;
        if let Some(there) = old.filter(|_| !anew) {
            match self.telegram.edit(self.chat, there.message, text).await {
                Ok(edited) => {
                    stood = true;
                    let at = edited.at.max(there.at);
                    self.message = Some(Posted { at, ..there });
                }
                Err(Trouble::Later) => return Some(order),
                // It was deleted.
                Err(Trouble::Never) => self.message = None,
            }
        }
        if !stood {
            match self.telegram.post(self.chat, text, None).await {
                Ok(posted) => self.message = Some(posted),
                Err(Trouble::Later) => return Some(order),
                // The chat is gone: nobody sees anything there.
                Err(Trouble::Never) => {
                    self.message = None;
                    return None;
                }
            }
            if let Some(old) = old.filter(|_| anew) {
                let (telegram, chat) = (Arc::clone(&self.telegram), self.chat);
                // One that cannot be removed says the same as the newer one, or less.
                tokio::spawn(async move { telegram.erase(chat, old.message).await });
            }
        }
        match order {
            Order::Show { version, .. } => {
                if let Some(posted) = self.message {
                    (self.shown)(version, posted);
                }
            }
            Order::Close { stood: reply, .. } => {
                self.message = None;
                // Who asked may not wait any more.
                let _ = reply.send(stood);
            }
        }
        None
    }
}
