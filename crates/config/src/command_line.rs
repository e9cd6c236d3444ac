//! The command line, by clap: help, version, what was set there, and the words after the flags.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, Command};

use crate::ConfigError;
use crate::known::{Flag, Known, Named};
use crate::value::Kind;

const FLAGFILE: &str = "flagfile";
const UNDEFOK: &str = "undefok";
const REST: &str = "arguments";

/// A program as its command line sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program {
    pub(crate) binary: &'static str,
    pub(crate) about: &'static str,
    /// What the help calls the words after the flags; `None` if there may be none.
    pub(crate) rest: Option<&'static str>,
}

/// What stood on the command line.
#[derive(Debug)]
pub(crate) struct CommandLine {
    pub(crate) flagfiles: Vec<String>,
    pub(crate) undefok: Vec<String>,
    pub(crate) set: Vec<(&'static str, String)>,
    pub(crate) rest: Vec<String>,
}

/// Reads a command line, the program's name first. The flags of `groups` are in the help; all others of Nova are
/// accepted, since one list of flags may be given to all programs.
pub(crate) fn parse(
    program: Program,
    groups: &[&'static [Flag]],
    known: &Known,
    args: impl IntoIterator<Item = OsString>,
) -> Result<CommandLine, ConfigError> {
    let command = command(program, groups, known);
    #[cfg(feature = "failpoints")]
    let command = crate::failpoints::add_to(command);
    let matches = command.try_get_matches_from(plainly(args, known)).map_err(|error| refusal(&error))?;
    #[cfg(feature = "failpoints")]
    crate::failpoints::heed(&matches)?;
    let texts = |id: &str| matches.get_many::<String>(id).into_iter().flatten().cloned().collect::<Vec<_>>();
    let mut set = Vec::new();
    for (name, _) in known.flags() {
        if matches.value_source(name) == Some(ValueSource::CommandLine) {
            set.extend(texts(name).into_iter().map(|value| (name, value)));
        }
    }
    let rest = if program.rest.is_some() { texts(REST) } else { Vec::new() };
    Ok(CommandLine { flagfiles: texts(FLAGFILE), undefok: texts(UNDEFOK), set, rest })
}

/// Writes each flag the one way that clap is told of: `--noverbose` as `--verbose=false`, `--rabbit-h` as
/// `--rabbit_host`. The first word that is neither flag nor value ends this, for what follows is not ours.
fn plainly(args: impl IntoIterator<Item = OsString>, known: &Known) -> Vec<OsString> {
    let mut args = args.into_iter();
    let mut plain: Vec<OsString> = args.next().into_iter().collect();
    while let Some(arg) = args.next() {
        let text = arg.to_str().unwrap_or_default();
        let text = if text.starts_with("-flagfile") { &text[1..] } else { text.strip_prefix("--").unwrap_or_default() };
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        let takes_word = match (known.named(name), value) {
            (Named::Flag { name, negated: false, .. }, Some(value)) => {
                plain.push(format!("--{name}={value}").into());
                continue;
            }
            (Named::Flag { name, negated: true, .. }, None) => {
                plain.push(format!("--{name}=false").into());
                continue;
            }
            (Named::Flag { name, switch, negated: false }, None) => {
                plain.push(format!("--{name}").into());
                !switch
            }
            #[cfg(feature = "failpoints")]
            (Named::Nothing { .. }, None) if name == crate::failpoints::LIST => {
                plain.push(arg);
                false
            }
            (Named::Nothing { .. }, None) if matches!(name, FLAGFILE | UNDEFOK) => {
                plain.push(format!("--{name}").into());
                true
            }
            (Named::Nothing { .. } | Named::Flag { negated: true, .. }, _) if text.is_empty() => {
                plain.push(arg);
                break;
            }
            (Named::Nothing { .. } | Named::Flag { negated: true, .. }, _) => {
                plain.push(arg);
                false
            }
        };
        if takes_word {
            plain.extend(args.next());
        }
    }
    plain.extend(args);
    plain
}

fn command(program: Program, groups: &[&'static [Flag]], known: &Known) -> Command {
    let mut command = Command::new(program.binary)
        .bin_name(program.binary)
        .about(program.about)
        .version(env!("CARGO_PKG_VERSION"))
        .args_override_self(true)
        .after_help("Flags are read from --flagfile (default: /etc/nova/nova.conf), then from the command line.")
        .arg(
            Arg::new(FLAGFILE)
                .long(FLAGFILE)
                .value_name("PATH")
                .action(ArgAction::Append)
                .help("Read flags from this file, one --name=value to a line; the first of several wins"),
        )
        .arg(Arg::new(UNDEFOK).long(UNDEFOK).value_name("LIST").action(ArgAction::Append).hide(true));
    if let Some(rest) = program.rest {
        let words = Arg::new(REST).value_name(rest).num_args(0..).trailing_var_arg(true).allow_hyphen_values(true);
        command = command.arg(words);
    }
    for (name, kind) in known.flags() {
        let shown = groups.iter().flat_map(|group| group.iter()).find(|flag| flag.name == name);
        let arg = Arg::new(name).long(name);
        let arg = match shown {
            Some(flag) => arg.help(help(flag)).help_heading(flag.heading),
            None => arg.hide(true),
        };
        command = command.arg(match kind {
            Kind::Many(shown) => arg.value_name(shown).allow_hyphen_values(true).action(ArgAction::Append),
            Kind::Value(shown) => arg.value_name(shown).allow_hyphen_values(true),
            Kind::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("BOOL"),
        });
    }
    command
}

fn help(flag: &Flag) -> String {
    let text = flag.help.trim().trim_end_matches('.');
    match flag.default {
        "" => text.to_owned(),
        default => format!("{text} [default: {default}]"),
    }
}

/// Help and version are answers; anything else becomes one line.
fn refusal(error: &clap::Error) -> ConfigError {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return ConfigError::Answered(error.to_string());
    }
    let text = error.to_string();
    let lines = text.lines().map(str::trim);
    let told = lines.filter(|line| line.starts_with("error: ") || line.starts_with("tip: "));
    let told: Vec<&str> = told.map(|line| line.strip_prefix("error: ").unwrap_or(line)).collect();
    ConfigError::Usage(told.join("; "))
}
