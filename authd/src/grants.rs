//! Grants: who has proved the second factor, and until when that holds. In memory only, so that a
//! restart takes all of them back, and as hashes, so that this memory is of no use to whoever reads it.
//!
//! All times are readings of `CLOCK_BOOTTIME`.

use std::{collections::BTreeMap, time::Duration};

use kai_program::config::SecondFactor;
use kai_proto::{
    broker_authd::GrantEnd,
    gateway_authd::User,
    grant::Grant,
    ids::{TelegramId, UnixSeconds},
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::clock::Now;

/// How long a grant holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Without a message of its user.
    pub idle: Duration,
    /// In any case.
    pub absolute: Duration,
}

impl From<&SecondFactor> for Limits {
    fn from(config: &SecondFactor) -> Self {
        Self {
            idle: config.idle,
            absolute: config.absolute,
        }
    }
}

/// The grants that stand, at most one for each user.
#[derive(Debug)]
pub struct Grants {
    limits: Limits,
    held: BTreeMap<TelegramId, Held>,
    /// None ends before this; a renewal does not put it off, so one may be looked at in vain.
    earliest: Duration,
}

#[derive(Debug)]
struct Held {
    user: User,
    hash: [u8; 32],
    idle: Duration,
    absolute: Duration,
    /// The absolute end by the wall's clock, as foretold when the grant was made.
    until: UnixSeconds,
}

impl Held {
    fn end(&self) -> Duration {
        self.idle.min(self.absolute)
    }

    fn stands(&self, now: Now) -> bool {
        now.boot < self.end()
    }

    fn until(&self, now: Now) -> UnixSeconds {
        now.unix_at(self.absolute, self.until)
    }
}

impl Grants {
    /// None yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            held: BTreeMap::new(),
            earliest: Duration::MAX,
        }
    }

    /// The absolute end of a grant that is made now, by the wall's clock.
    #[must_use]
    pub fn absolute_end(&self, now: Now) -> UnixSeconds {
        now.unix().saturating_add(self.limits.absolute.as_secs())
    }

    /// A grant for `user` from random bits, in the place of the one that they had.
    pub fn make(&mut self, user: &User, random: &Zeroizing<[u8; 32]>, now: Now) -> Grant {
        let grant = Grant::from_random(**random);
        let held = Held {
            user: user.clone(),
            hash: hash(&grant),
            idle: now.boot.saturating_add(self.limits.idle),
            absolute: now.boot.saturating_add(self.limits.absolute),
            until: self.absolute_end(now),
        };
        self.earliest = self.earliest.min(held.end());
        self.held.insert(user.id, held);
        grant
    }

    /// The absolute end of `grant`, if it is `user`'s and stands; none otherwise, whatever is the matter
    /// with it.
    #[must_use]
    pub fn proves(&self, user: &User, grant: &Grant, now: Now) -> Option<UnixSeconds> {
        let held = self.of(user, now)?;
        constant_time_eq::constant_time_eq_32(&held.hash, &hash(grant)).then(|| held.until(now))
    }

    /// The absolute end of the grant that `user` holds, if one stands.
    #[must_use]
    pub fn until(&self, user: &User, now: Now) -> Option<UnixSeconds> {
        Some(self.of(user, now)?.until(now))
    }

    /// Who holds one that nobody has taken out.
    pub fn held(&self) -> impl Iterator<Item = &User> {
        self.held.values().map(|held| &held.user)
    }

    fn of(&self, user: &User, now: Now) -> Option<&Held> {
        let held = self.held.get(&user.id)?;
        (held.user == *user && held.stands(now)).then_some(held)
    }

    /// Puts the idle end of `user`'s grant off, if it stands; never the absolute one.
    pub fn renew(&mut self, user: &User, now: Now) {
        if let Some(held) = self.held.get_mut(&user.id)
            && held.stands(now)
        {
            held.idle = now.boot.saturating_add(self.limits.idle);
        }
    }

    /// Ends every grant of this name and of this id; gives whose there were.
    pub fn end(&mut self, user: &User) -> Vec<User> {
        let mut ended = Vec::new();
        self.held.retain(|_, held| {
            let ends = held.user.id == user.id || held.user.name == user.name;
            if ends {
                ended.push(held.user.clone());
            }
            !ends
        });
        ended
    }

    /// Takes out those that have ended by themselves.
    pub fn expire(&mut self, now: Now) -> Vec<(User, GrantEnd)> {
        if now.boot < self.earliest {
            return Vec::new();
        }
        let mut ended = Vec::new();
        self.held.retain(|_, held| {
            let stands = held.stands(now);
            if !stands {
                let end = if held.absolute <= held.idle {
                    GrantEnd::Absolute
                } else {
                    GrantEnd::Idle
                };
                ended.push((held.user.clone(), end));
            }
            stands
        });
        self.earliest = self
            .held
            .values()
            .map(Held::end)
            .min()
            .unwrap_or(Duration::MAX);
        ended
    }

    /// When [`expire`](Self::expire) is to be called at the latest; none if nobody holds one.
    #[must_use]
    pub fn next_end(&self) -> Option<Duration> {
        (!self.held.is_empty()).then_some(self.earliest)
    }
}

fn hash(grant: &Grant) -> [u8; 32] {
    Sha256::digest(grant.bits()).into()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const LIMITS: Limits = Limits {
        idle: Duration::from_secs(30),
        absolute: Duration::from_secs(100),
    };

    fn user(name: &str, id: i64) -> User {
        User {
            name: name.to_owned().try_into().unwrap(),
            id: id.try_into().unwrap(),
        }
    }

    fn at(boot: u64) -> Now {
        Now {
            wall: UNIX_EPOCH + Duration::from_secs(1_000_000 + boot),
            boot: Duration::from_secs(boot),
        }
    }

    fn make(grants: &mut Grants, user: &User, bits: u8, now: u64) -> Grant {
        grants.make(user, &Zeroizing::new([bits; 32]), at(now))
    }

    #[test]
    fn a_grant_proves_its_own_user_until_it_is_idle() {
        let mut grants = Grants::new(LIMITS);
        let (alice, bob) = (user("alice", 1), user("bob", 2));
        let grant = make(&mut grants, &alice, 5, 0);

        assert_eq!(grants.proves(&alice, &grant, at(29)), Some(1_000_100));
        for (who, grant, now) in [
            (&bob, &grant, 0),
            (&user("alice", 2), &grant, 0),
            (&user("alicia", 1), &grant, 0),
            (&alice, &Grant::from_random([6; 32]), 0),
            (&alice, &Grant::from_random([0; 32]), 0),
            (&alice, &grant, 30),
        ] {
            assert_eq!(grants.proves(who, grant, at(now)), None, "{who:?} at {now}");
        }
        assert_eq!(grants.expire(at(30)), [(alice, GrantEnd::Idle)]);
        assert_eq!(grants.next_end(), None);
    }

    #[test]
    fn renewals_put_off_the_idle_end_and_never_the_absolute_one() {
        let mut grants = Grants::new(LIMITS);
        let alice = user("alice", 1);
        let grant = make(&mut grants, &alice, 5, 0);
        for now in (0..100).step_by(20) {
            assert_eq!(grants.expire(at(now)), []);
            assert_eq!(grants.proves(&alice, &grant, at(now)), Some(1_000_100));
            grants.renew(&alice, at(now));
        }
        assert!(grants.proves(&alice, &grant, at(99)).is_some());
        assert!(grants.proves(&alice, &grant, at(100)).is_none());
        // One that has ended is not renewed, even if nobody has taken it out yet.
        grants.renew(&alice, at(100));
        assert_eq!(grants.expire(at(100)), [(alice, GrantEnd::Absolute)]);
    }

    #[test]
    fn a_user_has_one_grant_the_last() {
        let mut grants = Grants::new(LIMITS);
        let alice = user("alice", 1);
        let first = make(&mut grants, &alice, 5, 0);
        let second = make(&mut grants, &alice, 6, 10);

        assert!(grants.proves(&alice, &first, at(11)).is_none());
        assert!(grants.proves(&alice, &second, at(11)).is_some());
        assert_eq!(grants.expire(at(30)), []);
        assert_eq!(grants.next_end(), Some(Duration::from_secs(40)));
    }

    #[test]
    fn an_end_is_that_of_everybody_who_has_the_name_or_the_id() {
        let mut grants = Grants::new(LIMITS);
        for (name, id) in [("alice", 1), ("bob", 2), ("carol", 3)] {
            make(&mut grants, &user(name, id), 1, 0);
        }
        assert_eq!(
            grants.end(&user("alice", 2)),
            [user("alice", 1), user("bob", 2)]
        );
        assert_eq!(grants.end(&user("alice", 2)), []);
        assert!(grants.until(&user("carol", 3), at(0)).is_some());
    }

    #[test]
    fn no_wake_is_missed_whatever_is_renewed() {
        let mut grants = Grants::new(LIMITS);
        let users: Vec<User> = (1..=5).map(|id| user(&format!("u{id}"), id)).collect();
        for (user, now) in users.iter().zip([0, 7, 11, 13, 29]) {
            grants.expire(at(now));
            make(&mut grants, user, 1, now);
        }
        grants.renew(&users[0], at(29));
        let mut ended = Vec::new();
        let mut now = 29;
        while let Some(next) = grants.next_end() {
            assert!(next >= Duration::from_secs(now), "a wake in the past");
            now = next.as_secs();
            ended.extend(
                grants
                    .expire(at(now))
                    .into_iter()
                    .map(|(who, _)| (now, who.id.into())),
            );
        }
        assert_eq!(ended, [(37, 2), (41, 3), (43, 4), (59, 1), (59, 5_i64)]);
    }
}
