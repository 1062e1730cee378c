//! authd as the test plays it: users with and without a second factor, and what the gateway asked.

use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kai_emulators::bot_api::UserId;
use kai_proto::{
    code::Code,
    gateway_authd::{Reply, Request, Standing, Verdict},
    grant::Grant,
    hello::Hello,
};

use super::{LONG, peers::Listener};

/// What the gateway asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Standing(Option<Grant>),
    Verify(Code),
    Lock,
}

/// How one user stands.
#[derive(Default)]
struct Person {
    enrolled: bool,
    /// Said instead of what would follow from the rest.
    standing: Option<Standing>,
    /// Said to the next codes instead of what would follow.
    verdicts: VecDeque<Verdict>,
    /// Codes that are right, each once.
    codes: Vec<String>,
    recovery_left: Option<u8>,
    grant: Option<Grant>,
    asked: Vec<(Instant, Asked)>,
}

#[derive(Default)]
struct State {
    people: HashMap<i64, Person>,
    grants: u8,
    /// Takes questions and answers none.
    silent: bool,
    /// Ends the connection at a code, instead of an answer.
    drops_codes: bool,
    /// Ends the connection after the next answer to how somebody stands, and is silent from then on.
    leaves: bool,
}

/// A scripted authd.
pub struct Authd {
    listener: Arc<Listener>,
    state: Arc<Mutex<State>>,
}

impl Authd {
    pub fn new(path: PathBuf) -> Self {
        Self {
            listener: Listener::new(path),
            state: Arc::default(),
        }
    }

    pub fn start(&self) {
        let state = Arc::clone(&self.state);
        self.listener.start(move |peer| {
            while let Some(request) = peer.receive::<Request>() {
                let mut state = state.lock().unwrap();
                let is_code = matches!(request, Request::Verify { .. });
                let is_standing = matches!(request, Request::Standing { .. });
                let reply = state.answer(request);
                if is_standing && state.leaves {
                    peer.send(&reply);
                    state.silent = true;
                    return peer.end();
                }
                if is_code && state.drops_codes {
                    return peer.end();
                }
                if !state.silent {
                    peer.send(&reply);
                }
            }
        });
    }

    pub fn stop(&self) {
        self.listener.stop();
    }

    /// A user has a second factor from now on, and no grant.
    pub fn enrol(&self, user: UserId) {
        self.person(user, |person| {
            person.enrolled = true;
            person.grant = None;
        });
    }

    /// This code is right, once.
    pub fn expect(&self, user: UserId, code: &str) {
        self.person(user, |person| person.codes.push(code.to_owned()));
    }

    /// The next right code is a recovery code, and so many are left then.
    pub fn recovery_left(&self, user: UserId, left: u8) {
        self.person(user, |person| person.recovery_left = Some(left));
    }

    /// Says this of a user, whatever follows from the rest.
    pub fn says(&self, user: UserId, standing: Option<Standing>) {
        self.person(user, |person| person.standing = standing);
    }

    /// Says this to the next code of a user.
    pub fn judges(&self, user: UserId, verdict: Verdict) {
        self.person(user, |person| person.verdicts.push_back(verdict));
    }

    /// The proof of a user is over.
    pub fn ends(&self, user: UserId) {
        self.person(user, |person| person.grant = None);
    }

    /// The grant that stands.
    pub fn grant(&self, user: UserId) -> Option<Grant> {
        self.person(user, |person| person.grant.clone())
    }

    pub fn is_silent(&self, silent: bool) {
        self.state.lock().unwrap().silent = silent;
    }

    pub fn drops_codes(&self, drops: bool) {
        self.state.lock().unwrap().drops_codes = drops;
    }

    /// The next answer to how somebody stands is the last one.
    pub fn leaves_after_standing(&self) {
        self.state.lock().unwrap().leaves = true;
    }

    /// Answers as at first.
    pub fn is_itself(&self) {
        let mut state = self.state.lock().unwrap();
        (state.silent, state.drops_codes, state.leaves) = (false, false, false);
    }

    /// What the gateway asked about a user so far.
    pub fn asked(&self, user: UserId) -> Vec<Asked> {
        self.person(user, |p| p.asked.iter().map(|(_, a)| a.clone()).collect())
    }

    /// When it asked how the user stands.
    pub fn asked_at(&self, user: UserId) -> Vec<Instant> {
        self.person(user, |person| {
            let standings = person.asked.iter();
            standings
                .filter(|(_, asked)| matches!(asked, Asked::Standing(_)))
                .map(|(at, _)| *at)
                .collect()
        })
    }

    /// How many codes of a user it was asked about.
    pub fn codes(&self, user: UserId) -> usize {
        let asked = self.asked(user);
        asked
            .iter()
            .filter(|asked| matches!(asked, Asked::Verify(_)))
            .count()
    }

    /// Waits until it was asked about so many codes of a user.
    pub fn wait_codes(&self, user: UserId, count: usize) {
        let start = Instant::now();
        while self.codes(user) < count {
            assert!(start.elapsed() < LONG, "never asked about code {count}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn person<T>(&self, user: UserId, work: impl FnOnce(&mut Person) -> T) -> T {
        let mut state = self.state.lock().unwrap();
        work(state.people.entry(user.0).or_default())
    }
}

impl State {
    fn answer(&mut self, request: Request) -> Reply {
        let now = unix_now();
        let (user, asked) = match request {
            Request::Hello(_) => return Reply::Hello(Hello::ours()),
            Request::Standing { user, grant, .. } => (user, Asked::Standing(grant)),
            Request::Verify { user, code } => (user, Asked::Verify(code)),
            Request::Lock { user } => (user, Asked::Lock),
        };
        let person = self.people.entry(user.id.into()).or_default();
        person.asked.push((Instant::now(), asked.clone()));
        match asked {
            Asked::Standing(grant) => Reply::Standing(match person.standing {
                Some(standing) => standing,
                None if !person.enrolled => Standing::NotEnrolled,
                None if grant.is_some() && grant == person.grant => {
                    Standing::Proven { until: now + 3600 }
                }
                None => Standing::CodeNeeded,
            }),
            Asked::Verify(_) if !person.verdicts.is_empty() => {
                Reply::Verdict(person.verdicts.pop_front().unwrap())
            }
            Asked::Verify(_) if !person.enrolled => Reply::Verdict(Verdict::NotEnrolled),
            Asked::Verify(code) => {
                let is_it = |right: &String| Code::parse(right).as_ref() == Some(&code);
                let Some(index) = person.codes.iter().position(is_it) else {
                    return Reply::Verdict(Verdict::Refused);
                };
                person.codes.remove(index);
                self.grants += 1;
                let grant = Grant::from_random([self.grants; 32]);
                person.grant = Some(grant.clone());
                Reply::Verdict(Verdict::Granted {
                    grant,
                    until: now + 3600,
                    recovery_left: person.recovery_left.take(),
                })
            }
            Asked::Lock => {
                person.grant = None;
                Reply::Locked
            }
        }
    }
}

pub fn unix_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs()
}
