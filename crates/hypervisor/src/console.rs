//! The end of a console's log.
//!
//! virtlogd caps the log: when `console.log` is full it becomes `console.log.0` and a new one is begun. So the end may
//! lie in both.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::HypervisorError;

/// Reads the last `max_bytes` of `log` and its predecessor; nothing if there is none.
pub(crate) fn tail(log: &Path, max_bytes: usize) -> Result<Vec<u8>, HypervisorError> {
    let refused = |source| HypervisorError::Console { path: log.to_owned(), source };
    let newest = end_of(log, max_bytes).map_err(refused)?;
    let missing = max_bytes - newest.len();
    if missing == 0 {
        return Ok(newest);
    }
    let mut older = end_of(&predecessor(log), missing).map_err(refused)?;
    older.extend(newest);
    Ok(older)
}

fn predecessor(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".0");
    PathBuf::from(name)
}

fn end_of(path: &Path, max_bytes: usize) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let cap = u64::try_from(max_bytes).unwrap_or(u64::MAX);
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(cap)))?;
    let mut end = Vec::new();
    // The guest may be writing while we read.
    file.take(cap).read_to_end(&mut end)?;
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_read_across_a_rollover_and_never_more_than_asked() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("console.log");
        assert_eq!(tail(&log, 10).unwrap(), b"");
        std::fs::write(&log, "new").unwrap();
        assert_eq!(tail(&log, 10).unwrap(), b"new");
        std::fs::write(folder.path().join("console.log.0"), "older").unwrap();
        for (max, wanted) in [(0, ""), (2, "ew"), (3, "new"), (5, "ernew"), (100, "oldernew")] {
            assert_eq!(String::from_utf8(tail(&log, max).unwrap()).unwrap(), wanted);
        }
    }

    #[test]
    fn a_log_that_cannot_be_read_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let error = tail(folder.path(), 10).unwrap_err();
        assert_eq!(error.to_string(), format!("reading {}", folder.path().display()));
    }
}
