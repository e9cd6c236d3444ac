//! The state folder: there, and writable, before anything else is done.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::ServiceError;

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
