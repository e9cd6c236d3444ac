//! The file of simulated guests: one line for each change, rewritten short at each start.
//!
//! Lines are written without buffering, so a killed process loses nothing; they are not synced, for the guests of a
//! machine that loses its power are gone anyway.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use nova_types::InstanceId;
use tracing::error;

use crate::Power;

#[derive(Debug)]
pub(crate) struct Journal(Option<File>);

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
        let file = OpenOptions::new().append(true).open(path)?;
        Ok((Self(Some(file)), guests))
    }

    pub(crate) fn write(&mut self, id: InstanceId, power: Option<Power>) {
        if let Some(file) = &mut self.0
            && let Err(failed) = file.write_all(line(id, power).as_bytes())
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
