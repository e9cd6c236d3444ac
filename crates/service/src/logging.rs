//! Logs: one line per event, to stderr or a file. What came from outside cannot forge a line.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use nova_config::CommonFlags;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::ServiceError;

static LOG: OnceLock<Log> = OnceLock::new();

/// Sets logging up for this process.
pub(crate) fn init(binary: &str, flags: &CommonFlags) -> Result<(), ServiceError> {
    let log = Log::open(file(binary, flags))?;
    let ours = if flags.verbose { LevelFilter::DEBUG } else { LevelFilter::INFO };
    // The bus says in its own words, and once, what lapin says of every try, with the messages in it.
    let filter = Targets::new().with_default(LevelFilter::WARN).with_target("lapin", LevelFilter::OFF);
    let filter = filter.with_target("nova", ours);
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(log.clone());
    tracing_subscriber::registry().with(filter).with(layer).try_init().map_err(|_| ServiceError::LogTwice)?;
    let _ = LOG.set(log);
    Ok(())
}

/// Opens the log file again, after it was moved away.
pub(crate) fn reopen() -> Result<(), ServiceError> {
    LOG.get().map_or(Ok(()), Log::reopen)
}

/// Whether the log is somewhere else than stderr.
pub(crate) fn in_file() -> bool {
    matches!(LOG.get(), Some(Log::File(_)))
}

/// Where to log: `--logfile`, else `<logdir>/<binary>.log`, else stderr.
fn file(binary: &str, flags: &CommonFlags) -> Option<PathBuf> {
    let in_folder = || flags.logdir.as_ref().map(|folder| folder.join(format!("{binary}.log")));
    match (&flags.logfile, &flags.logdir) {
        (Some(file), Some(folder)) => Some(folder.join(file)),
        (Some(file), None) => Some(file.clone()),
        (None, _) => in_folder(),
    }
}

#[derive(Clone, Debug)]
enum Log {
    Stderr,
    File(Arc<(PathBuf, RwLock<File>)>),
}

impl Log {
    fn open(path: Option<PathBuf>) -> Result<Self, ServiceError> {
        let Some(path) = path else { return Ok(Self::Stderr) };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|source| ServiceError::Log { path: path.clone(), source })?;
        }
        let file = append(&path)?;
        Ok(Self::File(Arc::new((path, RwLock::new(file)))))
    }

    fn reopen(&self) -> Result<(), ServiceError> {
        if let Self::File(log) = self {
            let file = append(&log.0)?;
            *log.1.write().unwrap_or_else(PoisonError::into_inner) = file;
        }
        Ok(())
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stderr => io::stderr().lock().write_all(bytes),
            // Opened for appending: one write is one line, also with several writers.
            Self::File(log) => (&*log.1.read().unwrap_or_else(PoisonError::into_inner)).write_all(bytes),
        }
    }
}

fn append(path: &Path) -> Result<File, ServiceError> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|source| ServiceError::Log { path: path.to_owned(), source })
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { log: self, bytes: Vec::with_capacity(256) }
    }
}

/// Gathers one event and writes it as one line.
struct Line<'a> {
    log: &'a Log,
    bytes: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            // A full disk must not stop a daemon, and there is nowhere left to tell.
            let _ = self.log.write(&one_line(&self.bytes));
        }
    }
}

/// Escapes control characters, the line breaks inside among them.
fn one_line(event: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(event);
    let mut line = String::with_capacity(text.len() + 1);
    for c in text.trim_end_matches('\n').chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line.push('\n');
    line.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::info;

    /// Logs to a file with the format of [`init`], without making it the process's.
    fn logged(emit: impl FnOnce()) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/nova-api.log");
        let log = Log::open(Some(path.clone())).unwrap();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).without_time().with_writer(log);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), emit);
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let name = "a\nFORGED\u{1b}[2J\tb";
        let text = logged(|| info!(user.name = name, took_ms = 3, "Hello {name}."));
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains(r"Hello a\nFORGED"), "{text}");
        assert!(!text.contains('\u{1b}') && text.contains("took_ms=3"), "{text}");
    }

    #[test]
    fn a_log_that_was_moved_away_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        let log = Log::open(Some(path.clone())).unwrap();
        log.write(b"one\n").unwrap();
        std::fs::rename(&path, folder.path().join("x.log.1")).unwrap();
        log.reopen().unwrap();
        log.write(b"two\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
    }

    #[test]
    fn a_log_that_cannot_be_opened_is_named() {
        let error = Log::open(Some("/proc/none/x.log".into())).unwrap_err();
        assert_eq!(error.to_string(), "cannot open the log /proc/none/x.log");
    }
}
