//! `--sql_connection`, as SQLAlchemy writes it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The address of a database. It may hold a password, so neither `Debug` nor `Display` show that.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

/// Why a text is no database's address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseUrlError {
    /// It begins with something else.
    #[error("expected sqlite:///FILE, mysql://USER:PASSWORD@HOST/NAME or postgresql://USER:PASSWORD@HOST/NAME")]
    Kind,
    /// A SQLite address names no file.
    #[error("expected sqlite:///FILE (relative) or sqlite:////FILE (absolute)")]
    NoFile,
    /// A server's address names no database.
    #[error("names no database: expected …@HOST/NAME")]
    NoDatabase,
    /// The guide's placeholder was not replaced.
    #[error("still holds a <PLACEHOLDER>")]
    Placeholder,
}

impl DatabaseUrl {
    /// The address with its password, for opening the database only.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The file, if it is a SQLite database.
    pub fn sqlite_file(&self) -> Option<PathBuf> {
        let (scheme, rest) = self.0.split_once(':')?;
        let file = rest.strip_prefix("///")?.split('?').next()?;
        (kind(scheme) == Some(Kind::Sqlite)).then(|| Path::new(file).to_owned())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sqlite,
    Server,
}

/// Drivers, as in `mysql+pymysql`, are SQLAlchemy's business and say nothing here.
fn kind(scheme: &str) -> Option<Kind> {
    match scheme.split('+').next() {
        Some("sqlite") => Some(Kind::Sqlite),
        Some("mysql" | "mariadb" | "postgres" | "postgresql") => Some(Kind::Server),
        _ => None,
    }
}

impl FromStr for DatabaseUrl {
    type Err = DatabaseUrlError;

    fn from_str(text: &str) -> Result<Self, DatabaseUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(DatabaseUrlError::Kind)?;
        match kind(scheme).ok_or(DatabaseUrlError::Kind)? {
            Kind::Sqlite => {
                let file = rest.strip_prefix('/').and_then(|file| file.split('?').next()).unwrap_or_default();
                // Several processes and connections share it, which a database in memory cannot.
                if file.is_empty() || file == ":memory:" || file.ends_with('/') {
                    return Err(DatabaseUrlError::NoFile);
                }
            }
            Kind::Server => {
                let (host, name) = rest.rsplit_once('/').ok_or(DatabaseUrlError::NoDatabase)?;
                if host.rsplit('@').next().is_none_or(|host| host.contains('<')) || name.contains('<') {
                    return Err(DatabaseUrlError::Placeholder);
                }
                if name.split('?').next().is_none_or(str::is_empty) {
                    return Err(DatabaseUrlError::NoDatabase);
                }
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.0.split_once("://") else { return f.write_str("***") };
        match rest.rsplit_once('@') {
            Some((who, rest)) => write!(f, "{scheme}://{}:***@{rest}", who.split(':').next().unwrap_or_default()),
            None => write!(f, "{scheme}://{rest}"),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        for (url, shown) in [
            ("mysql://root:no@va@10.0.0.1/nova", "mysql://root:***@10.0.0.1/nova"),
            (
                "postgresql://nova:secret@db:5433/nova?sslmode=require",
                "postgresql://nova:***@db:5433/nova?sslmode=require",
            ),
            ("mysql+pymysql://localhost/nova", "mysql+pymysql://localhost/nova"),
            ("sqlite:////var/lib/nova/nova.sqlite", "sqlite:////var/lib/nova/nova.sqlite"),
        ] {
            let parsed: DatabaseUrl = url.parse().unwrap();
            assert_eq!(format!("{parsed} {parsed:?}"), format!("{shown} DatabaseUrl({shown})"));
            assert_eq!(parsed.expose(), url);
        }
    }

    #[test]
    fn three_slashes_are_relative_and_four_absolute() {
        for (url, file) in [
            ("sqlite:///nova.sqlite", Some("nova.sqlite")),
            ("sqlite:////var/lib/nova.sqlite?timeout=3", Some("/var/lib/nova.sqlite")),
            ("mysql://h/nova", None),
        ] {
            assert_eq!(url.parse::<DatabaseUrl>().unwrap().sqlite_file(), file.map(PathBuf::from));
        }
    }

    #[test]
    fn what_names_no_database_is_refused() {
        for (url, error) in [
            ("", DatabaseUrlError::Kind),
            ("nova.sqlite", DatabaseUrlError::Kind),
            ("oracle://h/nova", DatabaseUrlError::Kind),
            ("sqlite://", DatabaseUrlError::NoFile),
            ("sqlite:///:memory:", DatabaseUrlError::NoFile),
            ("mysql://root:nova@host", DatabaseUrlError::NoDatabase),
            ("mysql://root:nova@host/", DatabaseUrlError::NoDatabase),
            ("mysql://root:nova@<CC_ADDR>/nova", DatabaseUrlError::Placeholder),
        ] {
            assert_eq!(url.parse::<DatabaseUrl>(), Err(error), "{url}");
        }
    }
}
