//! A row of an answer, read by column name.

use std::str::FromStr;

use sqlx::mysql::MySqlRow;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Column as _, Row as _, TypeInfo as _};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use crate::dialect::Engine;
use crate::error::DbError;

/// How SQLite stores an instant: the text SQLAlchemy wrote, so that old readers still understand it.
const STORED: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second][optional [.[subsecond]]]");
const WRITTEN: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:6]");

/// One row of an answer.
#[derive(Debug)]
pub struct Row(pub(crate) Cells);

pub(crate) enum Cells {
    Sqlite(SqliteRow),
    MySql(MySqlRow),
    Postgres(PgRow),
}

impl std::fmt::Debug for Cells {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cells")
    }
}

/// What a column can be read as.
pub trait FromColumn: Sized {
    /// Reads `column`; `None` where it is NULL.
    ///
    /// # Errors
    /// [`DbError::Sql`] when there is no such column or it has another type.
    fn read(row: &Row, column: &str) -> Result<Option<Self>, DbError>;
}

impl Row {
    /// Reads a column that is never NULL, or one that may be, as an `Option`.
    ///
    /// # Errors
    /// [`DbError::Sql`] when there is no such column, its type does not fit, or it is NULL and `T` is no `Option`.
    pub fn get<T: Get>(&self, column: &str) -> Result<T, DbError> {
        T::get(self, column)
    }

    /// Reads a text column and parses it.
    ///
    /// # Errors
    /// [`DbError::Corrupt`] when the text does not parse.
    pub fn parse<T: FromStr>(&self, column: &'static str) -> Result<T, DbError> {
        let value: String = self.get(column)?;
        value.parse().map_err(|_| DbError::Corrupt { column, value })
    }

    /// Reads a text column that may be NULL or empty, and parses what is there.
    ///
    /// # Errors
    /// [`DbError::Corrupt`] when the text does not parse.
    pub fn parse_some<T: FromStr>(&self, column: &'static str) -> Result<Option<T>, DbError> {
        match self.get::<Option<String>>(column)?.filter(|text| !text.is_empty()) {
            None => Ok(None),
            Some(value) => value.parse().map(Some).map_err(|_| DbError::Corrupt { column, value }),
        }
    }

    /// Reads an integer column that holds something narrower than it can.
    ///
    /// # Errors
    /// [`DbError::Corrupt`] when the number is out of range.
    pub fn narrow<T: TryFrom<i64>>(&self, column: &'static str) -> Result<T, DbError> {
        let value: i64 = self.get(column)?;
        T::try_from(value).map_err(|_| DbError::Corrupt { column, value: value.to_string() })
    }

    /// The same for a column that may be NULL.
    ///
    /// # Errors
    /// [`DbError::Corrupt`] when the number is out of range.
    pub fn narrow_some<T: TryFrom<i64>>(&self, column: &'static str) -> Result<Option<T>, DbError> {
        self.get::<Option<i64>>(column)?
            .map(|value| T::try_from(value).map_err(|_| DbError::Corrupt { column, value: value.to_string() }))
            .transpose()
    }
}

/// What [`Row::get`] can return: a value, or an `Option` of one.
pub trait Get: Sized {
    /// Reads `column` of `row`.
    ///
    /// # Errors
    /// As for [`Row::get`].
    fn get(row: &Row, column: &str) -> Result<Self, DbError>;
}

impl<T: FromColumn> Get for Option<T> {
    fn get(row: &Row, column: &str) -> Result<Self, DbError> {
        T::read(row, column)
    }
}

macro_rules! get_plain {
    ($($t:ty),*) => {$(
        impl Get for $t {
            fn get(row: &Row, column: &str) -> Result<Self, DbError> {
                Self::read(row, column)?
                    .ok_or_else(|| DbError::Sql(sqlx::Error::Decode(format!("column {column} is null").into())))
            }
        }
    )*};
}
get_plain!(i32, i64, bool, String, OffsetDateTime);

fn misread(engine: Engine) -> impl Fn(sqlx::Error) -> DbError {
    move |error| DbError::from_sqlx(engine, error)
}

impl FromColumn for i64 {
    fn read(row: &Row, column: &str) -> Result<Option<Self>, DbError> {
        match &row.0 {
            Cells::Sqlite(row) => row.try_get_unchecked(column).map_err(misread(Engine::Sqlite)),
            Cells::MySql(row) => row.try_get(column).map_err(misread(Engine::MySql)),
            Cells::Postgres(row) => {
                let narrow = row.try_column(column).is_ok_and(|c| c.type_info().name() == "INT4");
                if narrow {
                    row.try_get::<Option<i32>, _>(column).map(|v| v.map(Self::from)).map_err(misread(Engine::Postgres))
                } else {
                    row.try_get(column).map_err(misread(Engine::Postgres))
                }
            }
        }
    }
}

impl FromColumn for i32 {
    fn read(row: &Row, column: &str) -> Result<Option<Self>, DbError> {
        i64::read(row, column)?
            .map(Self::try_from)
            .transpose()
            .map_err(|_| DbError::Sql(sqlx::Error::Decode(format!("column {column} is wider than an i32").into())))
    }
}

impl FromColumn for bool {
    fn read(row: &Row, column: &str) -> Result<Option<Self>, DbError> {
        match &row.0 {
            Cells::Sqlite(row) => row.try_get_unchecked(column).map_err(misread(Engine::Sqlite)),
            Cells::MySql(row) => row.try_get_unchecked(column).map_err(misread(Engine::MySql)),
            Cells::Postgres(row) => row.try_get(column).map_err(misread(Engine::Postgres)),
        }
    }
}

impl FromColumn for String {
    fn read(row: &Row, column: &str) -> Result<Option<Self>, DbError> {
        match &row.0 {
            Cells::Sqlite(row) => row.try_get_unchecked(column).map_err(misread(Engine::Sqlite)),
            Cells::MySql(row) => row.try_get_unchecked(column).map_err(misread(Engine::MySql)),
            Cells::Postgres(row) => row.try_get_unchecked(column).map_err(misread(Engine::Postgres)),
        }
    }
}

impl FromColumn for OffsetDateTime {
    fn read(row: &Row, column: &str) -> Result<Option<Self>, DbError> {
        let stored: Option<PrimitiveDateTime> = match &row.0 {
            Cells::Sqlite(row) => {
                let text: Option<String> = row.try_get_unchecked(column).map_err(misread(Engine::Sqlite))?;
                text.map(|text| parse_stored(column, &text)).transpose()?
            }
            Cells::MySql(row) => row.try_get(column).map_err(misread(Engine::MySql))?,
            Cells::Postgres(row) => row.try_get(column).map_err(misread(Engine::Postgres))?,
        };
        Ok(stored.map(PrimitiveDateTime::assume_utc))
    }
}

/// The text of an instant in SQLite.
pub(crate) fn write_stored(at: PrimitiveDateTime) -> String {
    at.format(WRITTEN).unwrap_or_default()
}

fn parse_stored(column: &str, text: &str) -> Result<PrimitiveDateTime, DbError> {
    PrimitiveDateTime::parse(text, STORED)
        .map_err(|error| DbError::Sql(sqlx::Error::Decode(format!("column {column}: {text:?}: {error}").into())))
}
