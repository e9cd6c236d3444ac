//! The process's log: what the daemons of a real cloud would write goes to a file that is thrown away, so that the cost
//! of writing it is counted. SQL statements are counted on the side.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{Targets, dynamic_filter_fn};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

static COUNTING: AtomicBool = AtomicBool::new(false);
static COUNTED: Mutex<BTreeMap<String, u32>> = Mutex::new(BTreeMap::new());

/// The target under which sqlx tells of statements, each when it is done. Begin and commit are not among them on SQLite.
const STATEMENTS: &str = "sqlx::query";

/// What a query of a bench's own begins with, so that it is not counted.
pub(crate) const OWN: &str = "select /* bench */";

/// Sets logging up for this process, as `nova_service` does for a daemon's.
pub(crate) fn init() -> anyhow::Result<()> {
    let file = tempfile::tempfile()?;
    let daemons = Targets::new().with_default(LevelFilter::WARN).with_target("nova", LevelFilter::INFO);
    let to_file = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(file).with_filter(daemons);
    // A daemon's error makes the figures worthless: it is shown.
    let errors = Targets::new().with_default(LevelFilter::OFF).with_target("nova", LevelFilter::ERROR);
    let to_stderr = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(std::io::stderr).with_filter(errors);
    let if_counting = dynamic_filter_fn(|of, _| of.target() == STATEMENTS && COUNTING.load(Ordering::Relaxed));
    tracing_subscriber::registry().with(to_file).with(to_stderr).with(Count.with_filter(if_counting)).try_init()?;
    Ok(())
}

/// Begins to count statements, which costs a little.
pub(crate) fn count_statements() {
    counted().clear();
    COUNTING.store(true, Ordering::SeqCst);
}

/// Ends counting: how often each statement was done, by its first words.
pub(crate) fn counted_statements() -> BTreeMap<String, u32> {
    COUNTING.store(false, Ordering::SeqCst);
    std::mem::take(&mut counted())
}

fn counted() -> std::sync::MutexGuard<'static, BTreeMap<String, u32>> {
    COUNTED.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Count;

impl<S: Subscriber> Layer<S> for Count {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut summary = Summary(String::new());
        event.record(&mut summary);
        if !summary.0.starts_with(OWN) {
            *counted().entry(summary.0).or_default() += 1;
        }
    }
}

struct Summary(String);

impl Visit for Summary {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "summary" {
            value.clone_into(&mut self.0);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}
