//! The life of a daemon: it logs, says when it is ready, reports that it lives, does periodic work, answers
//! `/healthz` and `/metrics`, and when told to stop finishes what it is doing.
//!
//! A daemon of which there may be one per host holds a [`Tenure`] while it works.
//!
//! A `main` makes a [`Daemon`], spawns its parts on it, and awaits [`Daemon::run`]. The parts are libraries: they get
//! a [`Stop`] and a [`Ready`], and do not know whether they have the process for themselves.

mod chain;
mod clock;
mod daemon;
mod error;
mod heartbeat;
pub mod http;
mod lock;
mod logging;
mod ready;
mod signals;
mod state;
mod status;
mod tenure;
mod ticks;
mod wiring;

pub use chain::{Chain, chain};
pub use clock::SystemClock;
pub use daemon::{Daemon, finish};
pub use error::ServiceError;
pub use heartbeat::{Heartbeat, heartbeat};
pub use ready::Ready;
pub use state::Holder;
pub use tenure::{Membership, Tenure, TenureError, enter};
pub use ticks::{Hint, Ticks, Turn};
pub use wiring::{open_bus, open_database, usable};

/// Tells everything in a process to stop; it is cancelled once and stays so.
pub type Stop = tokio_util::sync::CancellationToken;
