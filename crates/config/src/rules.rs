//! What a flag's text must be beyond what its type says.

use std::collections::BTreeSet;

use nova_types::flavor::{FLAVORS, Flavor};
use nova_types::net::is_interface_name;

type Rule = fn(&str) -> Result<(), String>;

/// The flags that have a rule of their own.
const RULES: &[(&str, Rule)] = &[
    ("allowed_roles", |text| same_list(text, "cloudadmin,itsec,sysadmin,netadmin,developer")),
    ("default_instance_type", flavor),
    ("ec2_path", path),
    ("ec2_scheme", scheme),
    ("flat_interface", interface_or_none),
    ("flat_network_bridge", interface),
    ("global_roles", |text| same_list(text, "cloudadmin,itsec")),
    ("network_size", at_least_one),
    ("num_networks", at_least_one),
    ("periodic_interval", at_least_one),
    ("public_interface", interface_or_none),
    ("rabbit_keepalive", at_least_one),
    ("rabbit_port", at_least_one),
    ("rabbit_retry_interval", at_least_one),
    ("report_interval", at_least_one),
    ("service_down_time", at_least_one),
    ("sql_pool_size", at_least_one),
    ("superuser_roles", |text| same_list(text, "cloudadmin")),
    ("vlan_interface", interface),
];

/// Says what is wrong with the value of `flag`, which its type has accepted.
///
/// # Errors
/// A sentence for the user.
pub(crate) fn check(flag: &str, text: &str) -> Result<(), String> {
    RULES.iter().filter(|(name, _)| *name == flag).try_for_each(|(_, rule)| rule(text))
}

fn at_least_one(text: &str) -> Result<(), String> {
    expect(text.parse() != Ok(0.0), "must be greater than 0")
}

fn flavor(text: &str) -> Result<(), String> {
    let names = || FLAVORS.map(|flavor| flavor.name).join(", ");
    if Flavor::named(text).is_some() { Ok(()) } else { Err(format!("expected one of {}", names())) }
}

/// What roles mean is not a setting here. Who sets it otherwise must not believe that it was.
fn same_list(text: &str, wanted: &str) -> Result<(), String> {
    let items = |text: &str| text.split(',').map(|item| item.trim().to_owned()).collect::<BTreeSet<_>>();
    if items(text) == items(wanted) { Ok(()) } else { Err(format!("expected {wanted}: the roles are fixed")) }
}

fn path(text: &str) -> Result<(), String> {
    expect(text.is_empty() || text.starts_with('/'), "expected a path that begins with /")
}

fn scheme(text: &str) -> Result<(), String> {
    expect(matches!(text, "http" | "https"), "expected http or https")
}

fn interface(text: &str) -> Result<(), String> {
    expect(is_interface_name(text), "expected the name of an interface: 1 to 15 letters, digits and characters of ._-")
}

fn interface_or_none(text: &str) -> Result<(), String> {
    if text.is_empty() { Ok(()) } else { interface(text) }
}

fn expect(so: bool, wanted: &str) -> Result<(), String> {
    if so { Ok(()) } else { Err(wanted.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::RULES;
    use crate::groups;

    #[test]
    fn every_rule_is_of_a_flag_and_every_default_obeys() {
        for (name, rule) in RULES {
            let all = groups::all();
            let flag = all.iter().copied().flatten().find(|flag| flag.name == *name);
            let flag = flag.unwrap_or_else(|| panic!("there is no flag {name}"));
            assert_eq!(rule(flag.default), Ok(()), "{name}");
        }
    }
}
