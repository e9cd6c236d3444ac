//! Where a database is: SQLAlchemy's URLs, with several hosts where there are replicas.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::DbError;

/// Most hosts in one URL.
const MOST_HOSTS: usize = 16;

/// Where the database is. Its `Debug` form shows no password.
#[derive(Clone, PartialEq, Eq)]
pub enum Target {
    /// A SQLite file, created when absent.
    Sqlite(PathBuf),
    /// A `mysql://` URL for each host, one of which is the primary.
    MySql(Vec<String>),
    /// The same with `postgres://`.
    Postgres(Vec<String>),
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite at {}", path.display()),
            Self::MySql(urls) => write!(f, "mysql at {}", places(urls)),
            Self::Postgres(urls) => write!(f, "postgres at {}", places(urls)),
        }
    }
}

fn places(urls: &[String]) -> String {
    urls.iter().map(|url| place(url)).collect::<Vec<_>>().join(" or ")
}

/// Host, port and database of a URL, without who logs in.
fn place(url: &str) -> &str {
    url.rsplit_once('@').map_or("its default place", |(_, place)| place)
}

impl FromStr for Target {
    type Err = DbError;

    /// Reads a SQLAlchemy URL: `sqlite:///relative`, `sqlite:////absolute`, `mysql://…`, `postgresql://…`,
    /// with or without a driver (`mysql+pymysql://…`), with one host or several (`mysql://u:p@a,b:3307/nova`).
    fn from_str(url: &str) -> Result<Self, DbError> {
        let unknown = || DbError::Url(scheme_of(url).to_owned());
        let (scheme, rest) = url.split_once(':').ok_or_else(unknown)?;
        match scheme.split('+').next().unwrap_or_default() {
            "sqlite" => {
                let path = rest.strip_prefix("///").unwrap_or(rest);
                let path = path.split('?').next().unwrap_or_default();
                if path.is_empty() || path.starts_with("//") || path == ":memory:" {
                    return Err(unknown());
                }
                Ok(Self::Sqlite(PathBuf::from(path)))
            }
            "mysql" | "mariadb" => {
                let rest = rest.replace("unix_socket=", "socket=");
                each_host("mysql", &rest).map(Self::MySql).ok_or_else(unknown)
            }
            "postgres" | "postgresql" => each_host("postgres", rest).map(Self::Postgres).ok_or_else(unknown),
            _ => Err(unknown()),
        }
    }
}

/// A URL of its own for each of the hosts in `//user:password@a,b:3307/name?options`.
fn each_host(scheme: &str, rest: &str) -> Option<Vec<String>> {
    let rest = rest.strip_prefix("//")?;
    let (authority, path) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
    let (who, hosts) = authority
        .rsplit_once('@')
        .map_or(("", authority), |(_, hosts)| (&authority[..authority.len() - hosts.len()], hosts));
    let urls: Vec<String> = hosts.split(',').map(|host| format!("{scheme}://{who}{host}{path}")).collect();
    let several = urls.len() > 1;
    let sound = urls.len() <= MOST_HOSTS && !(several && hosts.split(',').any(str::is_empty));
    sound.then_some(urls)
}

/// What may be shown of a URL in an error: never its password.
fn scheme_of(url: &str) -> &str {
    url.split(':').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::Target;

    fn check(urls: &[&str], want: Expect) {
        let read: Vec<String> = urls
            .iter()
            .map(|url| match url.parse::<Target>() {
                Ok(target) => format!("{target:?}"),
                Err(error) => error.to_string(),
            })
            .collect();
        want.assert_eq(&(read.join("\n") + "\n"));
    }

    #[test]
    fn urls_are_read_the_way_sqlalchemy_reads_them() {
        check(
            &[
                "sqlite:///nova.sqlite",
                "sqlite:////var/lib/nova/nova.sqlite",
                "mysql://root:nova@10.0.0.1/nova",
                "mysql+pymysql://u@h/nova?unix_socket=/run/s",
                "postgresql+psycopg2://u:p@h:5433/nova",
            ],
            expect![[r#"
                sqlite at nova.sqlite
                sqlite at /var/lib/nova/nova.sqlite
                mysql at 10.0.0.1/nova
                mysql at h/nova?socket=/run/s
                postgres at h:5433/nova
            "#]],
        );
    }

    #[test]
    fn several_hosts_share_all_the_rest() {
        check(
            &[
                "mysql://u:p,q@a,b:3307,[::1]:9/nova?ssl-mode=required",
                "postgresql://a,b/nova",
                "mysql://u:p@a,,b/nova",
            ],
            expect![[r#"
                mysql at a/nova?ssl-mode=required or b:3307/nova?ssl-mode=required or [::1]:9/nova?ssl-mode=required
                postgres at its default place or its default place
                "mysql" is not a database URL
            "#]],
        );
        let Ok(Target::MySql(urls)) = "mysql://u:p,q@a,b:3307/nova".parse() else { panic!("it is one") };
        assert_eq!(urls, ["mysql://u:p,q@a/nova", "mysql://u:p,q@b:3307/nova"]);
    }

    #[test]
    fn what_is_no_url_of_ours_is_refused_without_its_password() {
        check(
            &["", "nova.sqlite", "sqlite:///", "sqlite:///:memory:", "oracle://scott:tiger@h/nova"],
            expect![[r#"
                "" is not a database URL
                "nova.sqlite" is not a database URL
                "sqlite" is not a database URL
                "sqlite" is not a database URL
                "oracle" is not a database URL
            "#]],
        );
    }
}
