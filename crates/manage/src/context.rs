//! What every command has at hand.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nova_config::ManageConfig;
use nova_db::{Db, Options};
use nova_identity::{CaFiles, SecretBox};
use nova_types::Clock;

/// How long a person waits for a database server that is not there.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a command speaks to, and its clock.
pub struct Surface<'a> {
    /// Tells the time for certificates.
    pub clock: &'a dyn Clock,
    /// For what scripts read.
    pub out: &'a mut dyn Write,
    /// For what people read.
    pub note: &'a mut dyn Write,
}

impl std::fmt::Debug for Surface<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surface").field("clock", &self.clock).finish_non_exhaustive()
    }
}

/// A command's surroundings: the flags, an open database, the surface.
pub(crate) struct Context<'a, 'b> {
    pub(crate) config: &'a ManageConfig,
    pub(crate) db: Db,
    pub(crate) surface: &'a mut Surface<'b>,
}

impl<'a, 'b> Context<'a, 'b> {
    /// Opens the database. One that is empty gets its schema, so that the guide's first command works; one that
    /// is of another version is refused, for changing that is an administrator's decision.
    pub(crate) async fn open(config: &'a ManageConfig, surface: &'a mut Surface<'b>) -> anyhow::Result<Self> {
        let mut cx = Self::open_any_version(config, surface).await?;
        let found = cx.version().await?;
        if found == 0 {
            cx.db.migrate().await.context("making the tables")?;
            if let Some(file) = config.database.sql_connection.sqlite_file() {
                // Who reads it sees every project's rows.
                let _ = std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640));
            }
            cx.note(format_args!("Made the tables in {}.", cx.config.database.sql_connection));
        } else if found != nova_db::SCHEMA_VERSION {
            let wanted = nova_db::SCHEMA_VERSION;
            let mend = if found < wanted { "run nova-manage db sync" } else { "install the newer Nova" };
            bail!("the database schema is at version {found}, this program needs {wanted}; {mend}");
        }
        Ok(cx)
    }

    /// Opens the database as it is.
    pub(crate) async fn open_any_version(
        config: &'a ManageConfig,
        surface: &'a mut Surface<'b>,
    ) -> anyhow::Result<Self> {
        let url = &config.database.sql_connection;
        if let Some(file) = url.sqlite_file() {
            check_file(&absolute(&file)?)?;
        }
        let options = Options { max_connections: 2, acquire_timeout: ACQUIRE_TIMEOUT, ..Options::default() };
        let db = Db::open(url.expose(), &options).await.with_context(|| format!("opening {url}"))?;
        if let Some(file) = url.sqlite_file() {
            give_to_owner_of_folder(&file)
                .with_context(|| format!("giving {} to its folder's owner", file.display()))?;
        }
        Ok(Self { config, db, surface })
    }

    /// Asks the tables for their version; also the first question that needs the database to be there.
    pub(crate) async fn version(&self) -> anyhow::Result<i32> {
        let asking = || format!("asking {} for its version", self.config.database.sql_connection);
        self.db.version().await.with_context(asking)
    }

    /// Writes one line that scripts may read.
    pub(crate) fn say(&mut self, line: impl std::fmt::Display) -> io::Result<()> {
        writeln!(self.surface.out, "{line}")
    }

    /// Writes one line for people. Nothing depends on it, so it cannot fail a command.
    pub(crate) fn note(&mut self, line: impl std::fmt::Display) {
        // A closed stderr is no reason to stop halfway.
        let _ = writeln!(self.surface.note, "{line}");
    }

    /// Opens the key that seals users' secrets.
    pub(crate) fn secrets(&self) -> anyhow::Result<SecretBox> {
        Ok(SecretBox::open_or_create(&self.config.identity.secret_key_file)?)
    }

    /// Where the authority's files are.
    pub(crate) fn ca_files(&self) -> CaFiles {
        let flags = &self.config.identity;
        let names = CaFiles::in_folder(&flags.ca_path);
        CaFiles { certificate: flags.ca_file.clone().into(), key: flags.key_file.clone().into(), ..names }
    }
}

/// An argument as old scripts give it: empty text is the same as none.
pub(crate) fn given(argument: Option<&String>) -> Option<&str> {
    argument.map(String::as_str).filter(|text| !text.is_empty())
}

/// Parses a name or an id, and says which argument was wrong.
pub(crate) fn parse<T>(text: &str) -> anyhow::Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    Ok(text.parse::<T>()?)
}

/// A path as it will be after a change of folder.
pub(crate) fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("finding {}", path.display()))
}

/// SQLite's own words for a missing folder or right are hard to read.
fn check_file(file: &Path) -> anyhow::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    if !folder.is_dir() {
        bail!("the folder {} for the database is not there; make it, or give another --state_path", folder.display());
    }
    if file.exists() {
        let opened = std::fs::OpenOptions::new().read(true).write(true).open(file);
        opened.with_context(|| format!("writing to {}; run this as root or as the owner", file.display()))?;
    }
    Ok(())
}

/// Root makes the database file before the daemons' user runs; it must be theirs, or they could not write.
fn give_to_owner_of_folder(file: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let folder = absolute(file).ok().and_then(|f| f.parent().map(Path::to_owned));
    let Some(folder) = folder else { return Ok(()) };
    let (above, own) = (std::fs::metadata(&folder)?, std::fs::metadata(file)?);
    let shared = above.mode() & 0o1000 != 0;
    if own.uid() != 0 || above.uid() == 0 || shared {
        return Ok(());
    }
    for suffix in ["", "-wal", "-shm"] {
        let mut path = file.as_os_str().to_owned();
        path.push(suffix);
        match std::os::unix::fs::lchown(&path, Some(above.uid()), Some(above.gid())) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}
