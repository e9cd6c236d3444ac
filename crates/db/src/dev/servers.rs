//! Starts one MariaDB and one PostgreSQL for the whole test process, each once.
#![expect(
    clippy::disallowed_methods,
    reason = "servers for tests live as long as the process, which is not what nova-run is for"
)]

use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::dialect::Engine;

/// A running server of our own.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) program: &'static str,
    pub(crate) first_database: &'static str,
    scheme: &'static str,
    user: &'static str,
    pub(crate) port: u16,
    pub(crate) pid: u32,
}

impl Server {
    /// Ends the server as a power cut does.
    pub(crate) fn kill(&self) -> io::Result<()> {
        succeed(Command::new("kill").args(["-KILL", &self.pid.to_string()]))
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("{}://{}@127.0.0.1:{}/{database}", self.scheme, self.user, self.port)
    }
}

pub(crate) fn mariadb() -> Option<&'static Server> {
    static ONE: OnceLock<Option<Server>> = OnceLock::new();
    ONE.get_or_init(|| offered("MariaDB", find_mariadb(), |program| start_mariadb(program, &memory(), "mariadb", &[])))
        .as_ref()
}

/// A server as installations have it: its data are on a disk, where each commit is synced before it is answered.
pub(crate) fn durable(engine: Engine) -> Option<&'static Server> {
    static MARIADB: OnceLock<Option<Server>> = OnceLock::new();
    static POSTGRES: OnceLock<Option<Server>> = OnceLock::new();
    match engine {
        Engine::Sqlite => None,
        Engine::MySql => MARIADB.get_or_init(|| offered("MariaDB", find_mariadb(), durable_mariadb)).as_ref(),
        Engine::Postgres => POSTGRES.get_or_init(|| offered("PostgreSQL", find_postgres(), durable_postgres)).as_ref(),
    }
}

fn durable_mariadb(program: &Path) -> io::Result<Server> {
    // Of what is said twice, the last counts.
    let as_installed = [
        "--innodb-flush-log-at-trx-commit=1",
        "--innodb-log-file-size=96M",
        "--innodb-buffer-pool-size=128M",
        "--innodb-monitor-enable=trx_rw_commits",
    ];
    start_mariadb(program, &std::env::temp_dir(), "mariadb-durable", &as_installed)
}

fn durable_postgres(program: &Path) -> io::Result<Server> {
    let as_installed = ["fsync=on", "synchronous_commit=on", "full_page_writes=on"];
    start_postgres(program, &std::env::temp_dir(), "postgres-durable", None, &as_installed)
}

pub(crate) fn postgres() -> Option<&'static Server> {
    static ONE: OnceLock<Option<Server>> = OnceLock::new();
    ONE.get_or_init(|| {
        offered("PostgreSQL", find_postgres(), |program| start_postgres(program, &memory(), "postgres", None, &[]))
    })
    .as_ref()
}

fn offered(name: &str, program: Option<PathBuf>, start: fn(&Path) -> io::Result<Server>) -> Option<Server> {
    let Some(program) = program else {
        assert!(std::env::var_os("NOVA_TEST_REQUIRE_ALL").is_none(), "{name} is not installed");
        println!("skipped: {name} is not installed");
        return None;
    };
    Some(start(&program).unwrap_or_else(|error| panic!("starting {name}: {error}")))
}

fn find_mariadb() -> Option<PathBuf> {
    find(&["/usr/sbin", "/usr/bin"], "mariadbd")
}

/// A MariaDB of the caller's own: `name` is its folder, `arguments` are added.
pub(crate) fn own_mariadb(name: &str, arguments: &[&str]) -> io::Result<Server> {
    let program = find_mariadb().ok_or_else(|| io::Error::other("MariaDB is not installed"))?;
    start_mariadb(&program, &memory(), name, arguments)
}

/// A PostgreSQL of the caller's own; with `copies`, a standby that follows it.
pub(crate) fn own_postgres(name: &str, copies: Option<&Server>) -> io::Result<Server> {
    let program = find_postgres().ok_or_else(|| io::Error::other("PostgreSQL is not installed"))?;
    start_postgres(&program, &memory(), name, copies, &[])
}

fn find(folders: &[&str], program: &str) -> Option<PathBuf> {
    folders.iter().map(|folder| Path::new(folder).join(program)).find(|path| path.exists())
}

fn find_postgres() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    versions.flatten().map(|version| version.path().join("bin/postgres")).find(|path| path.exists())
}

fn start_mariadb(program: &Path, parent: &Path, name: &str, arguments: &[&str]) -> io::Result<Server> {
    let folder = fresh_folder(parent, name)?;
    let (data, port) = (folder.join("data"), free_port()?);
    let mut install = Command::new("mariadb-install-db");
    install.args(["--no-defaults", "--user=root", "--auth-root-authentication-method=normal", "--skip-test-db"]);
    // A server that starts clears /tmp of what another's tables are being made in.
    let temporary = format!("--tmpdir={}", folder.display());
    succeed(install.arg(&temporary).arg(format!("--datadir={}", data.display())))?;
    let mut serve = owned("KILL", &[]);
    serve.arg(program).args(["--no-defaults", "--user=root", "--bind-address=127.0.0.1", "--skip-name-resolve"]);
    serve.arg(temporary);
    serve.arg(format!("--datadir={}", data.display())).arg(format!("--socket={}", folder.join("s").display()));
    serve.arg(format!("--pid-file={}", folder.join("pid").display())).arg(format!("--port={port}"));
    // Tests do not survive power cuts, so nothing is synced.
    serve.args(["--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=0", "--innodb-log-file-size=8M"]);
    serve.args(["--max-connections=500", "--performance-schema=off"]).args(arguments);
    let pid = serve_until_exit(serve, &folder, port)?;
    Ok(Server { program: "MariaDB", first_database: "mysql", scheme: "mysql", user: "root", port, pid })
}

fn start_postgres(
    program: &Path,
    parent: &Path,
    name: &str,
    copies: Option<&Server>,
    settings: &[&str],
) -> io::Result<Server> {
    let folder = fresh_folder(parent, name)?;
    let (data, port) = (folder.join("data"), free_port()?);
    // PostgreSQL refuses to run as root.
    let nobody: &[&str] = if am_root() { &["--reuid=65534", "--regid=65534", "--clear-groups"] } else { &[] };
    if am_root() {
        std::os::unix::fs::chown(&folder, Some(65534), Some(65534))?;
    }
    let mut install = owned("KILL", nobody);
    match copies {
        None => {
            install.arg(program.with_file_name("initdb")).args(["--no-sync", "--auth=trust", "--username=nova"]);
            install.args(["-E", "UTF8", "--locale=C"]);
        }
        Some(primary) => {
            install.arg(program.with_file_name("pg_basebackup")).args([
                "--no-sync",
                "-R",
                "-X",
                "stream",
                "-c",
                "fast",
            ]);
            install.args(["-h", "127.0.0.1", "-U", "nova", "-p"]).arg(primary.port.to_string());
        }
    }
    succeed(install.arg("-D").arg(&data).current_dir(&folder))?;
    // QUIT, so that it takes its shared memory with it.
    let mut serve = owned("QUIT", nobody);
    serve.arg(program).arg("-D").arg(&data).args(["-F", "-h", "127.0.0.1", "-p"]).arg(port.to_string());
    for setting in ["max_connections=300", "synchronous_commit=off", "full_page_writes=off"].iter().chain(settings) {
        serve.args(["-c", setting]);
    }
    serve.arg("-c").arg(format!("unix_socket_directories={}", folder.display())).current_dir(&folder);
    let pid = serve_until_exit(serve, &folder, port)?;
    Ok(Server { program: "PostgreSQL", first_database: "postgres", scheme: "postgres", user: "nova", port, pid })
}

/// A command that gets `signal` from the kernel when the thread that started it ends.
fn owned(signal: &str, setpriv: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.arg(format!("--pdeathsig={signal}")).args(setpriv).arg("--");
    command
}

/// Starts the server on a thread that never ends, so that the server's life is that of the process.
fn serve_until_exit(mut serve: Command, folder: &Path, port: u16) -> io::Result<u32> {
    let log = std::fs::File::create(folder.join("log"))?;
    serve.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("test-server".to_owned()).spawn(move || {
        let started = serve.spawn();
        let failed = started.is_err();
        let child = started.map(|mut child| {
            let _ = tell.send(Ok(child.id()));
            let _ = child.wait();
        });
        if let (true, Err(error)) = (failed, child) {
            let _ = tell.send(Err(error));
        }
        loop {
            std::thread::park();
        }
    })?;
    let pid = told.recv().map_err(io::Error::other)??;
    let started = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if started.elapsed() > Duration::from_secs(60) {
            return Err(io::Error::other(format!("no answer; see {}", folder.join("log").display())));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(pid)
}

fn succeed(command: &mut Command) -> io::Result<()> {
    let out = command.stdin(Stdio::null()).output()?;
    if out.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{command:?}: {}", String::from_utf8_lossy(&out.stderr))))
}

/// Where files are in memory, if there is such a folder: creating tables is all waiting for disks.
fn memory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() }
}

/// A folder named after this process; those of processes that are gone are removed.
fn fresh_folder(parent: &Path, kind: &str) -> io::Result<PathBuf> {
    let base = parent.join("nova-test-servers");
    std::fs::create_dir_all(&base)?;
    for old in std::fs::read_dir(&base)?.flatten() {
        let name = old.file_name();
        let pid = name.to_str().and_then(|name| name.rsplit('-').next()).and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(old.path());
        }
    }
    let folder = base.join(format!("{kind}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder)?;
    Ok(folder)
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn am_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}
