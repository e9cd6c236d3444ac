//! Every flag that any Nova program has or had, and how a written name finds its flag.

use std::collections::BTreeMap;

use crate::groups;
use crate::value::Kind;

/// One flag: what the help says of it and what it is when nobody sets it.
#[derive(Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    /// Other names of the same flag.
    pub(crate) aliases: &'static [&'static str],
    pub(crate) kind: Kind,
    /// As text; `$name` is replaced in it.
    pub(crate) default: &'static str,
    pub(crate) help: &'static str,
    pub(crate) heading: &'static str,
}

/// Switches of the first Nova's releases that say nothing to this one: they are accepted without a word.
#[rustfmt::skip]
const FORMER_SWITCHES: &[&str] = &[
    "allow_admin_api", "auth_debug", "daemon", "fake_call", "fake_rabbit", "fake_storage", "fake_tests",
    "flat_injected", "ldap_user_modify_only", "publish_errors", "redirect_stdout", "start_guests_on_host_boot",
    "stub_network", "update_dhcp_on_disassociate", "use_intermediate_ca", "use_local_volumes",
    "use_nova_chains", "use_s3", "use_syslog", "vnc_enabled", "enable_zone_routing", "rotate_log",
];

/// The same for flags with a value.
#[rustfmt::skip]
const FORMER_VALUES: &[&str] = &[
    "ajax_console_idle_timeout", "ajax_console_proxy_port", "ajax_console_proxy_topic", "ajax_console_proxy_url",
    "ajaxterm_portrange", "aoe_eth_dev", "api_paste_config", "api_port", "auth_driver", "auth_token_ttl",
    "aws_access_key_id", "aws_secret_access_key", "blades_per_shelf", "block_size",
    "bridge_dev", "cloudpipe_start_port", "compute_driver", "compute_manager", "compute_topic", "console_host",
    "console_manager", "console_topic", "credentials_template", "crl_file", "db_backend", "db_driver",
    "default_image", "default_kernel", "default_log_levels", "default_project", "default_ramdisk",
    "dnsmasq_interface", "firewall_driver", "gid", "glance_host", "glance_port", "glance_teller_address",
    "glance_teller_port", "glance_parallax_address", "glance_parallax_port", "image_decryption_dir",
    "image_service", "injected_network_template", "input_chain", "instance_name_template", "iscsi_ip_prefix",
    "iscsi_num_targets", "iscsi_target_prefix", "ldap_cloudadmin", "ldap_developer", "ldap_itsec",
    "ldap_netadmin", "ldap_password", "ldap_project_subtree", "ldap_schema_version", "ldap_sysadmin", "ldap_url",
    "ldap_user_dn", "ldap_user_id_attribute", "ldap_user_name_attribute", "ldap_user_subtree", "ldap_user_unit",
    "libvirt_uml_xml_template", "libvirt_xen_xml_template", "libvirt_xml_template", "live_migration_bandwidth",
    "live_migration_flag", "live_migration_retry_count", "live_migration_uri", "lockout_memcached_servers",
    "logging_context_format_string", "logging_debug_format_suffix", "logging_default_format_string",
    "logging_exception_prefix", "max_gigabytes", "max_nbd_devices", "max_networks", "network_driver",
    "network_host", "network_topic", "num_iscsi_scan_tries", "num_shell_tries", "num_shelves", "osapi_host",
    "osapi_listen", "osapi_listen_port", "osapi_path", "osapi_port", "osapi_scheme", "password_length", "pidfile",
    "process_pool_size", "qemu_img", "quota_max_injected_file_content_bytes", "quota_max_injected_file_path_bytes",
    "quota_max_injected_files", "quota_metadata_items", "rbd_pool", "redis_db", "redis_host", "redis_port",
    "rescue_image_id", "rescue_kernel_id", "rescue_ramdisk_id", "rescue_timeout", "role_project_subtree",
    "rpc_thread_pool_size", "scheduler_manager",
    "scheduler_topic", "sqlite_db", "storage_availability_zone", "timeout_nbd", "uid", "vnc_token_ttl",
    "vncproxy_host", "vncproxy_port", "vncproxy_topic", "vncproxy_url", "vncproxy_wwwroot", "vncserver_host",
    "volume_driver", "volume_group", "volume_manager", "volume_name_template", "volume_topic",
    "vpn_client_template", "working_directory", "zone_capabilities", "zone_db_check_interval",
    "zone_failures_to_offline", "zone_name",
];

/// A written name, understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// A flag, by its own name; `negated` if written as `noname`.
    Flag { name: &'static str, switch: bool, negated: bool },
    /// No program's flag; perhaps another was meant.
    Nothing { meant: Option<&'static str> },
}

/// All flags there are, by every name they have.
#[derive(Debug)]
pub(crate) struct Known {
    names: BTreeMap<&'static str, (&'static str, Kind)>,
    flags: BTreeMap<&'static str, &'static Flag>,
}

impl Known {
    /// Gathers the flags of all programs.
    pub(crate) fn new() -> Self {
        let mut known = Self { names: BTreeMap::new(), flags: BTreeMap::new() };
        for flag in groups::all().iter().flat_map(|group| group.iter()) {
            known.flags.insert(flag.name, flag);
            for name in flag.aliases.iter().chain([&flag.name]) {
                known.names.insert(name, (flag.name, flag.kind));
            }
        }
        for (list, kind) in [(FORMER_SWITCHES, Kind::Switch), (FORMER_VALUES, Kind::Value("VALUE"))] {
            for name in list {
                known.names.entry(name).or_insert((name, kind));
            }
        }
        known
    }

    /// Every flag's own name and kind.
    pub(crate) fn flags(&self) -> impl Iterator<Item = (&'static str, Kind)> + '_ {
        self.names.iter().filter(|(written, (name, _))| *written == name).map(|(_, flag)| *flag)
    }

    /// The flag of this own name; `None` for former flags.
    pub(crate) fn flag(&self, name: &str) -> Option<&'static Flag> {
        self.flags.get(name).copied()
    }

    /// Whether all values of this flag count, not only the last.
    pub(crate) fn is_many(&self, name: &str) -> bool {
        matches!(self.flag(name), Some(Flag { kind: Kind::Many(_), .. }))
    }

    /// Finds the flag of a written name: as it is, after `no`, or by a beginning that only one flag has.
    pub(crate) fn named(&self, written: &str) -> Named {
        let written = written.replace('-', "_");
        let exact = |name: &str| self.names.get(name).copied();
        if let Some((name, kind)) = exact(&written) {
            return Named::Flag { name, switch: kind == Kind::Switch, negated: false };
        }
        if let Some((name, Kind::Switch)) = written.strip_prefix("no").and_then(exact) {
            return Named::Flag { name, switch: true, negated: true };
        }
        let mut begun = self.names.range(written.as_str()..).take_while(|(name, _)| name.starts_with(&written));
        if let (Some((_, (name, kind))), None, false) = (begun.next(), begun.next(), written.is_empty()) {
            return Named::Flag { name, switch: *kind == Kind::Switch, negated: false };
        }
        let near = self.names.keys().map(|name| (distance(&written, name), *name)).min();
        Named::Nothing { meant: near.filter(|(distance, _)| *distance <= 2).map(|(_, name)| name) }
    }
}

/// How many letters must be put in, taken out or replaced to make one word of the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let replaced = corner + usize::from(a != *b);
            corner = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(corner + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_name_finds_its_flag() {
        let known = Known::new();
        let found = |name, switch, negated| Named::Flag { name, switch, negated };
        for (written, expected) in [
            ("verbose", found("verbose", true, false)),
            ("noverbose", found("verbose", true, true)),
            ("verb", found("verbose", true, false)),
            ("rabbit_h", found("rabbit_host", false, false)),
            ("network-manager", found("network_manager", false, false)),
            ("volume_group", found("volume_group", false, false)),
            ("nofake_rabbit", found("fake_rabbit", true, true)),
            ("quota", Named::Nothing { meant: None }),
            ("s3_hosts", Named::Nothing { meant: Some("s3_host") }),
            ("nobogus", Named::Nothing { meant: None }),
            ("", Named::Nothing { meant: None }),
        ] {
            assert_eq!(known.named(written), expected, "{written}");
        }
    }

    #[test]
    fn no_former_flag_is_also_a_present_one() {
        let known = Known::new();
        let doubled: Vec<_> =
            FORMER_SWITCHES.iter().chain(FORMER_VALUES).filter(|name| known.flag(name).is_some()).collect();
        assert_eq!(doubled, Vec::<&&str>::new());
    }
}
