//! Which guests there are, running or not: an empty file for each.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nova_types::InstanceId;

/// The folder of these files, in that of instances.
const FOLDER: &str = ".netns-guests";

#[derive(Debug)]
pub(crate) struct Definitions {
    folder: PathBuf,
}

impl Definitions {
    pub(crate) fn new(instances_path: &Path) -> Self {
        Self { folder: instances_path.join(FOLDER) }
    }

    fn file(&self, id: InstanceId) -> PathBuf {
        self.folder.join(id.to_string())
    }

    pub(crate) fn add(&self, id: InstanceId) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        fs::write(self.file(id), "")
    }

    pub(crate) fn has(&self, id: InstanceId) -> bool {
        self.file(id).is_file()
    }

    pub(crate) fn remove(&self, id: InstanceId) -> io::Result<()> {
        match fs::remove_file(self.file(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Lists them; what else lies in the folder is passed over.
    pub(crate) fn list(&self) -> io::Result<Vec<InstanceId>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            found.extend(entry?.file_name().to_str().and_then(|name| name.parse::<InstanceId>().ok()));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_known_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let definitions = Definitions::new(folder.path());
        let (one, two) = (InstanceId::new(1), InstanceId::new(2));
        assert_eq!(definitions.list().unwrap(), []);
        definitions.remove(one).unwrap();
        for id in [one, two, one] {
            definitions.add(id).unwrap();
        }
        fs::write(folder.path().join(FOLDER).join("README"), "").unwrap();
        definitions.remove(one).unwrap();
        assert_eq!(Definitions::new(folder.path()).list().unwrap(), [two]);
        assert!(definitions.has(two) && !definitions.has(one));
    }
}
