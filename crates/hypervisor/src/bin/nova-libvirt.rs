//! Speaks to libvirt for `nova-compute`: questions on stdin, answers on stdout, one JSON object a line.
//!
//! `nova-libvirt --uri=qemu:///system`. It ends when its stdin is closed. Each question goes to one of three lanes
//! with threads and connections of their own, so that looking and destroying never wait in line behind booting.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nova_hypervisor::protocol::{Ask, Domain, Outcome, Say, Verb};
use virt::connect::Connect;
use virt::domain::Domain as Handle;
use virt::error::{Error, ErrorDomain, ErrorNumber};
use virt::sys;

const BOOT_THREADS: usize = 4;
const END_THREADS: usize = 8;
const LOOK_THREADS: usize = 2;
/// More than can be in line at once.
const REMOVALS_KEPT: usize = 4096;
/// libvirt's events would need its own event loop; a look at all domains costs it two messages.
const POLL: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let uri = match (args.next(), args.next()) {
        (Some(arg), None) if arg.starts_with("--uri=") => arg["--uri=".len()..].to_owned(),
        _ => return ExitCode::from(2),
    };
    // libvirt prints its errors by itself otherwise.
    virt::error::clear_error_callback();
    let mouth = Mouth(Arc::new(Mutex::new(std::io::stdout())));
    let orders = Arc::new(Orders::default());
    let boot = lane(BOOT_THREADS, &uri, &mouth, &orders);
    let end = lane(END_THREADS, &uri, &mouth, &orders);
    let look = lane(LOOK_THREADS, &uri, &mouth, &orders);
    let watcher = mouth.clone();
    thread::spawn(move || watch(&uri, &watcher));
    for line in std::io::stdin().lock().lines() {
        let Ok(Ok(ask)) = line.map(|line| serde_json::from_str::<Ask>(&line)) else { return ExitCode::FAILURE };
        let lane = match ask.verb {
            Verb::Ensure { .. } => &boot,
            Verb::Unplug { .. } | Verb::Remove { .. } => &end,
            Verb::List | Verb::Press { .. } | Verb::Look { .. } => &look,
        };
        if lane.send(ask).is_err() {
            return ExitCode::FAILURE;
        }
    }
    // Threads that are in the middle of a call end with us: every question can be asked again.
    ExitCode::SUCCESS
}

/// What all threads answer through.
#[derive(Clone)]
struct Mouth(Arc<Mutex<std::io::Stdout>>);

impl Mouth {
    fn say(&self, say: &Say) {
        let line = serde_json::to_string(say).unwrap_or_default();
        let mut stdout = held(&self.0);
        if writeln!(stdout, "{line}").and_then(|()| stdout.flush()).is_err() {
            // Nobody listens any more.
            std::process::exit(0);
        }
    }
}

fn lane(threads: usize, uri: &str, mouth: &Mouth, orders: &Arc<Orders>) -> Sender<Ask> {
    let (asks, asked) = channel::<Ask>();
    let asked = Arc::new(Mutex::new(asked));
    for _ in 0..threads {
        let (asked, mouth, mut line, orders) = (Arc::clone(&asked), mouth.clone(), Line::new(uri), Arc::clone(orders));
        thread::spawn(move || {
            while let Some(ask) = next(&asked) {
                let outcome = orders.in_turn(&ask, || line.ask(&ask.verb));
                mouth.say(&Say::Answer { id: ask.id, outcome });
            }
        });
    }
    asks
}

fn next(asked: &Mutex<Receiver<Ask>>) -> Option<Ask> {
    held(asked).recv().ok()
}

/// Keeps what is done to one domain in order, although the lanes are not: a removal waits for a boot that is under
/// way, and a boot that was asked for before a removal and comes after it is not done any more. Else a guest that was
/// ended while it waited to boot would come to life.
#[derive(Default)]
struct Orders {
    turns: Mutex<BTreeMap<String, Arc<Mutex<()>>>>,
    /// The latest removals: the domain's uuid, and the id of the question.
    removed: Mutex<VecDeque<(String, u64)>>,
}

impl Orders {
    fn in_turn(&self, ask: &Ask, act: impl FnOnce() -> Outcome) -> Outcome {
        let uuid = match &ask.verb {
            Verb::Ensure { uuid, .. } | Verb::Remove { uuid } => uuid,
            Verb::List | Verb::Look { .. } | Verb::Press { .. } | Verb::Unplug { .. } => return act(),
        };
        let turn = Arc::clone(held(&self.turns).entry(uuid.clone()).or_default());
        let outcome = {
            let _turn = held(&turn);
            let mut removed = held(&self.removed);
            if matches!(ask.verb, Verb::Remove { .. }) {
                removed.push_back((uuid.clone(), ask.id));
                if removed.len() > REMOVALS_KEPT {
                    removed.pop_front();
                }
            } else if removed.iter().any(|(gone, at)| gone == uuid && *at > ask.id) {
                return Outcome::CouldNotAsk { reason: "the domain was removed meanwhile".to_owned() };
            }
            drop(removed);
            act()
        };
        let mut turns = held(&self.turns);
        drop(turn);
        // Nobody else waits for this domain.
        if turns.get(uuid).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(uuid);
        }
        outcome
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells of every domain whose power is not what it was; says nothing while libvirt cannot be asked.
fn watch(uri: &str, mouth: &Mouth) {
    let mut line = Line::new(uri);
    let mut known: Option<BTreeMap<String, Domain>> = None;
    loop {
        if let Outcome::Domains { domains } = line.ask(&Verb::List) {
            let now: BTreeMap<String, Domain> = domains.into_iter().map(|each| (each.uuid.clone(), each)).collect();
            let before = known.as_ref().unwrap_or(&now);
            let gone = before.values().filter(|old| !now.contains_key(&old.uuid)).cloned();
            let gone = gone.map(|old| Domain { on: false, ..old });
            let changed = now.values().filter(|new| before.get(&new.uuid).is_none_or(|old| old.on != new.on)).cloned();
            for domain in gone.chain(changed) {
                mouth.say(&Say::Changed { domain });
            }
            known = Some(now);
        }
        thread::sleep(POLL);
    }
}

/// One connection to libvirt, opened when it is needed and again when it broke.
struct Line {
    uri: String,
    connection: Option<Connect>,
}

impl Line {
    fn new(uri: &str) -> Self {
        Self { uri: uri.to_owned(), connection: None }
    }

    fn ask(&mut self, verb: &Verb) -> Outcome {
        // A connection that broke while it was idle is found out only by using it, and every verb may be done twice.
        let reused = self.connection.is_some();
        match self.try_to_ask(verb) {
            Outcome::CouldNotAsk { .. } if reused && self.connection.is_none() => self.try_to_ask(verb),
            outcome => outcome,
        }
    }

    fn try_to_ask(&mut self, verb: &Verb) -> Outcome {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => match Connect::open(Some(&self.uri)) {
                Ok(connection) => connection,
                Err(error) => return Outcome::CouldNotAsk { reason: error.message().to_owned() },
            },
        };
        let answer = perform(&connection, verb);
        let alive = connection.is_alive().unwrap_or(false);
        if alive {
            self.connection = Some(connection);
        }
        match answer {
            Ok(outcome) => outcome,
            Err(error) => {
                let reason = error.message().to_owned();
                if alive && was_asked(&error) { Outcome::Refused { reason } } else { Outcome::CouldNotAsk { reason } }
            }
        }
    }
}

/// Tells a refusal from a question that never reached the guest's domain.
fn was_asked(error: &Error) -> bool {
    !matches!(error.domain(), ErrorDomain::Rpc | ErrorDomain::Remote | ErrorDomain::Access | ErrorDomain::Polkit)
        && !matches!(
            error.code(),
            ErrorNumber::NoConnect
                | ErrorNumber::InvalidConn
                | ErrorNumber::OperationTimeout
                | ErrorNumber::AuthFailed
                | ErrorNumber::AuthUnavailable
                | ErrorNumber::AccessDenied
        )
}

fn perform(connection: &Connect, verb: &Verb) -> Result<Outcome, Error> {
    match verb {
        Verb::List => list(connection).map(|domains| Outcome::Domains { domains }),
        Verb::Look { uuid } => {
            let on = find(connection, uuid)?.map(|domain| domain.is_active()).transpose()?;
            Ok(Outcome::Power { on })
        }
        Verb::Ensure { uuid, xml } => ensure(connection, uuid, xml),
        Verb::Press { uuid } => match find(connection, uuid)? {
            Some(domain) => {
                unless_off(&domain, |domain| domain.shutdown_flags(sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN))
            }
            None => Ok(Outcome::Done),
        },
        Verb::Unplug { uuid } => match find(connection, uuid)? {
            Some(domain) => unless_off(&domain, Handle::destroy),
            None => Ok(Outcome::Done),
        },
        Verb::Remove { uuid } => remove(connection, uuid),
    }
}

fn list(connection: &Connect) -> Result<Vec<Domain>, Error> {
    // All of them first, then those that run: a domain that changes in between is at least in the first list.
    let all = connection.list_all_domains(0)?;
    let running = connection.list_all_domains(sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE)?;
    let running: Vec<String> = running.iter().map(Handle::get_uuid_string).collect::<Result<_, _>>()?;
    all.iter()
        .map(|domain| {
            let uuid = domain.get_uuid_string()?;
            Ok(Domain { name: domain.get_name()?, on: running.contains(&uuid), uuid })
        })
        .collect()
}

fn find(connection: &Connect, uuid: &str) -> Result<Option<Handle>, Error> {
    match Handle::lookup_by_uuid_string(connection, uuid) {
        Ok(domain) => Ok(Some(domain)),
        Err(error) if error.code() == ErrorNumber::NoDomain => Ok(None),
        Err(error) => Err(error),
    }
}

fn ensure(connection: &Connect, uuid: &str, xml: &str) -> Result<Outcome, Error> {
    if let Some(domain) = find(connection, uuid)?
        && domain.is_active()?
    {
        return Ok(Outcome::Done);
    }
    let domain = Handle::define_xml(connection, xml)?;
    match domain.create() {
        Ok(_) => Ok(Outcome::Done),
        // Somebody else was faster.
        Err(_) if domain.is_active().unwrap_or(false) => Ok(Outcome::Done),
        Err(error) => Err(error),
    }
}

fn remove(connection: &Connect, uuid: &str) -> Result<Outcome, Error> {
    let Some(domain) = find(connection, uuid)? else { return Ok(Outcome::Done) };
    unless_off(&domain, Handle::destroy)?;
    let everything = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | sys::VIR_DOMAIN_UNDEFINE_NVRAM
        | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA;
    match domain.undefine_flags(everything) {
        Ok(()) => Ok(Outcome::Done),
        // A transient domain vanishes by itself, and another thread may have been faster.
        Err(error) if error.code() == ErrorNumber::NoDomain => Ok(Outcome::Done),
        Err(error) => Err(error),
    }
}

/// Does something to a running domain; that it is off, or went off meanwhile, is no error.
fn unless_off<T>(domain: &Handle, act: impl Fn(&Handle) -> Result<T, Error>) -> Result<Outcome, Error> {
    match act(domain) {
        Ok(_) => Ok(Outcome::Done),
        Err(error) if error.code() == ErrorNumber::NoDomain => Ok(Outcome::Done),
        Err(error) => match domain.is_active() {
            Ok(false) => Ok(Outcome::Done),
            Err(look) if look.code() == ErrorNumber::NoDomain => Ok(Outcome::Done),
            _ => Err(error),
        },
    }
}
