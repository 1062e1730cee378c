//! The gateway from its start to its end.

use std::{
    env,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kai_program::{config::Config, notify::Notifier};
use kai_proto::sockets;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    time::sleep_until,
};
use tracing::{error, info, warn};

use crate::{
    authd::Authd,
    authorise::Roll,
    closing::{Closing, Phase},
    commands,
    gate::Times,
    inbox::{Inbox, OpenError},
    polling,
    reply::Means,
    roll,
    telegram::{ClientError, Telegram},
    token::{self, TokenError},
};

/// How long calls that are under way may take at the end.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long it may take to say that what ran was stopped.
const GOODBYE: Duration = Duration::from_secs(8);
/// Between two tries to learn the bot's name.
const ASK_AGAIN: Duration = Duration::from_secs(3);
/// Strangers that wait to be reported; more are not worth it.
const STRANGERS: usize = 64;

/// Why the gateway does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// It was started as root.
    #[error(
        "kai-gateway holds no privilege and refuses to run as root; start it as its own account"
    )]
    Root,
    /// There is no token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// There is no client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// There is no inbox.
    #[error(transparent)]
    Inbox(#[from] OpenError),
    /// The kernel does not give what every program needs.
    #[error("cannot start: {0}")]
    Start(#[from] std::io::Error),
}

/// Refuses an account with the privileges of root.
///
/// # Errors
/// [`ServiceError::Root`].
pub fn refuse_root(uid: nix::unistd::Uid) -> Result<(), ServiceError> {
    if uid.is_root() {
        return Err(ServiceError::Root);
    }
    Ok(())
}

/// Reads the token and makes sure that the client can be made.
///
/// # Errors
/// [`ServiceError::Token`] or [`ServiceError::Client`].
pub fn telegram(config: &Config) -> Result<Telegram, ServiceError> {
    let credentials = env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let token = token::read(credentials.as_deref(), &config.telegram.token_file)?;
    Ok(Telegram::new(&config.telegram.api_url, &token)?)
}

/// Runs until it is told to stop.
///
/// # Errors
/// [`ServiceError`], before anything was received.
pub fn serve(config: &Config) -> Result<(), ServiceError> {
    let telegram = Arc::new(telegram(config)?);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let notifier = Notifier::connect(Instant::now())?;
    let (inbox, saved, inbox_thread) = Inbox::open(&config.gateway_state(), now)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // Taken so that it does not end the process: the gateway reads no file again.
        let _hangup = signal(SignalKind::hangup())?;
        let means = Arc::new(Means {
            telegram: Arc::clone(&telegram),
            inbox,
            authd: Authd::start(sockets::gateway_authd(&config.paths.run)),
            times: Times {
                idle: config.second_factor.idle,
                question: config.second_factor.question,
                reading: config.second_factor.reading,
            },
            broker: sockets::gateway_broker(&config.paths.run),
            closing: Closing::default(),
            me: OnceLock::new(),
        });
        let (publish, rolls) = watch::channel(None);
        let (strangers, reported) = mpsc::channel(STRANGERS);
        tokio::spawn(roll::keep(means.broker.clone(), reported, publish));
        tokio::spawn(introduce(Arc::clone(&means)));
        let patience = config.limits.stop;
        let phases = means.closing.follow();
        tokio::spawn(tell(notifier, rolls.clone(), phases, patience + GOODBYE));
        info!("started");
        // A task of its own: a wake of the runtime's first future costs a system call.
        let polling = tokio::spawn(polling::run(Arc::clone(&means), saved, rolls, strangers));
        tokio::select! {
            _ = polling => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tokio::select! {
            () = finish(&means.closing, patience) => {}
            // Whoever says it twice does not want to wait.
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        telegram.close(FAREWELL).await;
        // What those calls showed is still to be noted down.
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        Ok::<_, ServiceError>(())
    })?;
    // The last ways to the inbox end with the tasks of the runtime.
    runtime.shutdown_timeout(Duration::from_millis(100));
    inbox_thread.join();
    info!("stopped");
    Ok(())
}

/// Lets what runs finish for `patience`, and then stops it.
async fn finish(closing: &Closing, patience: Duration) {
    if closing.come_to(Phase::Finishing, patience).await {
        return;
    }
    info!("what has not finished by now is stopped");
    if !closing.come_to(Phase::Stopping, GOODBYE).await {
        warn!("not everybody could be told that their turn was stopped");
    }
}

/// Tells the service manager that this gateway is ready, once it knows its users and so receives messages;
/// that it is alive; and that it stops, which may take as long as `goodbye`.
async fn tell(
    mut notifier: Notifier,
    mut rolls: watch::Receiver<Option<Arc<Roll>>>,
    mut phases: watch::Receiver<Phase>,
    goodbye: Duration,
) {
    let (mut ready, mut stopping) = (false, false);
    loop {
        let due = notifier.due();
        tokio::select! {
            known = rolls.wait_for(Option::is_some), if !ready => {
                if known.is_err() {
                    return;
                }
                ready = true;
                notifier.ready();
            }
            () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {
                notifier.alive(Instant::now());
            }
            closing = phases.wait_for(|phase| *phase != Phase::Open), if !stopping => {
                if closing.is_err() {
                    return;
                }
                stopping = true;
                notifier.stopping(goodbye + FAREWELL);
            }
            else => return,
        }
    }
}

/// Learns the bot's name, by which commands in groups are told apart, and fills its menu.
async fn introduce(means: Arc<Means>) {
    let name = loop {
        match means.telegram.name().await {
            Ok(name) => break name,
            Err(problem) => error!("the bot's name is not known yet: {problem}"),
        }
        tokio::time::sleep(ASK_AGAIN).await;
    };
    info!(bot = name.as_str(), "Telegram knows the bot");
    let _ = means.me.set(name);
    if let Err(problem) = means.telegram.set_menu(&commands::MENU).await {
        warn!("the menu of commands is not set: {problem}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_refused_and_nobody_else() {
        assert!(refuse_root(nix::unistd::Uid::from_raw(0)).is_err());
        assert!(refuse_root(nix::unistd::Uid::from_raw(1000)).is_ok());
    }
}
