//! Flag files: one `--name=value` to a line.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::known::{Known, Named};
use crate::settings::Settings;
use crate::{ConfigError, Origin, Warning};

/// Reads a flag file and those it names into `settings`, last line last.
pub(crate) fn read(
    path: &Path,
    asked_by: &Origin,
    known: &Known,
    home: Option<&Path>,
    settings: &mut Settings,
) -> Result<(), ConfigError> {
    FlagFiles { known, home, open: Vec::new(), settings }.read(path, asked_by)
}

struct FlagFiles<'a> {
    known: &'a Known,
    home: Option<&'a Path>,
    /// The files being read, outermost first.
    open: Vec<PathBuf>,
    settings: &'a mut Settings,
}

impl FlagFiles<'_> {
    fn read(&mut self, path: &Path, asked_by: &Origin) -> Result<(), ConfigError> {
        let path = at_home(path, self.home);
        let failed = |source| ConfigError::Flagfile { path: path.clone(), origin: asked_by.clone(), source };
        let text = fs::read(&path).map_err(failed)?;
        let text = String::from_utf8(text).map_err(|_| failed(io::Error::other("it is not UTF-8 text")))?;
        self.open.push(path.clone());
        for (number, line) in (1..).zip(text.lines()) {
            self.line(line, Origin::File { path: path.clone(), line: number })?;
        }
        self.open.pop();
        Ok(())
    }

    fn line(&mut self, line: &str, origin: Origin) -> Result<(), ConfigError> {
        let line = line.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
        if line.is_empty() || line.starts_with('#') || line.starts_with("//") {
            return Ok(());
        }
        let (line, explained) = without_comment(line);
        let (dashes, rest) = dashes(line);
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let (name, value) = rest.split_at(end);
        let value = value.trim_start();
        let value = match value.strip_prefix('=') {
            Some(value) => Some(value.trim()),
            None => Some(value).filter(|value| !value.is_empty()),
        };
        let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
        let named = self.known.named(name);
        // `name = value` without dashes is how later releases write it; it must at least be a flag of ours.
        let known_at_least = value.is_some() && rest[end..].trim_start().starts_with('=');
        let bare = dashes == 0 && !(known_at_least && matches!(named, Named::Flag { .. }));
        if !plain || bare {
            let text = line.chars().take(60).collect();
            return Err(ConfigError::StrayText { origin, text });
        }
        match (name, value) {
            ("flagfile", Some(path)) => return self.nested(Path::new(path), origin),
            ("undefok", Some(names)) => {
                self.settings.allow_unknown(names);
                return Ok(());
            }
            _ => {}
        }
        match named {
            Named::Nothing { meant } => self.settings.unknown(name, origin, meant),
            Named::Flag { name, switch, negated } => match (switch, value) {
                (true, None) => self.settings.set(name, if negated { "false" } else { "true" }, origin),
                (true, Some(_)) if negated => {
                    return Err(ConfigError::Usage(format!("{origin}: --no{name} takes no value")));
                }
                (_, Some(value)) if self.known.is_many(name) => self.settings.add(name, value, origin),
                (_, Some(value)) => self.settings.set(name, value, origin),
                (false, None) if explained => {
                    self.settings.warn(Warning::OnlyExplained { flag: name.to_owned(), origin });
                }
                (false, None) => return Err(ConfigError::NoValue { flag: name.to_owned(), origin }),
            },
        }
        Ok(())
    }

    /// A file named in a file is looked for beside it, for a daemon's working folder is an accident.
    fn nested(&mut self, path: &Path, origin: Origin) -> Result<(), ConfigError> {
        let path = at_home(path, self.home);
        let folder = self.open.last().and_then(|open| open.parent()).unwrap_or(Path::new(""));
        let path = folder.join(path);
        let same = |open: &PathBuf| *open == path || fs::canonicalize(open).ok() == fs::canonicalize(&path).ok();
        if path.exists() && self.open.iter().any(same) {
            self.settings.warn(Warning::Loop { path, origin });
            return Ok(());
        }
        self.read(&path, &origin)
    }
}

fn at_home(path: &Path, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

/// Cuts a comment off. It begins with a `#` after a blank: one inside a password stays.
fn without_comment(line: &str) -> (&str, bool) {
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        if c == '#' && before.is_whitespace() {
            return (line[..at].trim_end(), true);
        }
        before = c;
    }
    (line, false)
}

/// Two dashes begin a flag; one does as well, for `-flagfile` of old.
fn dashes(line: &str) -> (usize, &str) {
    let rest = line.strip_prefix("--").or_else(|| line.strip_prefix('-')).unwrap_or(line);
    (line.len() - rest.len(), rest)
}
