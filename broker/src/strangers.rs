//! The last ids that the gateway turned away, so that an admin can add one without asking for it.

use std::collections::VecDeque;

use kai_proto::{
    admin_broker::Stranger,
    ids::{TelegramId, UnixSeconds},
    limits,
};

/// At most [`limits::STRANGERS`] of them, the one that wrote last at the end.
#[derive(Debug, Default)]
pub struct Strangers {
    seen: VecDeque<Stranger>,
}

impl Strangers {
    /// Notes that `id` wrote; the oldest is forgotten when there is no more room.
    pub fn note(&mut self, id: TelegramId, at: UnixSeconds) {
        let known = self.seen.iter().position(|stranger| stranger.id == id);
        let times = known
            .and_then(|at| self.seen.remove(at))
            .map_or(0, |stranger| stranger.times);
        if self.seen.len() == limits::STRANGERS {
            self.seen.pop_front();
        }
        self.seen.push_back(Stranger {
            id,
            last: at,
            times: times.saturating_add(1),
        });
    }

    /// All of them, the newest last.
    #[must_use]
    pub fn list(&self) -> Vec<Stranger> {
        self.seen.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_fifty_are_kept_and_counted() {
        let mut strangers = Strangers::default();
        for id in 1..=60 {
            strangers.note(TelegramId::try_from(id).unwrap(), 100);
        }
        strangers.note(TelegramId::try_from(20).unwrap(), 200);

        let list = strangers.list();

        assert_eq!(list.len(), limits::STRANGERS);
        assert_eq!(i64::from(list[0].id), 11);
        let last = list[list.len() - 1];
        assert_eq!((i64::from(last.id), last.last, last.times), (20, 200, 2));
    }
}
