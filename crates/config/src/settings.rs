//! What was set, by whom; aliases of former releases; `$name` in values; and reading values out.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::known::Known;
use crate::value::FromFlag;
use crate::{ConfigError, Origin, Surroundings, Warning, rules};

/// `$a` may lead to `$b`, but not for ever.
const DEPTH: usize = 16;

/// The flags that somebody set; a later value replaces an earlier one.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    set: BTreeMap<&'static str, (String, Origin)>,
    warnings: Vec<Warning>,
    unknown: Vec<(String, Origin, Option<&'static str>)>,
    allowed: Vec<String>,
}

impl Settings {
    pub(crate) fn set(&mut self, name: &'static str, value: &str, origin: Origin) {
        self.set.insert(name, (value.to_owned(), origin));
    }

    /// Adds a value to those that were set in the same kind of place.
    pub(crate) fn add(&mut self, name: &'static str, value: &str, origin: Origin) {
        let before =
            self.set.get(name).filter(|(_, from)| std::mem::discriminant(from) == std::mem::discriminant(&origin));
        let all = before.map_or(value.to_owned(), |(before, _)| format!("{before} {value}"));
        self.set.insert(name, (all, origin));
    }

    pub(crate) fn warn(&mut self, warning: Warning) {
        self.warnings.push(warning);
    }

    pub(crate) fn unknown(&mut self, name: &str, origin: Origin, meant: Option<&'static str>) {
        self.unknown.push((name.to_owned(), origin, meant));
    }

    /// Takes the value of `--undefok`: names that may be unknown.
    pub(crate) fn allow_unknown(&mut self, names: &str) {
        self.allowed.extend(names.split(',').map(|name| name.trim().to_owned()));
    }

    /// What was warned about, unknown flags last.
    pub(crate) fn take_warnings(&mut self) -> Vec<Warning> {
        let allowed = std::mem::take(&mut self.allowed);
        let unknown = std::mem::take(&mut self.unknown).into_iter().filter(|(name, ..)| !allowed.contains(name));
        let unknown = unknown.map(|(flag, origin, meant)| Warning::UnknownFlag { flag, origin, meant });
        let mut warnings = std::mem::take(&mut self.warnings);
        warnings.extend(unknown);
        warnings
    }

    /// Translates the flags of the guide that the first release dropped: `--cc_host` is the EC2 host, inside and out,
    /// and `--ec2_url` is scheme, host, port and path in one. What is also set by its own name stays.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for an `--ec2_url` that is no URL.
    pub(crate) fn translate_former(&mut self) -> Result<(), ConfigError> {
        if let Some((url, origin)) = self.set.get("ec2_url").cloned() {
            let parts = split_url(&url).ok_or_else(|| ConfigError::Value {
                flag: "ec2_url".to_owned(),
                value: url.clone(),
                origin: origin.clone(),
                reason: "expected http://HOST:PORT/PATH".to_owned(),
            })?;
            for (name, value) in parts {
                self.set_unless_given(name, &value, &origin);
            }
        }
        if let Some((host, origin)) = self.set.get("cc_host").cloned() {
            self.set_unless_given("ec2_host", &host, &origin);
            self.set_unless_given("ec2_dmz_host", &host, &origin);
        }
        Ok(())
    }

    fn set_unless_given(&mut self, name: &'static str, value: &str, origin: &Origin) {
        self.set.entry(name).or_insert_with(|| (value.to_owned(), origin.clone()));
    }
}

/// `http://10.0.0.1:8773/services/Cloud` as four flags; the port may be left out.
fn split_url(url: &str) -> Option<Vec<(&'static str, String)>> {
    let (scheme, rest) = url.split_once("://")?;
    let (place, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (place, None),
    };
    if !matches!(scheme, "http" | "https") || host.is_empty() || host.contains(['@', '<', ' ']) {
        return None;
    }
    let mut parts = vec![("ec2_scheme", scheme.to_owned()), ("ec2_host", host.to_owned())];
    parts.push(("ec2_dmz_host", host.to_owned()));
    if let Some(port) = port {
        port.parse::<u16>().ok()?;
        parts.push(("ec2_port", port.to_owned()));
    }
    if path.len() > 1 {
        parts.push(("ec2_path", path.trim_end_matches('/').to_owned()));
    }
    Some(parts)
}

/// Hands out typed values.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) known: &'a Known,
    pub(crate) surroundings: &'a Surroundings,
    pub(crate) remarks: RefCell<Vec<Warning>>,
}

impl Reader<'_> {
    /// The value of a flag, or its default.
    ///
    /// # Errors
    /// [`ConfigError::Value`] and [`ConfigError::Substitution`].
    pub(crate) fn value<T: FromFlag>(&self, flag: &'static str) -> Result<T, ConfigError> {
        let (raw, origin) = self.raw(flag).unwrap_or_else(|| (String::new(), Origin::Default));
        let text = if T::EXPANDS { self.expand(flag, &raw, &origin, DEPTH)? } else { raw };
        let refused = |reason| {
            let value = if T::SECRET { "***".to_owned() } else { text.chars().take(80).collect() };
            ConfigError::Value { flag: flag.to_owned(), value, origin: origin.clone(), reason }
        };
        let value = T::from_flag(&text).map_err(refused)?;
        rules::check(flag, &text).map_err(refused)?;
        if let Some(remark) = value.remark(&text) {
            self.remarks.borrow_mut().push(Warning::Remark { flag: flag.to_owned(), origin, remark });
        }
        Ok(value)
    }

    fn raw(&self, name: &str) -> Option<(String, Origin)> {
        if let Some(set) = self.settings.set.get(name) {
            return Some(set.clone());
        }
        let default = match name {
            "host" => self.surroundings.host.clone(),
            "my_ip" => self.surroundings.my_ip.to_string(),
            "state_path" => self.surroundings.state_path.display().to_string(),
            _ => self.known.flag(name)?.default.to_owned(),
        };
        Some((default, Origin::Default))
    }

    /// Replaces `$name`, `${name}` and `$$`. Any other dollar stays as it is.
    fn expand(&self, flag: &str, text: &str, origin: &Origin, depth: usize) -> Result<String, ConfigError> {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            expanded.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                expanded.push('$');
                rest = after;
                continue;
            }
            let Some((name, after)) = reference(rest) else {
                expanded.push('$');
                continue;
            };
            let refused = |reason| ConfigError::Substitution {
                flag: flag.to_owned(),
                origin: origin.clone(),
                name: name.to_owned(),
                reason,
            };
            if depth == 0 {
                return Err(refused("leads back to itself"));
            }
            let (value, from) = self.raw(name).ok_or_else(|| refused("is no flag"))?;
            let value = self.expand(name, &value, &from, depth - 1)?;
            if value.is_empty() {
                return Err(refused("is not set"));
            }
            expanded.push_str(&value);
            rest = after;
        }
        expanded.push_str(rest);
        Ok(expanded)
    }
}

/// The name after a dollar, and what follows it.
fn reference(text: &str) -> Option<(&str, &str)> {
    let word = |text: &str| text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    if let Some(inside) = text.strip_prefix('{') {
        let (name, after) = inside.split_once('}')?;
        return (word(name) == name.len() && !name.is_empty()).then_some((name, after));
    }
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts.then(|| text.split_at(word(text)))
}
