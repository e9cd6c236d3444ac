"""MariaDB, PostgreSQL and RabbitMQ as children of the tests: on ports of their own, in memory, and easily killed."""

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import psycopg
import pymysql

from wait import eventually

# The databases that five daemons may share.
ENGINES = ["mariadb", "postgresql"]
NOBODY = 65534
# How many installations can share one broker: each has a virtual host, which the broker makes when it first starts.
VIRTUAL_HOSTS = 32


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listens(address, port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, port)) == 0


class Server:
    """A server that keeps its data in a folder, so that it can be killed and started again. It listens on all addresses of its host."""

    name = None
    ready_within = 60

    def __init__(self, folder, log):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True)
        self.log = log
        self.port = free_port()
        self.process = None
        self.install()

    def install(self):
        """Makes what the server needs before its first start."""

    def command(self):
        raise NotImplementedError

    def environment(self):
        return dict(os.environ)

    def begin(self):
        """Starts the server without waiting for it."""
        with open(self.log, "ab") as out:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self.folder, env=self.environment()
            )

    def answers(self):
        assert self.process.poll() is None, f"{self.name} ended with status {self.process.returncode}; see {self.log}"
        return listens("127.0.0.1", self.port)

    def start(self):
        """Starts the server and waits until it answers; returns how many seconds that took."""
        self.begin()
        return self.wait()

    def wait(self):
        return eventually(self.ready_within, f"{self.name} answers", self.answers, every=0.05)[1]

    def kill(self):
        """The power cut: nothing is finished, neither here nor in the server's own children."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in [self.process.pid, *map(int, children)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait(20)
        eventually(20, f"the children of {self.name} are gone", lambda: not any(alive(pid) for pid in children))


def alive(pid):
    """Whether a process runs; one that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def succeed(*command, **more):
    done = subprocess.run(command, capture_output=True, text=True, **more)
    assert done.returncode == 0, f"{command[0]}: status {done.returncode}\n{done.stdout}{done.stderr}"


class MariaDB(Server):
    """Survives `kill -9`: what is committed has left the process. That it is synced says nothing here, in memory."""

    name = "MariaDB"
    scheme = "mysql"

    def install(self):
        words = ["--no-defaults", "--user=root", "--auth-root-authentication-method=normal", "--skip-test-db"]
        # A server that starts clears /tmp of what another's tables are being made in.
        succeed("mariadb-install-db", *words, f"--tmpdir={self.folder}", f"--datadir={self.folder}/data")

    def command(self):
        return [
            "mariadbd", "--no-defaults", "--user=root", f"--datadir={self.folder}/data", f"--socket={self.folder}/s",
            f"--pid-file={self.folder}/pid", f"--port={self.port}", "--skip-name-resolve", f"--tmpdir={self.folder}",
            "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M", "--max-connections=500", "--performance-schema=off",
        ]

    def connect(self, database=None):
        return pymysql.connect(unix_socket=f"{self.folder}/s", user="root", database=database, autocommit=True, connect_timeout=5)

    def url(self, database, address="127.0.0.1"):
        return f"mysql://nova:nova@{address}:{self.port}/{database}"

    def create(self, database):
        with self.connect() as db, db.cursor() as cursor:
            cursor.execute(f"create database {database} character set utf8mb4")
            cursor.execute("create user if not exists nova@'%' identified by 'nova'")
            cursor.execute(f"grant all on {database}.* to nova@'%'")

    def rows(self, database, query):
        with self.connect(database) as db, db.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())


class PostgreSQL(Server):
    """Survives `kill -9` likewise. It refuses to be root."""

    name = "PostgreSQL"
    scheme = "postgresql"

    def install(self):
        os.chown(self.folder, NOBODY, NOBODY)
        words = ["--no-sync", "--auth=trust", "--username=nova", "-E", "UTF8", "--locale=C"]
        succeed(*self.program("initdb"), *words, "-D", f"{self.folder}/data", cwd=self.folder)
        with open(self.folder / "data" / "pg_hba.conf", "a") as rules:
            rules.write("host all all 0.0.0.0/0 trust\n")

    @staticmethod
    def program(name):
        found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
        assert found, f"PostgreSQL's {name} is not installed"
        return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--", found[-1]]

    def command(self):
        words = ["-c", f"unix_socket_directories={self.folder}", "-c", "max_connections=300", "-c", "shared_buffers=64MB"]
        return [*self.program("postgres"), "-D", f"{self.folder}/data", "-h", "0.0.0.0", "-p", str(self.port), *words]

    def connect(self, database="postgres"):
        return psycopg.connect(host=str(self.folder), port=self.port, user="nova", dbname=database, autocommit=True, connect_timeout=5)

    def answers(self):
        if not super().answers():
            return False
        # It listens while it still replays what it had written before it was killed.
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def url(self, database, address="127.0.0.1"):
        return f"postgresql://nova:nova@{address}:{self.port}/{database}"

    def create(self, database):
        with self.connect() as db:
            db.execute(f"create database {database}")

    def rows(self, database, query):
        with self.connect(database) as db:
            return db.execute(query).fetchall()


class RabbitMQ(Server):
    """One broker, with a virtual host for each installation that may use it."""

    name = "RabbitMQ"
    ready_within = 120

    def install(self):
        hosts = [f"nova{n}" for n in range(VIRTUAL_HOSTS)]
        self.unused = iter(hosts)
        all = {"user": "nova", "configure": ".*", "write": ".*", "read": ".*"}
        definitions = {
            "users": [{"name": "nova", "password": "nova", "tags": ""}],
            "vhosts": [{"name": host} for host in hosts],
            "permissions": [{"vhost": host, **all} for host in hosts],
        }
        (self.folder / "definitions.json").write_text(json.dumps(definitions))
        (self.folder / "plugins").write_text("[].\n")
        (self.folder / "rabbitmq.conf").write_text(
            f"load_definitions = {self.folder}/definitions.json\n"
            "log.console = true\nlog.console.level = error\nlog.file = false\n"
            "disk_free_limit.absolute = 1MB\n"
        )
        self.epmd = free_port()
        self.distribution = free_port()

    def environment(self):
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            # The start script then becomes the broker, and is not its parent.
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_NODENAME": f"nova{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "0.0.0.0",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.distribution),
            "ERL_EPMD_PORT": str(self.epmd),
            "RABBITMQ_MNESIA_BASE": f"{self.folder}/data",
            "RABBITMQ_LOG_BASE": f"{self.folder}/log",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{self.folder}/plugins",
            "RABBITMQ_CONFIG_FILE": f"{self.folder}/rabbitmq.conf",
            "RABBITMQ_CONF_ENV_FILE": f"{self.folder}/none",
            "RABBITMQ_PID_FILE": f"{self.folder}/pid",
            # It shares two cores with the daemons: it is not to wait busily.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def command(self):
        found = sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server"))
        assert found, "RabbitMQ is not installed"
        return [found[-1]]

    def virtual_host(self):
        """One that no other installation has."""
        return next(self.unused)

    def flags(self, virtual_host, address="127.0.0.1"):
        return [
            f"--rabbit_host={address}", f"--rabbit_port={self.port}", "--rabbit_userid=nova", "--rabbit_password=nova",
            f"--rabbit_virtual_host={virtual_host}", "--rabbit_retry_interval=2",
        ]
