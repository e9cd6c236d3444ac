//! A connection that comes back: one task dials, for ever, and tells everybody else how it stands.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use lapin::types::ShortString;
use lapin::{Channel, Connection, Event};
use tokio::sync::{OnceCell, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::dial::{Dialled, Socket, dial};
use super::options::RabbitOptions;
use crate::error::BusError;
use crate::serve::chain;

/// The first wait between tries; each is twice the one before, up to `--rabbit_retry_interval`.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// A connection that lived this long was a good one, after which the waits begin anew.
const GOOD_LIFE: Duration = Duration::from_secs(5);
/// How often a connection is looked at that says nothing of itself.
const LOOK: Duration = Duration::from_secs(1);
/// How long a broker may take to hear that nobody needs it any more.
const FAREWELL: Duration = Duration::from_secs(1);

/// A connection while it lives, and what is known of the broker as long as it does.
#[derive(Debug)]
pub(crate) struct Link {
    connection: Connection,
    socket: Socket,
    /// Channels with publisher confirms that nobody uses now.
    idle: Mutex<Vec<Channel>>,
    /// Exchanges and queues that were declared over this connection.
    declared: Mutex<HashSet<String>>,
    /// The queue of replies, once one is needed.
    pub(crate) replies: OnceCell<ShortString>,
}

impl Link {
    fn new(dialled: Dialled) -> Self {
        let Dialled { connection, socket } = dialled;
        Self { connection, socket, idle: Mutex::default(), declared: Mutex::default(), replies: OnceCell::new() }
    }

    /// A channel of one's own.
    pub(crate) async fn channel(&self) -> lapin::Result<Channel> {
        self.connection.create_channel().await
    }

    /// Ends the connection, after which the line makes a new one.
    pub(crate) fn cut(&self) {
        self.socket.cut();
    }

    /// The channels that wait for a sender.
    pub(crate) fn idle(&self) -> MutexGuard<'_, Vec<Channel>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names that need not be declared again.
    pub(crate) fn declared(&self) -> MutexGuard<'_, HashSet<String>> {
        self.declared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the line stands.
#[derive(Clone, Debug)]
enum State {
    /// The first round of tries is not over.
    Fresh,
    Up(Arc<Link>),
    /// The broker takes no messages for now, mostly for lack of memory or disk.
    Blocked(Arc<Link>),
    Down(Arc<str>),
}

/// Why there is no broker just now.
#[derive(Debug, thiserror::Error)]
enum Absent {
    #[error("{0}")]
    Down(Arc<str>),
    #[error("it takes no messages at the moment")]
    Blocked,
    #[error("it has not been reached yet")]
    Fresh,
}

impl From<Absent> for BusError {
    fn from(absent: Absent) -> Self {
        Self::Unavailable(Some(Box::new(absent)))
    }
}

/// The near end of the line.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    state: watch::Receiver<State>,
}

impl Line {
    /// Begins to dial, until `stop`.
    pub(crate) fn open(options: Arc<RabbitOptions>, purpose: &'static str, stop: CancellationToken) -> Self {
        let (tell, state) = watch::channel(State::Fresh);
        tokio::spawn(Keeper { options, purpose, tell, failures: 0, said: None }.keep(stop));
        Self { state }
    }

    /// The connection, to send over. Waits only for the very first tries, until `deadline`.
    pub(crate) async fn to_send(&self, deadline: Instant) -> Result<Arc<Link>, BusError> {
        match self.settled(deadline).await {
            State::Up(link) => Ok(link),
            State::Blocked(_) => Err(Absent::Blocked.into()),
            State::Down(reason) => Err(Absent::Down(reason).into()),
            State::Fresh => Err(Absent::Fresh.into()),
        }
    }

    /// The connection, to receive over, which a broker that takes no messages allows.
    pub(crate) async fn to_receive(&self, deadline: Instant) -> Result<Arc<Link>, BusError> {
        match self.settled(deadline).await {
            State::Up(link) | State::Blocked(link) => Ok(link),
            State::Down(reason) => Err(Absent::Down(reason).into()),
            State::Fresh => Err(Absent::Fresh.into()),
        }
    }

    async fn settled(&self, deadline: Instant) -> State {
        let mut state = self.state.clone();
        let settled = state.wait_for(|state| !matches!(state, State::Fresh));
        match tokio::time::timeout_at(deadline, settled).await {
            Ok(Ok(state)) => state.clone(),
            Ok(Err(_)) | Err(_) => self.state.borrow().clone(),
        }
    }

    /// Ends when nothing can be sent over this connection any more, and says why.
    pub(crate) async fn unusable(&self, link: &Arc<Link>) -> BusError {
        let mut state = self.state.clone();
        let left = state.wait_for(|state| !matches!(state, State::Up(now) if Arc::ptr_eq(now, link))).await;
        match left.as_deref() {
            Ok(State::Blocked(_)) => Absent::Blocked.into(),
            Ok(State::Down(reason)) => Absent::Down(Arc::clone(reason)).into(),
            Ok(State::Fresh | State::Up(_)) | Err(_) => Absent::Fresh.into(),
        }
    }

    /// Waits for a connection that is up, or for the line to end.
    pub(crate) async fn back(&self) -> Option<Arc<Link>> {
        let mut state = self.state.clone();
        match &*state.wait_for(|state| matches!(state, State::Up(_) | State::Blocked(_))).await.ok()? {
            State::Up(link) | State::Blocked(link) => Some(Arc::clone(link)),
            State::Fresh | State::Down(_) => None,
        }
    }
}

/// The far end: it alone dials.
struct Keeper {
    options: Arc<RabbitOptions>,
    purpose: &'static str,
    tell: watch::Sender<State>,
    /// Rounds in vain since the last good connection.
    failures: u32,
    /// What the log says already of this outage.
    said: Option<String>,
}

impl Keeper {
    async fn keep(mut self, stop: CancellationToken) {
        loop {
            let (dialled, place) = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                reached = self.reach() => reached,
            };
            info!(broker = place, purpose = self.purpose, "Connected to RabbitMQ.");
            self.said = None;
            let (link, since) = (Arc::new(Link::new(dialled)), Instant::now());
            let events = link.connection.events_listener();
            self.tell.send_replace(State::Up(Arc::clone(&link)));
            let reason = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    let farewell = link.connection.close(200, "OK".into());
                    // Whether it hears it or not: the socket is closed behind it.
                    let _ = tokio::time::timeout(FAREWELL, farewell).await;
                    link.cut();
                    return;
                }
                reason = self.watch_over(&link, events) => reason,
            };
            self.failures = if since.elapsed() < GOOD_LIFE { self.failures + 1 } else { 0 };
            self.lost(&reason);
            // Others may hold it, too.
            link.cut();
        }
    }

    /// Tries one broker after the other until one lets us in.
    async fn reach(&mut self) -> (Dialled, String) {
        loop {
            if self.failures > 0 {
                tokio::time::sleep(self.pause()).await;
            }
            let mut reason = String::new();
            for broker in &self.options.brokers {
                let place = format!("{}:{}", broker.0, broker.1);
                match dial(&self.options, broker, self.purpose).await {
                    Ok(dialled) => return (dialled, place),
                    Err(error) => reason = format!("{place}: {}", chain(&error)),
                }
            }
            self.failures += 1;
            self.lost(&reason);
        }
    }

    /// Tells everybody that there is no connection; the log, once for each reason.
    fn lost(&mut self, reason: &str) {
        self.tell.send_replace(State::Down(reason.into()));
        if self.said.as_deref() != Some(reason) {
            warn!(purpose = self.purpose, reason, "RabbitMQ is away; trying for ever.");
            self.said = Some(reason.to_owned());
        }
    }

    /// How long to wait after so many rounds in vain; never the same for two daemons.
    fn pause(&self) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.failures.saturating_sub(1).min(16));
        doubled.min(self.options.retry_interval).mul_f64(rand::random_range(0.5..=1.0))
    }

    /// Ends when the connection has, and says why.
    async fn watch_over(&self, link: &Arc<Link>, events: impl Stream<Item = Event>) -> String {
        let mut events = std::pin::pin!(events);
        let mut reason = None;
        loop {
            // Channels that end tell of it here, too, so the status decides.
            if !link.connection.status().connected() {
                return reason.unwrap_or_else(|| "the connection was lost".to_owned());
            }
            let Ok(event) = tokio::time::timeout(LOOK, events.next()).await else { continue };
            match event {
                Some(Event::ConnectionBlocked(why)) => {
                    warn!(purpose = self.purpose, reason = why, "RabbitMQ takes no messages for now.");
                    self.tell.send_replace(State::Blocked(Arc::clone(link)));
                }
                Some(Event::ConnectionUnblocked) => {
                    info!(purpose = self.purpose, "RabbitMQ takes messages again.");
                    self.tell.send_replace(State::Up(Arc::clone(link)));
                }
                Some(Event::Error(error)) => reason = Some(error.to_string()),
                Some(_) => {}
                None => return "the connection was closed".to_owned(),
            }
        }
    }
}
