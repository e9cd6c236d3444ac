//! Flags of every daemon: itself, the database, the message broker.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use nova_types::HostName;

use super::flags;
use crate::{Brokers, DatabaseUrl, Password, QuorumQueues};

flags! {
    "General"
    /// Who and where a daemon is, and how it reports.
    CommonFlags {
        /// Accepted for the guide's sake: daemons stay in the foreground and leave the rest to init.
        daemonize: bool = "false",
        /// Folder of everything that must survive a restart [default: /var/lib/nova, or below ~/.local/share].
        state_path: PathBuf = "",
        /// Folder of lock files.
        lock_path: PathBuf = "$state_path/lock",
        /// Name of this host among the others [default: its host name].
        host: HostName = "",
        /// Address of this host [default: the address it would speak to the world from].
        my_ip: IpAddr = "",
        /// Give guests IPv6 beside IPv4; the same on all hosts.
        use_ipv6: bool = "false",
        /// Log more.
        verbose: bool = "false",
        /// Log to <logdir>/<binary>.log instead of stderr.
        logdir: Option<PathBuf> = "",
        /// Log to this file.
        logfile: Option<PathBuf> = "",
        /// Availability zone of this host.
        node_availability_zone: String = "nova",
        /// How often a daemon reports that it lives.
        report_interval: Duration = "10",
        /// After how long a silence a daemon counts as down.
        service_down_time: Duration = "60",
        /// How often rare periodic work is done.
        periodic_interval: Duration = "60",
        /// How often a daemon looks for work that no message told of.
        tick_interval: Duration = "1",
        /// How long a daemon may take to finish what it is doing when told to stop.
        drain_timeout: Duration = "10",
        /// Whether new hosts take part at once, or wait to be enabled.
        enable_new_services: bool = "true",
        /// Port on 127.0.0.1 for /healthz and /metrics; 0 for none.
        status_port: u16 = "0",
    }
}

flags! {
    "Database"
    /// Where the rows are.
    DatabaseFlags {
        /// The database, as SQLAlchemy writes it: sqlite:///FILE, mysql://USER:PASSWORD@HOST[,HOST…]/NAME, postgresql://….
        sql_connection: DatabaseUrl = "sqlite:///$state_path/nova.sqlite",
        /// A replica of it, which answers Describe calls; as often as there are replicas.
        sql_read_connection: Vec<DatabaseUrl> = "",
        /// How far a replica may be behind for that.
        sql_max_replica_lag: Duration = "5",
        /// How long an idle connection is kept.
        sql_idle_timeout: Duration = "3600",
        /// How often to try to reach the database at the start.
        sql_max_retries: u32 = "12",
        /// How long to wait between these tries.
        sql_retry_interval: Duration = "10",
        /// How many connections one daemon may have.
        sql_pool_size: u32 = "10",
    }
}

flags! {
    "Message broker"
    /// Where messages go; nova-combined needs no broker.
    BusFlags {
        /// Hosts of RabbitMQ, with commas between: the first that answers is used. Each may carry its own :PORT.
        rabbit_host: Brokers = "localhost",
        /// Port of RabbitMQ, where a host does not say its own.
        rabbit_port: u16 = "5672",
        /// Whether RabbitMQ is spoken to over TLS, mostly on port 5671; its certificate must name the host.
        rabbit_use_ssl: bool = "false",
        /// Certificates, as PEM, that RabbitMQ's own must be signed by; no others are trusted.
        rabbit_ca_file: PathBuf = "/etc/ssl/certs/ca-certificates.crt",
        /// User at RabbitMQ.
        rabbit_userid: String = "guest",
        /// Password of that user.
        rabbit_password: Password = "guest",
        /// Virtual host at RabbitMQ.
        rabbit_virtual_host: String = "/",
        /// AMQP's heartbeat: how long a silent connection to RabbitMQ is believed in, in whole seconds.
        rabbit_keepalive: Duration = "10",
        /// Whether queues are kept by several brokers at once: yes, no, or auto for yes where --rabbit_host names several.
        rabbit_quorum_queues: QuorumQueues = "auto",
        /// The longest wait between tries to reach RabbitMQ; the first ones follow sooner.
        rabbit_retry_interval: Duration = "10",
        /// Kept for old files: every daemon tries for ever.
        rabbit_max_retries: u32 = "12",
        /// In builds for tests: each message comes twice and out of order, by the dice of this seed; 0 for not.
        bus_faults: u64 = "0",
        /// Exchange of all messages.
        control_exchange: String = "nova",
    }
}
