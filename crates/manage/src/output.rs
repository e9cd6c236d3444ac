//! Lists as text for old scripts, as a table for people, as JSON for new scripts.

use std::io;

use clap::ValueEnum;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::context::Context;

/// How a list is written: `--output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table for people
    Table,
    /// A JSON list of objects
    Json,
}

/// The option of every list.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Output {
    /// Write a table or JSON instead of what old Nova wrote
    #[arg(long, value_enum)]
    output: Option<Format>,
}

/// A list: names of the columns, and rows with as many values.
#[derive(Debug)]
pub(crate) struct List<const N: usize> {
    pub(crate) columns: [&'static str; N],
    pub(crate) rows: Vec<[Value; N]>,
}

impl Output {
    /// For lists that old Nova did not have.
    pub(crate) fn or_table(self) -> Self {
        Self { output: self.output.or(Some(Format::Table)) }
    }

    /// Writes `list` as was asked; `line` makes old Nova's text of a row.
    pub(crate) fn write<const N: usize>(
        self,
        cx: &mut Context<'_, '_>,
        list: List<N>,
        heading: Option<String>,
        line: impl Fn(&[Value; N]) -> String,
    ) -> io::Result<()> {
        match self.output {
            None => {
                heading.into_iter().try_for_each(|h| cx.say(h))?;
                list.rows.iter().try_for_each(|row| cx.say(line(row)))
            }
            Some(Format::Table) => {
                let mut table = Table::new();
                table.load_style(UTF8_FULL_CONDENSED).set_header(list.columns);
                for row in &list.rows {
                    table.add_row(row.iter().map(text));
                }
                cx.say(table)
            }
            Some(Format::Json) => {
                let object = |row: [Value; N]| {
                    list.columns.iter().map(|c| (*c).to_owned()).zip(row).collect::<Map<String, Value>>()
                };
                let rows: Vec<Value> = list.rows.into_iter().map(|row| Value::Object(object(row))).collect();
                cx.say(format_args!("{:#}", Value::Array(rows)))
            }
        }
    }
}

/// A value as a person reads it; nothing where there is none.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A value as Python printed it.
pub(crate) fn python(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        other => text(other),
    }
}

/// Anything that has a name, or nothing.
pub(crate) fn shown(thing: Option<impl std::fmt::Display>) -> Value {
    thing.map_or(Value::Null, |t| Value::String(t.to_string()))
}

/// A moment, in UTC, as Python printed it: `2011-02-03 04:05:06`.
pub(crate) fn moment(at: Option<OffsetDateTime>) -> Value {
    let form = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    shown(at.and_then(|at| at.to_offset(time::UtcOffset::UTC).format(&form).ok()))
}
