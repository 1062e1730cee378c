//! The broker, authd and workers as the test plays them.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::Shutdown,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use kai_emulators::bot_api::{ChatId, UserId};
use kai_proto::{
    codec::{self, Message},
    conversation::{Finished, FromWorker, Outcome, Prompt, ToWorker, TurnEvent},
    frame::FrameReader,
    gateway_broker as broker,
    grant::Grant,
    hello::Hello,
    ids::{PromptId, Role, TelegramId, UserName},
};

use super::LONG;

/// One end of a connection of kai's.
pub struct Peer(UnixStream);

impl Peer {
    pub fn send<M: Message>(&self, message: &M) {
        let mut frame = Vec::new();
        codec::encode_frame(message, &mut frame).unwrap();
        // A gateway that was just killed reads nothing.
        let _ = (&self.0).write_all(&frame);
    }

    /// The next message; none at the end.
    pub fn receive<M: Message>(&self) -> Option<M> {
        let mut reader = FrameReader::new();
        let mut chunk = [0; 4096];
        loop {
            let wanted = reader.wanted().min(chunk.len());
            let read = (&self.0).read(&mut chunk[..wanted]).ok()?;
            if read == 0 {
                return None;
            }
            if let Some(body) = reader.push(&chunk[..read], M::LIMIT).unwrap() {
                return Some(codec::decode(&body).unwrap());
            }
        }
    }

    pub fn end(&self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// A daemon that can go away and come back.
pub struct Listener {
    path: PathBuf,
    open: Mutex<Vec<Arc<Peer>>>,
    serving: Mutex<Option<UnixListener>>,
}

impl Listener {
    pub fn new(path: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            path,
            open: Mutex::default(),
            serving: Mutex::default(),
        })
    }

    pub fn start(self: &Arc<Self>, serve: impl Fn(Arc<Peer>) + Send + Clone + 'static) {
        let _ = std::fs::remove_file(&self.path);
        let listener = UnixListener::bind(&self.path).unwrap();
        std::fs::set_permissions(&self.path, PermissionsExt::from_mode(0o666)).unwrap();
        *self.serving.lock().unwrap() = Some(listener.try_clone().unwrap());
        let this = Arc::clone(self);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let peer = Arc::new(Peer(stream));
                this.open.lock().unwrap().push(Arc::clone(&peer));
                let serve = serve.clone();
                std::thread::spawn(move || serve(peer));
            }
        });
    }

    pub fn stop(&self) {
        let _ = std::fs::remove_file(&self.path);
        if let Some(listener) = self.serving.lock().unwrap().take() {
            let _ = nix::sys::socket::shutdown(
                std::os::fd::AsRawFd::as_raw_fd(&listener),
                nix::sys::socket::Shutdown::Both,
            );
        }
        for peer in self.open.lock().unwrap().drain(..) {
            peer.end();
        }
    }
}

/// The broker: gives its table, notes strangers, and leaves each attach to the test.
pub struct Broker {
    listener: Arc<Listener>,
    state: Arc<(Mutex<BrokerState>, Condvar)>,
}

#[derive(Default)]
struct BrokerState {
    users: Vec<broker::UserEntry>,
    rolls: Vec<Arc<Peer>>,
    strangers: Vec<i64>,
    attaches: HashMap<i64, Vec<Attach>>,
    required: bool,
    subscribed: usize,
}

impl Broker {
    pub fn new(path: PathBuf, users: &[UserId]) -> Self {
        let state = BrokerState {
            users: users.iter().map(|user| entry(*user, &[])).collect(),
            ..BrokerState::default()
        };
        Self {
            listener: Listener::new(path),
            state: Arc::new((Mutex::new(state), Condvar::new())),
        }
    }

    pub fn start(&self) {
        let state = Arc::clone(&self.state);
        self.listener.start(move |peer| serve(&state, &peer));
    }

    pub fn stop(&self) {
        self.listener.stop();
    }

    /// A reload: these are the users now, and these the chats of each.
    pub fn reload(&self, users: &[(UserId, &[ChatId])]) {
        let mut state = self.state.0.lock().unwrap();
        state.users = users
            .iter()
            .map(|(user, chats)| entry(*user, chats))
            .collect();
        if state.required {
            for user in &mut state.users {
                user.second_factor = broker::SecondFactor::Required;
            }
        }
        for roll in &state.rolls {
            give(roll, &state.users);
        }
    }

    /// From the next table on everybody must have a second factor.
    pub fn require_second_factor(&self) {
        let mut state = self.state.0.lock().unwrap();
        state.required = true;
        for user in &mut state.users {
            user.second_factor = broker::SecondFactor::Required;
        }
    }

    /// Waits for the next attach of a user; nothing is said on it yet.
    pub fn attach(&self, user: UserId) -> Attach {
        let found = self.wait(|state| {
            let waiting = state.attaches.get_mut(&user.0)?;
            (!waiting.is_empty()).then(|| waiting.remove(0))
        });
        found.expect("the gateway never attached")
    }

    pub fn has_attach(&self, user: UserId) -> bool {
        let state = self.state.0.lock().unwrap();
        state
            .attaches
            .get(&user.0)
            .is_some_and(|waiting| !waiting.is_empty())
    }

    pub fn strangers(&self) -> Vec<i64> {
        self.state.0.lock().unwrap().strangers.clone()
    }

    /// Waits until a gateway has had the table.
    pub fn wait_subscribed(&self) {
        self.wait(|state| (state.subscribed > 0).then_some(()))
            .expect("no gateway came");
    }

    fn wait<T>(&self, mut look: impl FnMut(&mut BrokerState) -> Option<T>) -> Option<T> {
        let until = Instant::now() + LONG;
        let mut state = self.state.0.lock().unwrap();
        loop {
            if let Some(found) = look(&mut state) {
                return Some(found);
            }
            let left = until.checked_duration_since(Instant::now())?;
            state = self.state.1.wait_timeout(state, left).unwrap().0;
        }
    }
}

fn serve(state: &(Mutex<BrokerState>, Condvar), peer: &Arc<Peer>) {
    use broker::{Reply, Request};
    while let Some(request) = peer.receive::<Request>() {
        let (lock, changed) = state;
        match request {
            Request::Hello(_) => peer.send(&Reply::Hello(Hello::ours())),
            Request::Subscribe => {
                let mut state = lock.lock().unwrap();
                state.subscribed += 1;
                give(peer, &state.users);
                state.rolls.push(Arc::clone(peer));
            }
            Request::Stranger { id, .. } => lock.lock().unwrap().strangers.push(id.into()),
            Request::Attach { user, grant } => {
                let mut state = lock.lock().unwrap();
                let waiting = state.attaches.entry(user.into()).or_default();
                waiting.push(Attach {
                    peer: Arc::clone(peer),
                    grant,
                });
                changed.notify_all();
                // The rest of the stream is the worker's.
                return;
            }
        }
        changed.notify_all();
    }
}

fn give(peer: &Peer, users: &[broker::UserEntry]) {
    for user in users {
        peer.send(&broker::Reply::User(user.clone()));
    }
    peer.send(&broker::Reply::UsersEnd);
}

fn entry(user: UserId, chats: &[ChatId]) -> broker::UserEntry {
    broker::UserEntry {
        id: TelegramId::try_from(user.0).unwrap(),
        name: UserName::try_from(format!("user {user}")).unwrap(),
        role: Role::User,
        second_factor: broker::SecondFactor::Optional,
        chats: chats
            .iter()
            .map(|chat| kai_proto::ids::ChatId::try_from(chat.0).unwrap())
            .collect(),
        model: None,
    }
}

/// A connection that the gateway wants a worker on.
pub struct Attach {
    peer: Arc<Peer>,
    pub grant: Option<Grant>,
}

impl Attach {
    /// The worker says Hello.
    pub fn accepted(self) -> Worker {
        self.peer.send(&FromWorker::Hello(Hello::ours()));
        Worker(self.peer)
    }

    /// The broker says no.
    pub fn refused(self, refusal: broker::Refusal) {
        self.peer.send(&FromWorker::Refused(refusal));
        self.peer.end();
    }

    /// It ends before anything is said.
    pub fn dropped(self) {
        self.peer.end();
    }
}

/// A user's worker.
pub struct Worker(Arc<Peer>);

impl Worker {
    /// What the gateway says next; none if it ended the connection.
    pub fn told(&self) -> Option<ToWorker> {
        self.0.0.set_read_timeout(Some(LONG)).unwrap();
        self.0.receive()
    }

    /// The next prompt.
    pub fn prompt(&self) -> Prompt {
        match self.told() {
            Some(ToWorker::Prompt(prompt)) => prompt,
            other => panic!("no prompt but {other:?}"),
        }
    }

    /// What the gateway says within a short while, if anything.
    pub fn told_soon(&self) -> Option<ToWorker> {
        self.0
            .0
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        self.0.receive()
    }

    pub fn turn(&self, prompt: PromptId, event: TurnEvent) {
        self.0.send(&FromWorker::Turn { prompt, event });
    }

    pub fn accept(&self, prompt: PromptId) {
        self.turn(prompt, TurnEvent::Accepted);
        self.turn(prompt, TurnEvent::Started);
    }

    pub fn text(&self, prompt: PromptId, text: &str) {
        self.turn(prompt, TurnEvent::Text(text.to_owned()));
    }

    pub fn finish(&self, prompt: PromptId, outcome: Outcome) {
        self.turn(
            prompt,
            TurnEvent::Finished(Finished {
                outcome,
                cost_micro_usd: 0,
                duration_ms: 1,
            }),
        );
    }

    /// The whole of a good turn.
    pub fn answer(&self, prompt: PromptId, text: &str) {
        self.accept(prompt);
        self.text(prompt, text);
        self.finish(prompt, Outcome::Done);
    }

    pub fn say(&self, said: &FromWorker) {
        self.0.send(said);
    }

    /// kill -9: the connection ends.
    pub fn die(self) {
        self.0.end();
    }
}
