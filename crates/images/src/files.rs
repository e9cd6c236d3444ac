//! Files that appear whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

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
}

/// The mode of what guests use: qemu's user must read it, nobody may change it; its folder cannot be listed by others.
pub(crate) const SHARED: u32 = 0o444;

/// Makes `folder` and its parents; of an existing one nothing is changed.
pub(crate) fn ensure_folder(folder: &Path, mode: u32) -> Result<(), FileError> {
    let make = || match fs::DirBuilder::new().mode(mode).create(folder) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            fs::DirBuilder::new().recursive(true).mode(mode).create(folder)?;
            give_to_owner_of_parent(folder)
        }
        Ok(()) => give_to_owner_of_parent(folder),
        Err(e) => Err(e),
    };
    make().map_err(|e| FileError::new("making the folder", folder, e))
}

/// A file that is not yet there: written under another name, removed again unless it is kept.
#[derive(Debug)]
pub(crate) struct Draft {
    file: File,
    draft: PathBuf,
    target: PathBuf,
    /// Whether it is left alone when dropped.
    stays: bool,
}

impl Draft {
    /// Starts `target` as `.<name>.part` beside it. Who comes second takes the draft of the first over, so
    /// callers that may meet hold a lock; a draft that a crash left is overwritten.
    pub(crate) fn start(target: &Path) -> Result<Self, FileError> {
        let draft = draft_of(target);
        let open = || {
            match fs::remove_file(&draft) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&draft)
        };
        let file = open().map_err(|e| FileError::new("making", &draft, e))?;
        Ok(Self { file, draft, target: target.to_owned(), stays: false })
    }

    /// Goes on with the draft of `target` that is there, or starts it. It stays until it is kept or discarded.
    pub(crate) fn go_on(target: &Path) -> Result<Self, FileError> {
        let draft = draft_of(target);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&draft);
        let file = open.map_err(|e| FileError::new("opening", &draft, e))?;
        Ok(Self { file, draft, target: target.to_owned(), stays: true })
    }

    /// Removes what was written.
    pub(crate) fn discard(mut self) {
        self.stays = false;
    }

    pub(crate) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Where the draft is, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.draft
    }

    /// Puts the file in its place with `mode`, and on the disk.
    pub(crate) fn keep(mut self, mode: u32) -> Result<(), FileError> {
        let settle = || {
            self.file.set_permissions(fs::Permissions::from_mode(mode))?;
            give_to_owner_of_parent(&self.draft)?;
            self.file.sync_all()?;
            fs::rename(&self.draft, &self.target)
        };
        settle().map_err(|e| FileError::new("writing", &self.target, e))?;
        self.stays = true;
        sync_folder_of(&self.target)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.stays {
            // What cannot be removed now is overwritten by the next try.
            let _ = fs::remove_file(&self.draft);
        }
    }
}

fn draft_of(target: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(PART);
    target.with_file_name(name)
}

/// Ends the name of a draft.
pub(crate) const PART: &str = ".part";

/// Removes a file; one that is not there is removed already.
pub(crate) fn remove_file(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(FileError::new("removing", path, e)),
        _ => Ok(()),
    }
}

/// Removes a folder with all that is in it. A symbolic link is removed itself; what it points to stays.
pub(crate) fn remove_folder(path: &Path) -> Result<(), FileError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(FileError::new("removing", path, e)),
        _ => Ok(()),
    }
}

/// Names of what is in a folder; of a folder that is not there, none.
pub(crate) fn names_in(folder: &Path) -> Result<Vec<String>, FileError> {
    let failed = |e| FileError::new("listing", folder, e);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        // A name that is no text is not ours.
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// What root makes in a daemon's folder must be the daemon's, so it goes to the folder's owner.
fn give_to_owner_of_parent(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) else { return Ok(()) };
    let (folder, file) = (fs::metadata(parent)?, fs::symlink_metadata(path)?);
    // A sticky folder (/tmp) is shared: its owner has no claim on what others put there.
    let shared = folder.mode() & 0o1000 != 0;
    if file.uid() == 0 && folder.uid() != 0 && !shared {
        std::os::unix::fs::lchown(path, Some(folder.uid()), Some(folder.gid()))?;
    }
    Ok(())
}

fn sync_folder_of(path: &Path) -> Result<(), FileError> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(folder).and_then(|f| f.sync_all());
    synced.map_err(|e| FileError::new("syncing the folder", folder, e))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::{Draft, names_in, remove_folder};

    #[test]
    fn a_draft_that_is_not_kept_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("image");
        let mut draft = Draft::start(&target).unwrap();
        draft.file().write_all(b"half").unwrap();
        assert_eq!(names_in(folder.path()).unwrap(), [".image.part"]);
        drop(draft);
        assert!(names_in(folder.path()).unwrap().is_empty());

        std::fs::write(folder.path().join(".image.part"), "left by a crash").unwrap();
        let mut draft = Draft::start(&target).unwrap();
        draft.file().write_all(b"whole").unwrap();
        draft.keep(0o444).unwrap();
        assert_eq!(names_in(folder.path()).unwrap(), ["image"]);
        assert_eq!(std::fs::read(&target).unwrap(), b"whole");
    }

    #[test]
    fn removing_a_folder_follows_no_link() {
        let root = tempfile::tempdir().unwrap();
        let (precious, doomed) = (root.path().join("precious"), root.path().join("doomed"));
        std::fs::create_dir_all(&precious).unwrap();
        std::fs::create_dir_all(&doomed).unwrap();
        std::fs::write(precious.join("data"), "x").unwrap();
        std::os::unix::fs::symlink(&precious, doomed.join("link")).unwrap();
        remove_folder(&doomed).unwrap();
        remove_folder(&doomed).unwrap();
        std::os::unix::fs::symlink(&precious, &doomed).unwrap();
        remove_folder(&doomed).unwrap();
        assert!(!doomed.exists() && precious.join("data").exists());
    }
}
