//! Starts RabbitMQ on ports and folders of its own, so that it ends with this process.
#![expect(
    clippy::disallowed_methods,
    reason = "servers for tests live as long as the process, which is not what nova-run is for"
)]
#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Special;

/// How many tests of one process can have a virtual host.
pub(crate) const VIRTUAL_HOSTS: usize = 24;
/// How long a start may take; it is 10 s where nothing else runs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A broker with its folder. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) port: u16,
    program: PathBuf,
    folder: PathBuf,
    /// Of the Erlang nodes' own talk, and of their registry.
    distribution: u16,
    registry_port: u16,
    registry: Child,
    node: Option<Child>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        end(&mut self.registry);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Starts a broker where it is installed, and says so where it is not.
pub(crate) fn offered(name: &str, special: Special<'_>) -> Option<Server> {
    let Some(program) = find() else {
        assert!(std::env::var_os("NOVA_TEST_REQUIRE_ALL").is_none(), "RabbitMQ is not installed");
        println!("skipped: RabbitMQ is not installed");
        return None;
    };
    Some(Server::new(program, name, special).unwrap_or_else(|error| panic!("starting RabbitMQ: {error}")))
}

/// The program itself: the one in `/usr/sbin` insists on its own user and folders.
fn find() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/rabbitmq/lib").ok()?;
    versions.flatten().map(|version| version.path().join("sbin/rabbitmq-server")).find(|path| path.exists())
}

impl Server {
    fn new(program: PathBuf, name: &str, special: Special<'_>) -> io::Result<Self> {
        let folder = fresh_folder(name, special.on_disk)?;
        let [port, distribution, registry_port] = free_ports()?;
        configure(&folder, port, special)?;
        // The nodes' registry would otherwise be started by the node, and outlive it.
        let mut registry = owned();
        registry.args(["epmd", "-address", "127.0.0.1", "-port"]).arg(registry_port.to_string());
        let registry = spawn(registry, &folder.join("epmd.log"))?;
        let mut server = Self { port, program, folder, distribution, registry_port, registry, node: None };
        server.start()?;
        Ok(server)
    }

    /// Starts the node and waits until it answers.
    pub(crate) fn start(&mut self) -> io::Result<()> {
        let (at, log) = (|name: &str| self.folder.join(name), self.folder.join("log"));
        let mut node = owned();
        node.arg(&self.program);
        node.env("RABBITMQ_NODENAME", format!("nova{}@localhost", self.port));
        node.env("RABBITMQ_NODE_PORT", self.port.to_string()).env("RABBITMQ_DIST_PORT", self.distribution.to_string());
        node.env("ERL_EPMD_PORT", self.registry_port.to_string()).env("HOME", &self.folder);
        node.env("RABBITMQ_MNESIA_BASE", at("data")).env("RABBITMQ_LOG_BASE", at("logs"));
        node.env("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf")).env("RABBITMQ_PID_FILE", at("pid"));
        node.env("RABBITMQ_ENABLED_PLUGINS_FILE", at("plugins")).env("RABBITMQ_CONF_ENV_FILE", at("none"));
        node.env("RABBITMQ_GENERATED_CONFIG_DIR", at("generated")).env("RABBITMQ_ADVANCED_CONFIG_FILE", at("none"));
        // One process, not a shell that waits for it; and one that sleeps when it has nothing to do.
        node.env("RUNNING_UNDER_SYSTEMD", "1").env_remove("NOTIFY_SOCKET");
        node.env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none");
        let child = self.node.insert(spawn(node, &log)?);
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if child.try_wait()?.is_some() || started.elapsed() > PATIENCE {
                return Err(io::Error::other(format!("no answer: {}", last_lines(&log))));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Sends the node a signal, by name.
    pub(crate) fn signal(&self, name: &str) -> io::Result<()> {
        let Some(node) = &self.node else { return Err(io::ErrorKind::NotFound.into()) };
        let done = Command::new("kill").arg(format!("-{name}")).arg(node.id().to_string()).status()?;
        if done.success() { Ok(()) } else { Err(io::Error::other("kill failed")) }
    }

    /// The node's process.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.node.as_ref().map(Child::id)
    }

    /// Lets the node evaluate `words`, and returns what it said.
    pub(crate) fn evaluate(&self, words: &str) -> io::Result<String> {
        let mut ask = Command::new(self.program.with_file_name("rabbitmqctl"));
        ask.env("HOME", &self.folder).env("ERL_EPMD_PORT", self.registry_port.to_string());
        ask.env("RABBITMQ_CONF_ENV_FILE", self.folder.join("none"));
        ask.args(["-q", "-n", &format!("nova{}@localhost", self.port), "eval", words]);
        let out = ask.stdin(Stdio::null()).output()?;
        if out.status.success() {
            return Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned());
        }
        Err(io::Error::other(String::from_utf8_lossy(&out.stderr).into_owned()))
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut node) = self.node.take() {
            end(&mut node);
        }
    }
}

fn end(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

fn configure(folder: &Path, port: u16, special: Special<'_>) -> io::Result<()> {
    let at = |name: &str| folder.join(name).display().to_string();
    let listener = match special.tls {
        None => format!("listeners.tcp.1 = 127.0.0.1:{port}\n"),
        Some((certificate, key)) => {
            std::fs::write(folder.join("cert.pem"), certificate)?;
            std::fs::write(folder.join("key.pem"), key)?;
            let (certificate, key) = (at("cert.pem"), at("key.pem"));
            format!(
                "listeners.tcp = none\nlisteners.ssl.1 = 127.0.0.1:{port}\nssl_options.certfile = {certificate}\n\
                 ssl_options.keyfile = {key}\nssl_options.cacertfile = {certificate}\nssl_options.verify = verify_none\n"
            )
        }
    };
    let definitions = at("definitions.json");
    let must_be_free = if special.full_disk { "1000000000000000" } else { "10MB" };
    let rest = format!(
        "load_definitions = {definitions}\ndisk_free_limit.absolute = {must_be_free}\nvm_memory_high_watermark.relative = 0.4\n\
         num_acceptors.tcp = 2\nlog.file.level = warning\n"
    );
    std::fs::write(folder.join("rabbitmq.conf"), listener + &rest)?;
    std::fs::write(folder.join("plugins"), "[].\n")?;
    let hosts: Vec<_> = (0..VIRTUAL_HOSTS).map(|n| serde_json::json!({ "name": format!("t{n}") })).collect();
    let may = |n| serde_json::json!({ "user": "nova", "vhost": format!("t{n}"), "configure": ".*", "write": ".*", "read": ".*" });
    let definitions = serde_json::json!({
        "users": [{ "name": "nova", "password": "nova", "tags": "" }],
        "vhosts": hosts,
        "permissions": (0..VIRTUAL_HOSTS).map(may).collect::<Vec<_>>(),
    });
    std::fs::write(folder.join("definitions.json"), definitions.to_string())
}

/// A command that the kernel kills when the thread that started it ends.
fn owned() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig=KILL", "--"]);
    command
}

/// Starts the program from a thread that never ends, so that it lives as long as this process, or until it is killed.
fn spawn(mut program: Command, log: &Path) -> io::Result<Child> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
    program.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("test-server".to_owned()).spawn(move || {
        let _ = tell.send(program.spawn());
        loop {
            std::thread::park();
        }
    })?;
    told.recv().map_err(io::Error::other)?
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// A folder named after this process; those of processes that are gone are removed.
fn fresh_folder(name: &str, on_disk: bool) -> io::Result<PathBuf> {
    // In memory where there is such a folder: a broker syncs often.
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() && !on_disk { memory.to_path_buf() } else { std::env::temp_dir() };
    let base = parent.join("nova-test-brokers");
    std::fs::create_dir_all(&base)?;
    for old in std::fs::read_dir(&base)?.flatten() {
        let name = old.file_name();
        let pid = name.to_str().and_then(|name| name.rsplit('-').next()).and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(old.path());
        }
    }
    let folder = base.join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder)?;
    Ok(folder)
}

/// Ports that were free a moment ago, all different.
fn free_ports() -> io::Result<[u16; 3]> {
    let held = [listener()?, listener()?, listener()?];
    let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
    Ok([port(&held[0])?, port(&held[1])?, port(&held[2])?])
}

fn listener() -> io::Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", 0))
}
