//! The file of simulated guests: one line for each change, rewritten short at each start.
//!
//! Lines are written without buffering, so a killed process loses nothing; they are not synced, for the guests of a
//! machine that loses its power are gone anyway.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nova_types::InstanceId;
use tracing::error;

use crate::Power;

/// The file is opened for each line: one process may simulate more hosts than it may have files open.
#[derive(Debug)]
pub(crate) struct Journal(Option<PathBuf>);

impl Journal {
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    /// Reads the guests and begins a new file that holds just them.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, BTreeMap<InstanceId, Power>)> {
        let guests = match fs::read_to_string(path) {
            Ok(text) => replay(&text),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(unreadable) => return Err(unreadable),
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let short = path.with_extension("new");
        fs::write(&short, guests.iter().map(|(id, power)| line(*id, Some(*power))).collect::<String>())?;
        fs::rename(&short, path)?;
        Ok((Self(Some(path.to_owned())), guests))
    }

    pub(crate) fn write(&self, id: InstanceId, power: Option<Power>) {
        let append = |path: &Path| {
            let mut file = OpenOptions::new().append(true).create(true).open(path)?;
            file.write_all(line(id, power).as_bytes())
        };
        if let Some(path) = &self.0
            && let Err(failed) = append(path)
        {
            error!(instance.id = %id, error = %failed, "A simulated guest could not be noted down.");
        }
    }
}

fn line(id: InstanceId, power: Option<Power>) -> String {
    let word = match power {
        Some(Power::On) => "on",
        Some(Power::Off) => "off",
        None => "gone",
    };
    format!("{id} {word}\n")
}

/// What was cut short by a kill is passed over: the call it belonged to was never answered.
fn replay(text: &str) -> BTreeMap<InstanceId, Power> {
    let mut guests = BTreeMap::new();
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        let Some((id, word)) = line.split_once(' ') else { continue };
        let Ok(id) = id.parse() else { continue };
        match word {
            "on" => drop(guests.insert(id, Power::On)),
            "off" => drop(guests.insert(id, Power::Off)),
            "gone" => drop(guests.remove(&id)),
            _ => {}
        }
    }
    guests
}
