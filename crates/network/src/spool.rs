//! Lease events on their way from `nova-dhcpbridge` to the daemon: a folder of files, so that neither has to wait for
//! the other and nothing is lost while the daemon, the database or the broker is away.
//!
//! What counts is the last that happened to an address and a MAC, so each pair has one file, and the folder can never
//! hold more files than there are leases. A file that is being worked on has another name: an event that comes
//! meanwhile is not lost with it.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use nova_types::Mac;
use tracing::warn;

const TAKEN: &str = "taken-";

/// Something that dnsmasq said about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseEvent {
    /// What happened.
    pub kind: LeaseKind,
    /// To which guest.
    pub mac: Mac,
    /// To which address.
    pub address: Ipv4Addr,
}

/// What happened to a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeaseKind {
    /// It began, or was renewed: dnsmasq's `add` and `old`.
    Held,
    /// It was given up, or ran out: `del`.
    Ended,
}

/// An event on disk that is being worked on.
#[derive(Debug)]
pub struct Taken {
    /// The event.
    pub event: LeaseEvent,
    path: PathBuf,
}

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}", path.display())]
pub struct SpoolError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl LeaseEvent {
    fn name(&self) -> String {
        format!("{}-{}", self.address, self.mac.to_string().replace(':', ""))
    }

    fn line(&self) -> String {
        let word = match self.kind {
            LeaseKind::Held => "held",
            LeaseKind::Ended => "ended",
        };
        format!("{word} {} {}\n", self.mac, self.address)
    }

    fn read(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let kind = match words.next()? {
            "held" => LeaseKind::Held,
            "ended" => LeaseKind::Ended,
            _ => return None,
        };
        Some(Self { kind, mac: words.next()?.parse().ok()?, address: words.next()?.parse().ok()? })
    }
}

/// Leaves an event for the daemon. It replaces an earlier one of the same lease.
///
/// # Errors
/// [`SpoolError`] when the file cannot be written, as on a full disk.
pub fn leave(networks_path: &Path, event: &LeaseEvent) -> Result<(), SpoolError> {
    let folder = folder(networks_path);
    fs::create_dir_all(&folder).map_err(failed("making", &folder))?;
    // dnsmasq runs one script at a time, but there may be several servers.
    let aside = folder.join(format!(".{}-{}", event.name(), std::process::id()));
    let write = || {
        fs::File::create(&aside)?.write_all(event.line().as_bytes())?;
        fs::rename(&aside, folder.join(event.name()))
    };
    write().map_err(failed("writing", &aside))
}

/// Takes all events. Those taken before and not [`done`] come first.
///
/// # Errors
/// [`SpoolError`] when the folder or a file cannot be read.
pub fn take(networks_path: &Path) -> Result<Vec<Taken>, SpoolError> {
    let folder = folder(networks_path);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed("listing", &folder))?,
    };
    let names = entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    let names: Vec<String> = names.collect::<io::Result<_>>().map_err(failed("listing", &folder))?;
    let (old, new): (Vec<&String>, Vec<&String>) =
        names.iter().filter(|name| !name.starts_with('.')).partition(|name| name.starts_with(TAKEN));
    let mut taken = Vec::new();
    for name in &old {
        taken.extend(read(folder.join(name))?);
    }
    for name in new {
        let path = folder.join(format!("{TAKEN}{name}"));
        // One of the same lease is still being worked on: this one waits for its turn.
        if old.iter().any(|old| old.strip_prefix(TAKEN) == Some(name)) {
            continue;
        }
        let fresh = folder.join(name);
        fs::rename(&fresh, &path).map_err(failed("taking", &fresh))?;
        taken.extend(read(path)?);
    }
    Ok(taken)
}

/// Removes events that have been worked on.
///
/// # Errors
/// [`SpoolError`] when a file cannot be removed; its event comes again.
pub fn done(taken: Vec<Taken>) -> Result<(), SpoolError> {
    for event in taken {
        fs::remove_file(&event.path).map_err(failed("removing", &event.path))?;
    }
    Ok(())
}

fn folder(networks_path: &Path) -> PathBuf {
    networks_path.join("events")
}

/// Reads a taken file; one that makes no sense is removed, for it never will.
fn read(path: PathBuf) -> Result<Option<Taken>, SpoolError> {
    let bytes = fs::read(&path).map_err(failed("reading", &path))?;
    if let Some(event) = LeaseEvent::read(&String::from_utf8_lossy(&bytes)) {
        return Ok(Some(Taken { event, path }));
    }
    warn!(path = %path.display(), "{} is no lease event; removed.", path.display());
    fs::remove_file(&path).map_err(failed("removing", &path))?;
    Ok(None)
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SpoolError + use<> {
    let path = path.to_owned();
    move |source| SpoolError { doing, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: LeaseKind, number: u8) -> LeaseEvent {
        LeaseEvent { kind, mac: Mac::of_guest([0, 0, number]), address: Ipv4Addr::new(10, 0, 0, number) }
    }

    fn shown(taken: &[Taken]) -> Vec<(LeaseKind, u8)> {
        let mut shown: Vec<_> = taken.iter().map(|t| (t.event.kind, t.event.address.octets()[3])).collect();
        shown.sort_unstable_by_key(|(_, number)| *number);
        shown
    }

    #[test]
    fn the_last_event_of_each_lease_arrives() {
        let folder = tempfile::tempdir().unwrap();
        assert!(take(folder.path()).unwrap().is_empty(), "a folder that is not there yet is empty");
        for (kind, number) in [(LeaseKind::Held, 3), (LeaseKind::Held, 4), (LeaseKind::Ended, 3)] {
            leave(folder.path(), &event(kind, number)).unwrap();
        }
        let taken = take(folder.path()).unwrap();
        assert_eq!(shown(&taken), [(LeaseKind::Ended, 3), (LeaseKind::Held, 4)]);
        done(taken).unwrap();
        assert!(take(folder.path()).unwrap().is_empty());
    }

    #[test]
    fn what_was_taken_and_not_done_comes_again_before_what_came_since() {
        let folder = tempfile::tempdir().unwrap();
        leave(folder.path(), &event(LeaseKind::Held, 3)).unwrap();
        drop(take(folder.path()).unwrap());
        leave(folder.path(), &event(LeaseKind::Ended, 3)).unwrap();
        let again = take(folder.path()).unwrap();
        assert_eq!(shown(&again), [(LeaseKind::Held, 3)]);
        done(again).unwrap();
        assert_eq!(shown(&take(folder.path()).unwrap()), [(LeaseKind::Ended, 3)]);
    }

    #[test]
    fn a_file_that_makes_no_sense_does_not_stand_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        leave(folder.path(), &event(LeaseKind::Held, 3)).unwrap();
        fs::write(folder.path().join("events/garbage"), [0, 0xff, 0xfe]).unwrap();
        fs::write(folder.path().join("events/.10.0.0.9-half"), "hel").unwrap();
        assert_eq!(shown(&take(folder.path()).unwrap()), [(LeaseKind::Held, 3)]);
        assert!(!folder.path().join("events/taken-garbage").exists());
    }
}
