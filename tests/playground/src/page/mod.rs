//! The chat page: everything of it is in this program, and only loopback is listened on.

mod chats;
mod guard;
mod vitals;

use std::{
    convert::Infallible,
    io,
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path, Query, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use self::{chats::Told, guard::Guard, vitals::Vitals};
use crate::{
    cast::Member,
    ground::Separation,
    script::parse::Target,
    stage::{self, Stage, StageError},
};

/// Files above this are not taken: the Bot API gives a bot none that is larger.
const LARGEST_FILE: usize = 20 << 20;
/// Edits that follow each other faster are shown together.
const COALESCE: Duration = Duration::from_millis(25);
/// How often the page hears something, so that it knows that the playground is there.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// What no browser is to guess, keep, frame or load besides.
const HEADERS: [(header::HeaderName, HeaderValue); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
             img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'",
        ),
    ),
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    ),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];

/// What every request needs.
#[derive(Clone)]
struct Shared {
    stage: Arc<Stage>,
    guard: Arc<Guard>,
    vitals: Arc<Vitals>,
    /// What is said about this run at the top of the page.
    about: Arc<Value>,
}

/// A listening page.
#[derive(Debug)]
pub struct Page {
    listener: TcpListener,
    guard: Guard,
}

impl Page {
    /// Listens on loopback, on `port`.
    ///
    /// # Errors
    /// If the port is taken.
    pub async fn listen(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let guard = Guard::new(listener.local_addr()?.port())?;
        Ok(Self { listener, guard })
    }

    /// What to open in a browser.
    #[must_use]
    pub fn link(&self) -> String {
        self.guard.link()
    }

    /// Serves the page until the task is dropped.
    ///
    /// # Errors
    /// If the listener breaks.
    pub async fn serve(self, stage: Arc<Stage>, agent: &str) -> io::Result<()> {
        let vitals = Vitals::new();
        let shared = Shared {
            about: Arc::new(about(&stage, agent)),
            guard: Arc::new(self.guard),
            vitals: Arc::clone(&vitals),
            stage: Arc::clone(&stage),
        };
        let acts = Router::new()
            .route("/news", get(news))
            .route("/say", post(say))
            .route("/press", post(press))
            .route("/kill", post(kill))
            .route("/send-file", post(send_file))
            .route("/file/{id}", get(file))
            .layer(DefaultBodyLimit::max(LARGEST_FILE))
            .layer(middleware::from_fn_with_state(shared.clone(), with_token));
        let router = Router::new()
            .route("/", get(|| part("text/html; charset=utf-8", INDEX)))
            .route("/page.css", get(|| part("text/css; charset=utf-8", STYLE)))
            .route(
                "/page.js",
                get(|| part("text/javascript; charset=utf-8", SCRIPT)),
            )
            .nest("/api", acts)
            .layer(middleware::from_fn_with_state(shared.clone(), to_our_name))
            .with_state(shared);
        tokio::select! {
            served = async { axum::serve(self.listener, router).await } => served,
            () = vitals.keep(stage) => Ok(()),
        }
    }
}

const INDEX: &str = include_str!("../../page/page.html");
const STYLE: &str = include_str!("../../page/page.css");
const SCRIPT: &str = include_str!("../../page/page.js");

async fn part(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind)], text)
}

/// What the page says about this run, and what there is to try in it.
fn about(stage: &Stage, agent: &str) -> Value {
    let ground = stage.ground();
    let account = |member: Member| ground.account(member.name()).ok();
    let people: Vec<Value> = Member::ALL
        .into_iter()
        .map(|member| {
            let account = account(member);
            json!({
                "name": member.name(),
                "first_name": member.first_name(),
                "id": member.telegram_id(),
                "account": account.map(|account| &account.name),
                "uid": account.map(|account| account.uid),
            })
        })
        .collect();
    json!({
        "kind": "about",
        "agent": agent,
        "embedded": agent == "embedded",
        "separated": ground.separation() == Separation::Accounts,
        "not_separated": ground.not_separated(),
        "people": people,
        "bob_home": account(Member::Bob).map(|bob| &bob.home),
        "state": ground.state(),
        "run": ground.run(),
    })
}

/// Turns away what was sent to another name, and adds the headers of every answer.
async fn to_our_name(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let mut response = match shared.guard.may_load(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(_) => StatusCode::MISDIRECTED_REQUEST.into_response(),
    };
    response.headers_mut().extend(HEADERS);
    response
}

/// Turns away whoever does not have the link.
async fn with_token(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    match shared.guard.may_act(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(_) => (
            StatusCode::FORBIDDEN,
            "open the link that the playground printed",
        )
            .into_response(),
    }
}

/// A stream of JSON lines: about this run, then everything that happens.
async fn news(State(shared): State<Shared>) -> Response {
    let (lines, outlet) = mpsc::channel::<Bytes>(64);
    tokio::spawn(tell(shared, lines));
    let stream = ReceiverStream::new(outlet).map(Ok::<_, Infallible>);
    (
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(stream),
    )
        .into_response()
}

/// Tells one page what happens, until it is gone.
async fn tell(shared: Shared, lines: mpsc::Sender<Bytes>) {
    let mut changes = shared.stage.telegram().changes();
    let mut vitals = shared.vitals.watch();
    let mut told = Told::default();
    let mut news = vec![(*shared.about).clone()];
    loop {
        news.extend(told.news(shared.stage.telegram(), Instant::now()));
        for event in news.drain(..) {
            if lines.send(Bytes::from(format!("{event}\n"))).await.is_err() {
                return;
            }
        }
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                tokio::time::sleep(COALESCE).await;
                changes.borrow_and_update();
            }
            changed = vitals.changed() => {
                if changed.is_ok() {
                    news.push(vitals.borrow_and_update().clone());
                }
            }
            () = tokio::time::sleep(HEARTBEAT) => news.push(json!({"kind": "alive"})),
            () = lines.closed() => return,
        }
    }
}

#[derive(Deserialize)]
struct Say {
    who: String,
    text: String,
}

async fn say(State(shared): State<Shared>, Json(say): Json<Say>) -> Response {
    act(&say.who, |member| shared.stage.say(member, &say.text))
}

#[derive(Deserialize)]
struct Press {
    who: String,
    label: String,
    message: i32,
}

async fn press(State(shared): State<Shared>, Json(press): Json<Press>) -> Response {
    act(&press.who, |member| {
        let message = kai_emulators::bot_api::MessageId(press.message);
        let (user, chat) = (stage::user(member), stage::chat(member));
        shared
            .stage
            .telegram()
            .press(user, chat, message, &press.label)
            .map_err(StageError::from)
    })
}

#[derive(Deserialize)]
struct SentFile {
    who: String,
    name: String,
}

async fn send_file(
    State(shared): State<Shared>,
    Query(file): Query<SentFile>,
    bytes: Bytes,
) -> Response {
    act(&file.who, |member| {
        shared.stage.send_file(member, &file.name, &bytes)
    })
}

fn act<T>(who: &str, act: impl FnOnce(Member) -> Result<T, StageError>) -> Response {
    match Member::named(who) {
        Some(member) => answer(act(member).map(drop)),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

#[derive(Deserialize)]
struct Kill {
    target: String,
}

async fn kill(State(shared): State<Shared>, Json(kill): Json<Kill>) -> Response {
    let Some(target) = Target::parse(&kill.target) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let stage = Arc::clone(&shared.stage);
    let killed = tokio::task::spawn_blocking(move || stage.kill(target)).await;
    shared.vitals.hurry();
    match killed {
        Ok(killed) => answer(killed),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn file(State(shared): State<Shared>, Path(id): Path<String>) -> Response {
    match shared.stage.telegram().file(&id) {
        Some(bytes) => {
            ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn answer(done: Result<(), StageError>) -> Response {
    match done {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(problem) => (StatusCode::CONFLICT, problem.to_string()).into_response(),
    }
}
