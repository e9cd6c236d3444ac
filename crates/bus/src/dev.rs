//! A private RabbitMQ for tests: one for the whole test process, with a virtual host for each test, and others that a
//! test may kill.

mod server;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use nova_config::{CombinedConfig, Config as _, Surroundings};

use crate::rabbit::{RabbitMq, RabbitOptions};
use server::{Server, VIRTUAL_HOSTS};

/// A place in a broker that nobody else uses.
#[derive(Clone, Debug)]
pub struct Place {
    port: u16,
    virtual_host: String,
}

impl Place {
    /// What a daemon must be told to come here.
    pub fn arguments(&self) -> Vec<String> {
        vec![
            format!("--rabbit_host=127.0.0.1:{}", self.port),
            format!("--rabbit_virtual_host={}", self.virtual_host),
            "--rabbit_userid=nova".to_owned(),
            "--rabbit_password=nova".to_owned(),
            "--rabbit_retry_interval=0.5".to_owned(),
        ]
    }

    /// The same, as a bus is told; `more` are further flags.
    ///
    /// # Panics
    /// When a flag is wrong.
    pub fn options(&self, more: &[&str]) -> RabbitOptions {
        let arguments: Vec<String> =
            self.arguments().into_iter().chain(more.iter().map(|flag| (*flag).to_owned())).collect();
        options(&arguments)
    }

    /// A bus of its own here.
    pub fn bus(&self) -> RabbitMq {
        RabbitMq::open(self.options(&[]))
    }
}

/// What a bus is told by these flags.
///
/// # Panics
/// When a flag is wrong.
pub fn options(arguments: &[String]) -> RabbitOptions {
    let arguments = std::iter::once("test").chain(arguments.iter().map(String::as_str)).map(Into::into);
    let loaded = CombinedConfig::load_in(arguments, &Surroundings::bare());
    RabbitOptions::of(&loaded.unwrap_or_else(|error| panic!("flags of a test: {error}")).config.bus)
}

/// A fresh place in the broker of this process, which starts with the first of them. `None`, and a line that says so,
/// where RabbitMQ is not installed; with `NOVA_TEST_REQUIRE_ALL` in the environment that is a failure.
///
/// # Panics
/// When the broker does not start, or more tests ask than there are places.
pub fn rabbit() -> Option<Place> {
    static ONE: OnceLock<Option<Server>> = OnceLock::new();
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let server = ONE.get_or_init(|| server::offered("shared", Special::default())).as_ref()?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(number < VIRTUAL_HOSTS, "more tests than virtual hosts: raise VIRTUAL_HOSTS");
    Some(Place { port: server.port, virtual_host: format!("t{number}") })
}

/// What is special about a broker of a test's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Special<'a> {
    /// It listens for TLS only, with this certificate and key, both as PEM.
    pub tls: Option<(&'a str, &'a str)>,
    /// It believes that its disk is full, and takes no messages.
    pub full_disk: bool,
    /// It keeps its data where temporary files are, which is a disk, and not in memory.
    pub on_disk: bool,
}

/// A broker of a test's own, which ends when this is dropped.
#[derive(Debug)]
pub struct OwnRabbit {
    server: Mutex<Server>,
}

impl OwnRabbit {
    /// Starts one; `None` where it is not installed, as with [`rabbit`].
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(name: &str, special: Special<'_>) -> Option<Self> {
        server::offered(name, special).map(|server| Self { server: Mutex::new(server) })
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place in it.
    pub fn place(&self) -> Place {
        self.place_number(0)
    }

    /// One of its places.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn place_number(&self, number: usize) -> Place {
        assert!(number < VIRTUAL_HOSTS, "there are {VIRTUAL_HOSTS} virtual hosts");
        Place { port: self.server().port, virtual_host: format!("t{number}") }
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.server().pid()
    }

    /// How many messages it took from clients since it started. Takes a second to ask.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn messages(&self) -> u64 {
        const RECEIVED: &str =
            "lists:sum([N || #{messages_received_total := N} <- maps:values(rabbit_global_counters:overview())]).";
        let answer = self.server().evaluate(RECEIVED).unwrap_or_else(|error| panic!("asking RabbitMQ: {error}"));
        answer.parse().unwrap_or_else(|error| panic!("RabbitMQ said {answer:?}: {error}"))
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.server().port
    }

    /// Kills it: no farewell, nothing flushed.
    pub fn kill(&self) {
        self.server().kill();
    }

    /// Holds it still, with its connections open, until [`resume`](Self::resume).
    ///
    /// # Panics
    /// When it does not run.
    pub fn pause(&self) {
        self.server().signal("STOP").unwrap_or_else(|error| panic!("stopping RabbitMQ: {error}"));
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// When it does not run.
    pub fn resume(&self) {
        self.server().signal("CONT").unwrap_or_else(|error| panic!("resuming RabbitMQ: {error}"));
    }

    /// Starts it again with what is on its disk, and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn start_again(&self) {
        let mut server = self.server();
        server.start().unwrap_or_else(|error| panic!("starting RabbitMQ again: {error}"));
    }
}
