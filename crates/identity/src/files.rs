//! Small files that appear whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::access::random;

/// A file or folder that could not be read or made.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}", path.display())]
pub struct FileError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl FileError {
    pub(crate) fn new(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self { doing, path: path.to_owned(), source }
    }

    /// Whether the file was not there.
    pub(crate) fn is_absent(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Makes `folder` and its parents with `mode` (of the last one); an existing one is left as it is.
pub(crate) fn ensure_folder(folder: &Path, mode: u32) -> Result<(), FileError> {
    let make = || {
        if let Some(parent) = folder.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        match fs::DirBuilder::new().mode(mode).create(folder) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
            Ok(()) => give_to_owner_of_parent(folder),
            Err(e) => Err(e),
        }
    };
    make().map_err(|e| FileError::new("making the folder", folder, e))
}

/// Reads a whole file as text.
pub(crate) fn read(path: &Path) -> Result<String, FileError> {
    fs::read_to_string(path).map_err(|e| FileError::new("reading", path, e))
}

/// Puts `content` at `path` unless something is there; returns what is there in the end.
///
/// Of several processes that try at once exactly one wins and all get its content.
pub(crate) fn create_once(path: &Path, mode: u32, content: &str) -> Result<String, FileError> {
    let temporary = write_temporary(path, mode, content.as_bytes())?;
    let linked = fs::hard_link(&temporary, path);
    let removed = fs::remove_file(&temporary);
    match linked {
        Ok(()) => {
            removed.map_err(|e| FileError::new("removing", &temporary, e))?;
            sync_folder_of(path)?;
            Ok(content.to_owned())
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => read(path),
        Err(e) => Err(FileError::new("making", path, e)),
    }
}

/// Puts `content` at `path`, in place of what was there.
pub(crate) fn replace(path: &Path, mode: u32, content: &[u8]) -> Result<(), FileError> {
    let temporary = write_temporary(path, mode, content)?;
    if let Err(e) = fs::rename(&temporary, path) {
        // The rename's failure is the one to report.
        let _ = fs::remove_file(&temporary);
        return Err(FileError::new("writing", path, e));
    }
    sync_folder_of(path)
}

/// Claims the name `path`: true for exactly one caller.
pub(crate) fn claim(path: &Path, mode: u32) -> Result<bool, FileError> {
    match OpenOptions::new().write(true).create_new(true).mode(mode).open(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(FileError::new("making", path, e)),
    }
}

fn write_temporary(path: &Path, mode: u32, content: &[u8]) -> Result<PathBuf, FileError> {
    let suffix = random::<8>().map_err(|e| FileError::new("naming", path, io::Error::other(e)))?;
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", hex::encode(suffix)));
    let temporary = path.with_file_name(name);
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(content)?;
        give_to_owner_of_parent(&temporary)?;
        file.sync_all()
    };
    match write() {
        Ok(()) => Ok(temporary),
        Err(e) => {
            // The first failure is the one to report.
            let _ = fs::remove_file(&temporary);
            Err(FileError::new("writing", path, e))
        }
    }
}

/// Files that root makes in a daemon's folder must be readable by the daemon, so they go to the
/// folder's owner. Anyone but root already is that owner, or may not give anything away.
fn give_to_owner_of_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => return Ok(()),
    };
    let (folder, file) = (fs::metadata(parent)?, fs::symlink_metadata(path)?);
    // A sticky folder (/tmp) is shared: its owner has no claim on what others put there.
    let shared = folder.mode() & 0o1000 != 0;
    if file.uid() == 0 && folder.uid() != 0 && !shared {
        std::os::unix::fs::lchown(path, Some(folder.uid()), Some(folder.gid()))?;
    }
    Ok(())
}

fn sync_folder_of(path: &Path) -> Result<(), FileError> {
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let synced = File::open(folder).and_then(|f| f.sync_all());
    synced.map_err(|e| FileError::new("syncing the folder", folder, e))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{claim, create_once, ensure_folder, replace};

    #[test]
    fn the_first_content_stays_and_no_temporary_file_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert_eq!(create_once(&path, 0o400, "one").unwrap(), "one");
        assert_eq!(create_once(&path, 0o400, "two").unwrap(), "one");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o400);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn many_at_once_agree_on_one_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let results: Vec<String> = std::thread::scope(|s| {
            let made: Vec<_> = (0..16)
                .map(|n| {
                    let path = &path;
                    s.spawn(move || create_once(path, 0o400, &format!("content {n}")).unwrap())
                })
                .collect();
            made.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let kept = std::fs::read_to_string(&path).unwrap();
        assert!(results.iter().all(|r| *r == kept), "{results:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_name_is_claimed_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("10.pem");
        assert!(claim(&path, 0o644).unwrap());
        assert!(!claim(&path, 0o644).unwrap());
        replace(&path, 0o644, b"x").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"x");
    }

    #[test]
    fn a_failure_names_the_file() {
        let error = create_once(std::path::Path::new("/nonexistent/key"), 0o400, "x").unwrap_err();
        assert_eq!(error.to_string(), "writing /nonexistent/key");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(ensure_folder(&file, 0o700).is_err());
    }
}
