//! The folder of each guest: `<instances_path>/instance-<id>/`, named by the id alone.

use std::path::{Path, PathBuf};

use nova_types::InstanceId;

use crate::files::{self, FileError};

const PREFIX: &str = "instance-";

/// The guests' folders of one host.
#[derive(Clone, Debug)]
pub struct InstanceFolders {
    folder: PathBuf,
}

impl InstanceFolders {
    /// Keeps them under `instances_path`.
    #[must_use]
    pub fn new(instances_path: impl Into<PathBuf>) -> Self {
        Self { folder: instances_path.into() }
    }

    /// The folder of this guest, there or not.
    #[must_use]
    pub fn path(&self, id: InstanceId) -> PathBuf {
        self.folder.join(format!("{PREFIX}{:08x}", id.number()))
    }

    /// A file in the folder of this guest, under Nova's names: `disk`, `disk.local`, `console.log`.
    #[must_use]
    pub fn file(&self, id: InstanceId, name: &str) -> PathBuf {
        self.path(id).join(name)
    }

    /// Where they all are.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.folder
    }

    /// Makes the folder of this guest; qemu's user may enter it and not list it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn ensure(&self, id: InstanceId) -> Result<PathBuf, FileError> {
        files::ensure_folder(&self.folder, 0o711)?;
        let path = self.path(id);
        files::ensure_folder(&path, 0o711)?;
        Ok(path)
    }

    /// Removes the folder of this guest with its disks; one that is not there is removed already.
    ///
    /// No symbolic link is followed, whatever is in the folder.
    ///
    /// # Errors
    /// When something in it cannot be removed.
    pub fn remove(&self, id: InstanceId) -> Result<(), FileError> {
        files::remove_folder(&self.path(id))
    }

    /// Ids of all that have a folder here. What is not named by an id is not ours and not listed.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn list(&self) -> Result<Vec<InstanceId>, FileError> {
        let id_of = |name: &String| format!("i-{}", name.strip_prefix(PREFIX)?).parse().ok();
        let named = files::names_in(&self.folder)?.iter().filter_map(id_of).collect::<Vec<InstanceId>>();
        // A shorter spelling of a number is somebody else's folder.
        Ok(named.into_iter().filter(|id| self.path(*id).is_dir()).collect())
    }
}

#[cfg(test)]
mod tests {
    use nova_types::InstanceId;

    use super::InstanceFolders;

    #[test]
    fn a_folder_is_made_listed_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let folders = InstanceFolders::new(root.path().join("instances"));
        assert!(folders.list().unwrap().is_empty(), "before the first guest there is no folder");
        let id = InstanceId::new(26);
        let path = folders.ensure(id).unwrap();
        assert!(path.ends_with("instances/instance-0000001a"));
        assert_eq!(folders.ensure(id).unwrap(), path);
        for other in ["_base", "instance-1b", "instance-zzzzzzzz", "lost+found"] {
            std::fs::create_dir(folders.root().join(other)).unwrap();
        }
        std::fs::write(folders.file(id, "disk"), "x").unwrap();
        assert_eq!(folders.list().unwrap(), [id]);
        folders.remove(id).unwrap();
        folders.remove(id).unwrap();
        assert!(folders.list().unwrap().is_empty());
        assert!(folders.root().join("_base").exists());
    }
}
