//! What can go wrong with the database, and the one place where engines' error codes and constraint names get a meaning.

use crate::dialect::Engine;

/// Why a query failed, in terms a caller can act on.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// A unique key of the schema refused the row.
    #[error("{0} exists already")]
    Duplicate(Unique),
    /// The row refers to one that is not there, or is still referred to.
    #[error("a row refers to another that is absent, or is still referred to")]
    Reference(#[source] sqlx::Error),
    /// The row asked for is not there (or belongs to somebody else, which is the same thing).
    #[error("no such {0}")]
    NotFound(&'static str),
    /// A conditional update met a row that has moved on: another owner, state or epoch.
    #[error("the {0} has moved on")]
    Stale(&'static str),
    /// Something still uses the row, so it stays.
    #[error("the {0} is in use")]
    InUse(&'static str),
    /// Every address of the network from its first usable one up is taken.
    #[error("network {network} has {free} free addresses: {wanted} wanted")]
    NoMoreAddresses {
        /// Id of the network.
        network: i32,
        /// How many were asked for.
        wanted: usize,
        /// How many there are.
        free: usize,
    },
    /// A project would have more than its quota.
    #[error("the quota of {} {} is reached", .0.limit, .0.resource.key())]
    OverQuota(OverQuota),
    /// A deadlock, lock time-out or lost snapshot: the whole transaction may be tried again.
    #[error("the transaction lost against another")]
    Conflict(#[source] sqlx::Error),
    /// The server cannot be reached or is going away. Nothing is known about rows.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// The connection broke during commit: the transaction may or may not have happened. Look before acting.
    #[error("the connection broke during commit, the outcome is unknown")]
    InDoubt(#[source] sqlx::Error),
    /// A stored value is not what its column means.
    #[error("column {column} holds {value:?}, which makes no sense there")]
    Corrupt {
        /// Name of the column.
        column: &'static str,
        /// The text found there.
        value: String,
    },
    /// The `sql_connection` text is no database URL that we know.
    #[error("{0:?} is not a database URL")]
    Url(String),
    /// The server has no InnoDB, or it is switched off.
    #[error("the database server has no InnoDB, and no other storage engine will do")]
    NoInnoDb,
    /// A URL for reading is of another kind than the one for writing, or that one needs none.
    #[error("a read connection must be of the same kind as the database it copies: mysql or postgresql")]
    ReadUrl,
    /// A table lives in a storage engine without transactions, on which no promise of ours holds.
    #[error("table {0} is in a storage engine without transactions; convert it to InnoDB")]
    NoTransactions(String),
    /// The schema is older or newer than this program.
    #[error("the database schema is at version {found}, this program needs {wanted}")]
    SchemaVersion {
        /// Version in the database.
        found: i32,
        /// Version of this program.
        wanted: i32,
    },
    /// The database was made by another Nova; its tables lack the constraints we rely on.
    #[error("the database was made by another Nova (version {0}); start with an empty one")]
    Foreign(i32),
    /// A SQL statement of ours is wrong, or the server refused it for a reason that has no variant.
    #[error("the database refused a statement")]
    Sql(#[source] sqlx::Error),
}

/// What a reservation ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverQuota {
    /// What there would be too much of.
    pub resource: nova_types::quota::Resource,
    /// How much the project may have.
    pub limit: u32,
    /// How much it has.
    pub used: u32,
}

macro_rules! uniques {
    ($($(#[doc = $doc:literal])+ $name:ident, $text:literal, $constraint:literal, $columns:literal;)*) => {
        /// The unique keys of the schema, by meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Unique {
            $($(#[doc = $doc])+ $name,)*
            /// A primary key that the caller chose (user id, project id, token hash).
            PrimaryKey,
            /// A key without a name here.
            Other,
        }

        impl std::fmt::Display for Unique {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self {
                    $(Self::$name => $text,)*
                    Self::PrimaryKey => "that id",
                    Self::Other => "that row",
                })
            }
        }

        /// Constraint name (MySQL, PostgreSQL), columns as SQLite lists them, meaning.
        pub(crate) const UNIQUES: &[(&str, &str, Unique)] = &[$(($constraint, $columns, Unique::$name),)*];
    };
}

uniques! {
    /// An address that a network already has.
    FixedAddress,    "that fixed address",        "uq_fixed_ips_address",     "fixed_ips.address";
    /// A public address that is registered already.
    FloatingAddress, "that floating address",     "uq_floating_ips_address",  "floating_ips.address";
    /// Two floating addresses on one fixed address.
    FloatingTarget,  "a floating address there",  "uq_floating_ips_fixed_ip", "floating_ips.fixed_ip_id";
    /// The range of a network.
    NetworkCidr,     "a network of that range",   "uq_networks_cidr",         "networks.cidr";
    /// The IPv6 range of a network.
    NetworkCidrV6,   "a network of that range",   "uq_networks_cidr_v6",      "networks.cidr_v6";
    /// The 802.1Q tag of a network.
    NetworkVlan,     "a network with that VLAN",  "uq_networks_vlan",         "networks.vlan";
    /// The network of a project.
    NetworkProject,  "a network of that project", "uq_networks_project",      "networks.project_id";
    /// The instance that an address belongs to: it may have one.
    FixedHolder,     "an address of that instance", "uq_fixed_ips_instance",  "fixed_ips.instance_id";
    /// The address of a host in a network: it has one.
    FixedHost,       "an address of that host",   "uq_fixed_ips_host",        "fixed_ips.network_id, fixed_ips.host";
    /// The forwarded port of a project's VPN.
    NetworkVpnPort,  "that VPN port",             "uq_networks_vpn",          "networks.vpn_public_address, networks.vpn_public_port";
    /// The MAC address of an instance.
    Mac,             "that MAC address",          "uq_instances_mac",         "instances.mac_address";
    /// A daemon on a host.
    Service,         "that service",              "uq_services_host",         "services.host, services.binary";
    /// What a compute host offers.
    ComputeNode,     "that compute node",         "uq_compute_nodes_host",    "compute_nodes.host";
    /// What was moved away from a host.
    Evacuation,      "that evacuation",           "uq_evacuations_instance",  "evacuations.host, evacuations.instance_id";
    /// A key pair's name within its user.
    KeyPair,         "that key pair",             "uq_key_pairs_name",        "key_pairs.user_id, key_pairs.name";
    /// A security group's name within its project.
    SecurityGroup,   "that security group",       "uq_security_groups_name",  "security_groups.project_id, security_groups.name";
    /// An equal rule of a security group.
    SecurityGroupRule, "that rule",               "uq_security_group_rules",  "security_group_rules.parent_group_id, security_group_rules.signature";
    /// An instance in a group.
    GroupMember,     "that group member",         "uq_group_members",         "security_group_instance_association.security_group_id, security_group_instance_association.instance_id";
    /// A user's EC2 access key.
    AccessKey,       "that access key",           "uq_users_access_key",      "users.access_key";
    /// A certificate's file.
    Certificate,     "that certificate",          "uq_certificates_file",     "certificates.file_name";
    /// The quota row of a project.
    Quota,           "a quota of that project",   "uq_quotas_project",        "quotas.project_id";
    /// The place where an image is stored.
    ImageLocation,   "that image location",       "uq_images_location",       "images.owner_id, images.location";
    /// A client token: the request was accepted before.
    ClientToken,     "that client token",         "uq_client_tokens",         "client_tokens.project_id, client_tokens.token";
    /// A tag's key on one instance.
    InstanceTag,     "that tag",                  "uq_instance_tags",         "instance_tags.instance_id, instance_tags.tag_key";
    /// An AoE shelf and blade.
    ExportDevice,    "that shelf and blade",      "uq_export_devices",        "export_devices.shelf_id, export_devices.blade_id";
    /// An iSCSI target number on a host.
    IscsiTarget,     "that iSCSI target",         "uq_iscsi_targets",         "iscsi_targets.target_num, iscsi_targets.host";
}

impl DbError {
    /// Whether the same transaction may succeed when run again from its start.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Conflict(_) | Self::Unavailable(_))
    }

    /// Whether MySQL does not know what a statement says.
    pub(crate) fn is_syntax(&self) -> bool {
        let Self::Sql(error) = self else { return false };
        let refusal = error.as_database_error();
        let mysql = refusal.and_then(|refusal| refusal.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>());
        mysql.is_some_and(|refusal| refusal.number() == 1064)
    }

    /// Whether a server refused to write because it is a replica, or became one.
    pub(crate) fn means_read_only(error: &sqlx::Error) -> bool {
        let Some(refusal) = error.as_database_error() else { return false };
        let mysql = refusal.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>().map_or(0, |e| e.number());
        matches!(mysql, 1290 | 1792 | 1836) || refusal.code().as_deref() == Some("25006")
    }

    /// Gives an engine's error its meaning.
    pub(crate) fn from_sqlx(engine: Engine, error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        match &error {
            E::Database(refusal) => match verdict(engine, refusal.as_ref()) {
                Verdict::Duplicate(what) => Self::Duplicate(what),
                Verdict::Reference => Self::Reference(error),
                Verdict::Conflict => Self::Conflict(error),
                Verdict::Unavailable => Self::Unavailable(error),
                Verdict::Refused => Self::Sql(error),
            },
            E::Io(_)
            | E::Tls(_)
            | E::Protocol(_)
            | E::PoolTimedOut
            | E::PoolClosed
            | E::WorkerCrashed
            | E::BeginFailed => Self::Unavailable(error),
            E::RowNotFound => Self::NotFound("row"),
            _ => Self::Sql(error),
        }
    }
}

enum Verdict {
    Duplicate(Unique),
    Reference,
    Conflict,
    Unavailable,
    Refused,
}

fn verdict(engine: Engine, refusal: &dyn sqlx::error::DatabaseError) -> Verdict {
    if refusal.is_unique_violation() {
        return Verdict::Duplicate(unique(engine, refusal));
    }
    if refusal.is_foreign_key_violation() {
        return Verdict::Reference;
    }
    match engine {
        Engine::MySql => {
            match refusal.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>().map_or(0, |e| e.number()) {
                1020 | 1205 | 1213 | 3572 => Verdict::Conflict,
                1040 | 1047 | 1053 | 1077 | 1152 | 1158..=1161 | 1203 | 1290 | 1792 | 1836 | 1927 | 2006 | 2013 => {
                    Verdict::Unavailable
                }
                1216 | 1217 | 1451 | 1452 => Verdict::Reference,
                _ => Verdict::Refused,
            }
        }
        Engine::Postgres => match refusal.code().as_deref() {
            Some("40001" | "40P01" | "55P03") => Verdict::Conflict,
            Some("57P01" | "57P02" | "57P03" | "57014" | "53300" | "25006") => Verdict::Unavailable,
            Some(code) if code.starts_with("08") => Verdict::Unavailable,
            _ => Verdict::Refused,
        },
        Engine::Sqlite => match refusal.code().and_then(|code| code.parse::<i32>().ok()).map(|code| code & 0xff) {
            Some(5 | 6) => Verdict::Conflict,
            Some(9 | 10 | 13 | 14) => Verdict::Unavailable,
            _ => Verdict::Refused,
        },
    }
}

fn unique(engine: Engine, refusal: &dyn sqlx::error::DatabaseError) -> Unique {
    let message = refusal.message();
    match engine {
        // "UNIQUE constraint failed: key_pairs.user_id, key_pairs.name, key_pairs.live"
        Engine::Sqlite => {
            if refusal.code().as_deref() == Some("1555") {
                return Unique::PrimaryKey;
            }
            let columns = message.rsplit(": ").next().unwrap_or_default();
            let columns =
                columns.strip_suffix(".live").and_then(|rest| rest.rsplit_once(", ")).map_or(columns, |(c, _)| c);
            by(|(_, of_sqlite, _)| *of_sqlite == columns)
        }
        // "Duplicate entry 'x-1' for key 'uq_key_pairs_name'", with a table before the name on MySQL 8.
        Engine::MySql => {
            let key = message.trim_end_matches('\'').rsplit(['\'', '.']).next().unwrap_or_default();
            if key == "PRIMARY" { Unique::PrimaryKey } else { by(|(name, ..)| *name == key) }
        }
        Engine::Postgres => match refusal.constraint() {
            Some(name) if name.ends_with("_pkey") => Unique::PrimaryKey,
            Some(key) => by(|(name, ..)| *name == key),
            None => Unique::Other,
        },
    }
}

fn by(matches: impl Fn(&(&str, &str, Unique)) -> bool) -> Unique {
    UNIQUES.iter().find(|entry| matches(entry)).map_or(Unique::Other, |(.., what)| *what)
}

#[cfg(test)]
mod tests;
