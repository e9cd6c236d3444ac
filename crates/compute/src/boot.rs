//! Whether this host went down since its guests were last seen: then they are off because of it, and not because they
//! wanted to be.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tracing::warn;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A file that holds the kernel's word for "since the last boot".
#[derive(Debug)]
pub(crate) struct BootMark {
    file: PathBuf,
    now: Option<String>,
}

impl BootMark {
    pub(crate) fn new(instances_path: &Path) -> Self {
        Self { file: instances_path.join(".boot-id"), now: read(Path::new(BOOT_ID)) }
    }

    /// Tells whether the host was restarted after the mark was set; not, if it never was.
    pub(crate) fn host_was_restarted(&self) -> bool {
        match (read(&self.file), &self.now) {
            (Some(then), Some(now)) => then != *now,
            _ => false,
        }
    }

    /// Notes that all guests that the restart switched off were seen to.
    pub(crate) fn set(&self) {
        if let Some(now) = &self.now
            && read(&self.file).as_ref() != Some(now)
            && let Err(error) = replace(&self.file, now)
        {
            warn!(error = %error, "{} cannot be written; guests may be started once too often.", self.file.display());
        }
    }
}

/// Writes a small file so that after a power cut it is the old one or the new one, whole.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = File::create(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&draft, path)
}

fn read(path: &Path) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_seen_until_it_was_seen_to() {
        let folder = tempfile::tempdir().unwrap();
        let mark = BootMark::new(folder.path());
        assert!(!mark.host_was_restarted(), "the first start of all");
        mark.set();
        assert!(!mark.host_was_restarted());
        std::fs::write(folder.path().join(".boot-id"), "another").unwrap();
        assert!(mark.host_was_restarted());
        mark.set();
        assert!(!BootMark::new(folder.path()).host_was_restarted());
    }
}
