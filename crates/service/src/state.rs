//! The state folder: there, and writable, before anything else is done.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use tracing::warn;

use crate::ServiceError;

/// The file in the state folder that tells it from all others.
const INSTALLATION: &str = ".installation";
const RANDOM: &str = "/proc/sys/kernel/random/uuid";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Tells this state folder on this running machine from all others: who has a daemon's name in the database. A daemon
/// that was killed and started again is the same holder; a copy of the folder on another machine is another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder(String);

impl Holder {
    /// The holder that a state folder makes; its mark is drawn when it is first needed. Where nothing can be written the
    /// mark is this process's alone.
    pub fn of(state_path: &Path) -> Self {
        let boot = read(Path::new(BOOT_ID)).unwrap_or_default();
        let mark = mark(&state_path.join(INSTALLATION)).unwrap_or_else(|error| {
            warn!(error = %error, "{} has no mark; after a crash this daemon must wait for its own lease.", state_path.display());
            read(Path::new(RANDOM)).unwrap_or_else(|_| std::process::id().to_string())
        });
        Self(format!("{mark}.{boot}"))
    }

    /// A holder for tests.
    pub fn named(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// As kept in the database.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads the mark, or draws it: of several daemons that do so at once, one's counts.
fn mark(path: &Path) -> io::Result<String> {
    match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        read => return read,
    }
    let draft = path.with_extension(std::process::id().to_string());
    fs::write(&draft, read(Path::new(RANDOM))?)?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => read(path),
    }
}

fn read(path: &Path) -> io::Result<String> {
    Ok(fs::read_to_string(path)?.trim().to_owned())
}

/// Makes the state folder if it is absent, and tries to write in it.
pub(crate) fn prepare(path: &Path) -> Result<(), ServiceError> {
    // Not for everyone: below it are keys and guests' disks. Others may pass through, as libvirt's qemu must.
    let made = DirBuilder::new().recursive(true).mode(0o751).create(path);
    made.map_err(|source| ServiceError::MakeFolder { path: path.to_owned(), source })?;
    let probe = path.join(format!(".probe-{}", std::process::id()));
    let written = fs::write(&probe, b"").and_then(|()| fs::remove_file(&probe));
    written.map_err(|source| ServiceError::WriteFolder { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain;

    #[test]
    fn the_folder_is_made_with_its_parents_and_left_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        prepare(&path).unwrap();
        prepare(&path).unwrap();
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }

    #[test]
    fn a_state_folder_makes_one_holder_and_a_copy_another() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let holder = Holder::of(one.path());
        assert_eq!(Holder::of(one.path()), holder);
        assert_ne!(Holder::of(other.path()), holder);
        assert_eq!(fs::read_dir(one.path()).unwrap().count(), 1);
        let nowhere = Path::new("/proc/none");
        assert_ne!(Holder::of(nowhere), Holder::of(nowhere));
        assert!(holder.as_str().len() < 100);
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let below = file.join("x");
        assert_eq!(
            chain(&prepare(&below).unwrap_err()).to_string(),
            format!("cannot make the folder {} (--state_path): Not a directory (os error 20)", below.display())
        );
        // Even root writes nothing here.
        let error = prepare(Path::new("/proc")).unwrap_err();
        assert!(chain(&error).to_string().starts_with("cannot write in the folder /proc (--state_path): "));
    }
}
