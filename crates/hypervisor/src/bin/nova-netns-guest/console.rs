//! What a guest says: lines at the end of a file, which is kept small.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

/// As with virtlogd, a full log becomes `console.log.0`, and a new one is begun.
const FULL_BYTES: u64 = 1 << 20;

#[derive(Debug)]
pub(crate) struct Console {
    log: PathBuf,
}

impl Console {
    pub(crate) fn new(log: PathBuf) -> Self {
        Self { log }
    }

    pub(crate) fn path(&self) -> String {
        self.log.display().to_string()
    }

    /// Writes a line. One that cannot be written is lost: there is nobody to tell.
    pub(crate) fn say(&self, line: &str) {
        let full = std::fs::metadata(&self.log).is_ok_and(|file| file.len() > FULL_BYTES);
        if full {
            let mut older = self.log.clone().into_os_string();
            older.push(".0");
            let _ = std::fs::rename(&self.log, older);
        }
        let line: String = line.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        if let Ok(mut file) = OpenOptions::new().append(true).create(true).open(&self.log) {
            let _ = file.write_all(format!("nova-guest: {line}\n").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_makes_room_and_a_line_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("console.log");
        let console = Console::new(log.clone());
        console.say("one\r\ntwo");
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "nova-guest: one??two\n");
        std::fs::write(&log, vec![b'x'; 1 + (1 << 20)]).unwrap();
        console.say("three");
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "nova-guest: three\n");
        assert_eq!(std::fs::metadata(folder.path().join("console.log.0")).unwrap().len(), 1 + (1 << 20));
    }
}
