//! One daemon of a kind per state folder: a locked file says so, and falls open when its process dies.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::ServiceError;

/// How long a child of a process that is gone may hold its place, and the pause between looks.
const ORPHANS_HAVE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);

/// Holds the place of some daemons on a state folder until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _files: Vec<File>,
}

/// Takes the places of `names`, whose lock files are in `folder`, on behalf of the state folder `of`.
pub(crate) fn take(folder: &Path, of: &Path, names: &[&str]) -> Result<Lock, ServiceError> {
    let failed = |path: &Path, source| ServiceError::Lock { path: path.to_owned(), source };
    fs::create_dir_all(folder).map_err(|source| failed(folder, source))?;
    let files = names.iter().map(|name| {
        let path = folder.join(format!("{name}.lock"));
        let opened = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = opened.map_err(|source| failed(&path, source))?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(source)) => return Err(failed(&path, source)),
                Err(TryLockError::WouldBlock) => {}
            }
            let pid = fs::read_to_string(&path).ok().map(|pid| pid.trim().to_owned());
            let pid = pid.filter(|pid| !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit()));
            // Who was killed while it started a program leaves a child that holds the file until it has become that program.
            let gone = pid.as_ref().is_some_and(|pid| !Path::new("/proc").join(pid).exists());
            if !gone || begun.elapsed() > ORPHANS_HAVE {
                return Err(ServiceError::AlreadyRunning { name: (*name).to_owned(), path: of.to_owned(), pid });
            }
            std::thread::sleep(LOOK);
        }
        let noted = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        noted.map_err(|source| failed(&path, source))?;
        Ok(file)
    });
    Ok(Lock { _files: files.collect::<Result<_, _>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_of_the_same_kind_is_told_who_the_first_is() {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join("lock");
        let first = take(&folder, state.path(), &["nova-api", "nova-compute"]).unwrap();
        let refused = take(&folder, state.path(), &["nova-compute"]).unwrap_err();
        let pid = std::process::id();
        let state_path = state.path().display();
        assert_eq!(refused.to_string(), format!("nova-compute is already running on {state_path} (process {pid})"));
        take(&folder, state.path(), &["nova-network"]).unwrap();
        drop(first);
        take(&folder, state.path(), &["nova-compute"]).unwrap();
    }

    #[test]
    fn the_place_of_a_dead_process_falls_open_when_its_last_child_lets_go() {
        let state = tempfile::tempdir().unwrap();
        let first = take(state.path(), state.path(), &["nova-api"]).unwrap();
        // More than there can be.
        fs::write(state.path().join("nova-api.lock"), "4194305\n").unwrap();
        let child = std::thread::spawn(move || {
            std::thread::sleep(LOOK * 10);
            drop(first);
        });
        take(state.path(), state.path(), &["nova-api"]).unwrap();
        child.join().unwrap();
    }
}
