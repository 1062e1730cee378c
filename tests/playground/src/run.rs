//! From the command line to the end, whatever ends it.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use kai_emulators::bot_api::{BotApi, BotApiOptions};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinHandle,
};

use crate::{
    arguments::Arguments,
    cast::Member,
    ground::{
        self, Daemon, Ground, GroundError, Names, Options, Separation,
        programs::{self, Programs},
    },
    hosted::{self, AgentError, Model},
    page::Page,
    script::{
        parse::{self, Mistake, Step},
        play::{self, Stop},
    },
    stage::{Stage, StageError},
};

/// As a shell says of what Ctrl-C ended.
const INTERRUPTED: u8 = 130;
/// As a script with a mistake ends.
const SCRIPT_MISTAKE: u8 = 2;

/// Why the playground ended without having been asked to.
#[derive(Debug, thiserror::Error)]
enum PlayError {
    #[error(transparent)]
    Ground(#[from] GroundError),
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error(transparent)]
    Stop(#[from] Stop),
    #[error("{0}: {1}")]
    Script(PathBuf, ScriptError),
    #[error("cannot listen on 127.0.0.1:{0}: {1}; take another with --port")]
    Port(u16, io::Error),
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
    #[error("ended by a signal")]
    Signal,
}

#[derive(Debug, thiserror::Error)]
enum ScriptError {
    #[error(transparent)]
    Mistake(#[from] Mistake),
    #[error(transparent)]
    Unreadable(#[from] io::Error),
}

/// Runs the playground.
pub fn run(arguments: &Arguments) -> ExitCode {
    let played = Runtime::new()
        .map_err(|error| PlayError::System("cannot start", error))
        .and_then(|runtime| {
            let played = runtime.block_on(play(arguments));
            // Whatever still blocks has nothing more to say.
            runtime.shutdown_background();
            played
        });
    match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(PlayError::Signal) => ExitCode::from(INTERRUPTED),
        // Said where it happened, before the logs.
        Err(PlayError::Stop(_)) => ExitCode::FAILURE,
        Err(problem) => {
            say(&problem.to_string());
            match problem {
                PlayError::Script(..) => ExitCode::from(SCRIPT_MISTAKE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

async fn play(arguments: &Arguments) -> Result<(), PlayError> {
    // Before anything is made: a mistake in the script, or a port that is taken, is known at once.
    let script = arguments.script.as_deref().map(read_script).transpose()?;
    let page = match &script {
        Some(_) => None,
        None => Some(
            Page::listen(arguments.port)
                .await
                .map_err(|error| PlayError::Port(arguments.port, error))?,
        ),
    };
    programs::build_if_run_by_cargo()?;
    let mut stop =
        StopSignals::watch().map_err(|error| PlayError::System("cannot watch signals", error))?;
    let wanted = arguments.clone();
    let setting_up = tokio::task::spawn_blocking(move || set_up(&wanted));
    let (stage, model) = unless(&mut stop, setting_up).await??;
    let stage = Arc::new(stage);
    let ended = match (script, page) {
        (Some((steps, directory)), _) => {
            let stage = Arc::clone(&stage);
            let told = Arc::clone(&stop.told);
            let playing = tokio::task::spawn_blocking(move || {
                play::play(&stage, &steps, &directory, &told, &mut io::stdout().lock())
            });
            match unless(&mut stop, playing).await {
                Ok(played) => played.map_err(PlayError::from),
                Err(ended) => Err(ended),
            }
        }
        (None, Some(page)) => {
            let link = page.link();
            let _ = writeln!(
                io::stdout(),
                "\n    {link}\n\nCtrl-C ends it and removes all that it made."
            );
            tokio::select! {
                served = page.serve(Arc::clone(&stage), model.word) => {
                    served.map_err(|error| PlayError::System("the page", error))
                }
                _ = stop.word.recv() => Ok(()),
            }
        }
        (None, None) => Ok(()),
    };
    if let Err(PlayError::Stop(stop)) = &ended {
        say(&stop.to_string());
        show_logs(&stage);
    }
    say("removing what was made");
    let removing = tokio::task::spawn_blocking(move || drop(stage));
    let _ = removing.await;
    ended
}

/// Waits for `work`, which makes or uses what has to be removed, or for a signal: then for the rest of
/// the work as well, so that what it has made by then is dropped before the process ends. A second
/// signal does not wait.
async fn unless<T>(stop: &mut StopSignals, mut work: JoinHandle<T>) -> Result<T, PlayError> {
    let broken = |error| PlayError::System("a task broke", io::Error::other(error));
    tokio::select! {
        done = &mut work => done.map_err(broken),
        _ = stop.word.recv() => {
            say("ending");
            tokio::select! {
                done = work => drop(done),
                _ = stop.word.recv() => {}
            }
            Err(PlayError::Signal)
        }
    }
}

fn read_script(file: &Path) -> Result<(Vec<Step>, PathBuf), PlayError> {
    let failed = |error| PlayError::Script(file.to_owned(), error);
    let text = fs::read_to_string(file).map_err(|error| failed(error.into()))?;
    let steps = parse::parse(&text).map_err(|mistake| failed(mistake.into()))?;
    Ok((steps, file.parent().unwrap_or(Path::new("")).to_owned()))
}

/// What asks the process to end.
struct StopSignals {
    /// One word a signal.
    word: mpsc::Receiver<()>,
    /// True since the first.
    told: Arc<AtomicBool>,
}

impl StopSignals {
    fn watch() -> io::Result<Self> {
        let (word, words) = mpsc::channel(4);
        let told = Arc::new(AtomicBool::new(false));
        for kind in [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ] {
            let mut signals = signal(kind)?;
            let (word, told) = (word.clone(), Arc::clone(&told));
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    told.store(true, Ordering::Relaxed);
                    // Full: there are enough words already.
                    let _ = word.try_send(());
                }
            });
        }
        Ok(Self { word: words, told })
    }
}

fn set_up(arguments: &Arguments) -> Result<(Stage, Model), PlayError> {
    if ground::clean_up()? {
        say("removed what an earlier run had left");
    }
    let emulator = |error| PlayError::System("cannot start the emulated Telegram", error);
    let telegram = BotApi::start(BotApiOptions::default()).map_err(emulator)?;
    let mut options = Options::new(
        Names::Playground,
        Member::people(),
        &telegram.url(),
        telegram.token(),
    );
    let model = hosted::choose(arguments, &mut options)?;
    say(&model.sentence);
    let ground = Ground::with_programs(&options, &Programs::locate()?)?;
    clean_up_at_a_panic(&ground);
    describe(&ground);
    let stage = Stage::open(ground, telegram)?;
    say("authd, broker and gateway are ready");
    Ok((stage, model))
}

fn describe(ground: &Ground) {
    if ground.separation() == Separation::Accounts {
        let accounts: Vec<&str> = [Member::Alice, Member::Bob]
            .into_iter()
            .filter_map(|member| Some(ground.account(member.name()).ok()?.name.as_str()))
            .collect();
        say(&format!("made the accounts {}", accounts.join(" and ")));
    } else {
        say("not started as root, so this is less than an installed kai:");
        for sentence in ground.not_separated() {
            say(&format!("  {sentence}"));
        }
    }
    say(&format!(
        "everything else is in {}",
        ground.root().display()
    ));
}

/// Shows how each daemon saw the end of a conversation that went wrong.
fn show_logs(stage: &Stage) {
    for daemon in Daemon::ALL {
        let tail = stage.ground().log_tail(daemon);
        say(&format!("the last that {} wrote:\n{tail}", daemon.name()));
    }
}

/// A release build aborts at a panic, and drops nothing.
fn clean_up_at_a_panic(ground: &Ground) {
    let emergency = ground.emergency();
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        emergency.clean_up();
        std::process::abort();
    }));
}

/// One line for people. Nobody may be left to read it: that ends nothing.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "kai-playground: {line}");
}
