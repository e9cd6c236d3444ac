//! The metadata of one instance as a tree of names, and how a path walks it (nova-api §6).

use std::collections::BTreeMap;

use nova_types::image::Image;
use nova_types::instance::InstanceView;

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// A value.
    Leaf(Vec<u8>),
    /// Names below.
    Folder(BTreeMap<String, Self>),
    /// Names below, listed by their parent as `key=name`: public keys are.
    Named(String, BTreeMap<String, Self>),
}

/// What the tree is made from beside the instance itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    /// The image it was launched from, if it is still known.
    pub(super) image: Option<Image>,
    /// The other instances of its project, for `mpi/`; left empty for paths that do not ask.
    pub(super) project: Vec<InstanceView>,
}

impl Node {
    fn text(text: impl Into<String>) -> Self {
        Self::Leaf(text.into().into_bytes())
    }

    fn folder<const N: usize>(entries: [(&str, Self); N]) -> Self {
        Self::Folder(entries.into_iter().map(|(name, node)| (name.to_owned(), node)).collect())
    }

    const fn below(&self) -> Option<&BTreeMap<String, Self>> {
        match self {
            Self::Leaf(_) => None,
            Self::Folder(below) | Self::Named(_, below) => Some(below),
        }
    }

    /// Walks `path`, whose empty segments do not count; `None` where it leads nowhere, below a value among others.
    pub(super) fn walk(&self, path: &str) -> Option<&Self> {
        path.split('/').filter(|name| !name.is_empty()).try_fold(self, |node, name| node.below()?.get(name))
    }

    /// Returns the bytes of the answer: a value as it is, a folder as one name per line.
    pub(super) fn render(&self) -> Vec<u8> {
        match self {
            Self::Leaf(value) => value.clone(),
            Self::Folder(below) | Self::Named(_, below) => {
                let line = |(name, node): (&String, &Self)| match node {
                    Self::Leaf(_) => name.clone(),
                    Self::Folder(_) => format!("{name}/"),
                    Self::Named(shown, _) => format!("{name}={shown}"),
                };
                below.iter().map(line).collect::<Vec<_>>().join("\n").into_bytes()
            }
        }
    }
}

/// Lays out everything below a version's prefix: `meta-data`, `user-data`, `dynamic`.
pub(super) fn of_instance(view: &InstanceView, around: &Surroundings) -> Node {
    Node::folder([
        ("meta-data", meta_data(view, around)),
        ("user-data", Node::Leaf(view.instance.user_data.clone().unwrap_or_default())),
        ("dynamic", Node::folder([("instance-identity", identity(view, around))])),
    ])
}

fn meta_data(view: &InstanceView, around: &Surroundings) -> Node {
    let instance = &view.instance;
    let address = |ip: Option<std::net::Ipv4Addr>| Node::text(ip.map(|ip| ip.to_string()).unwrap_or_default());
    let id = |id: Option<nova_types::ImageId>| Node::text(id.map(|id| id.to_string()).unwrap_or_default());
    let groups: Vec<&str> = view.groups.iter().map(|(_, name)| name.as_str()).collect();
    let location = around.image.as_ref().map(|image| image.location.clone()).unwrap_or_default();
    // As DescribeInstances has it in `dnsName`.
    let public = view.floating_ip.map(|address| address.to_string());
    let mut folder = Node::folder([
        ("ami-id", Node::text(instance.image.to_string())),
        ("ami-launch-index", Node::text(instance.launch_index.to_string())),
        ("ami-manifest-path", Node::text(location)),
        ("block-device-mapping", block_devices()),
        ("hostname", Node::text(&instance.hostname)),
        ("instance-action", Node::text("none")),
        ("instance-id", Node::text(instance.id.to_string())),
        ("instance-type", Node::text(&instance.flavor)),
        ("kernel-id", id(instance.kernel)),
        ("local-hostname", Node::text(&instance.hostname)),
        ("local-ipv4", address(view.fixed_ip.map(|(ip, _)| ip))),
        ("mac", Node::text(instance.mac.to_string())),
        ("mpi", mpi(&around.project)),
        ("placement", Node::folder([("availability-zone", Node::text(zone(view)))])),
        ("public-hostname", Node::text(public.unwrap_or_else(|| instance.hostname.clone()))),
        ("public-ipv4", address(view.floating_ip)),
        ("ramdisk-id", id(instance.ramdisk)),
        ("reservation-id", Node::text(instance.reservation.as_str())),
        ("security-groups", Node::text(groups.join("\n"))),
    ]);
    if let (Node::Folder(entries), Some(address)) = (&mut folder, view.address6) {
        entries.insert("ipv6".to_owned(), Node::text(address.to_string()));
    }
    if let (Node::Folder(entries), Some((name, line))) = (&mut folder, &instance.key) {
        let key = BTreeMap::from([("openssh-key".to_owned(), Node::text(line.trim_end()))]);
        let keys = Node::folder([("0", Node::Named(name.to_string(), key))]);
        entries.insert("public-keys".to_owned(), keys);
    }
    folder
}

fn zone(view: &InstanceView) -> String {
    view.host_zone.clone().unwrap_or_else(|| "unknown zone".to_owned())
}

/// The constants of old Nova, which the images of its time look for.
fn block_devices() -> Node {
    Node::folder([
        ("ami", Node::text("sda1")),
        ("ephemeral0", Node::text("sda2")),
        ("root", Node::text("/dev/sda1")),
        ("swap", Node::text("sda3")),
    ])
}

/// For each key pair, the addresses that share it and their processors: what `mpirun` reads as its host file.
fn mpi(project: &[InstanceView]) -> Node {
    let mut hosts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for view in project {
        if let (Some((key, _)), Some((ip, _))) = (&view.instance.key, view.fixed_ip) {
            hosts.entry(key.to_string()).or_default().push(format!("{ip} slots={}", view.instance.vcpus));
        }
    }
    // A key's name may have a slash; such a one cannot be reached, but it cannot mislead either.
    Node::Folder(hosts.into_iter().map(|(key, lines)| (key, Node::text(lines.join("\n")))).collect())
}

fn identity(view: &InstanceView, around: &Surroundings) -> Node {
    let instance = &view.instance;
    let document = serde_json::json!({
        "accountId": instance.project.as_str(),
        "architecture": around.image.as_ref().map_or("x86_64", |image| image.architecture.as_str()),
        "availabilityZone": zone(view),
        "imageId": instance.image.to_string(),
        "instanceId": instance.id.to_string(),
        "instanceType": instance.flavor,
        "kernelId": instance.kernel.map(|id| id.to_string()),
        "pendingTime": nova_aws::Timestamp(instance.created_at).to_string(),
        "privateIp": view.fixed_ip.map(|(ip, _)| ip.to_string()),
        "ramdiskId": instance.ramdisk.map(|id| id.to_string()),
        "region": "nova",
        "version": "2017-09-30",
    });
    Node::folder([("document", Node::text(format!("{document:#}")))])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use nova_types::state::{State, VmState};
    use time::OffsetDateTime;

    use super::*;

    fn view() -> InstanceView {
        InstanceView {
            instance: nova_types::instance::Instance {
                id: "i-0000000a".parse().unwrap(),
                reservation: "r-0a1b2c3d".parse().unwrap(),
                launch_index: 1,
                user: "joe".parse().unwrap(),
                project: "web".parse().unwrap(),
                state: State::new(VmState::Running, None),
                reason: None,
                epoch: 1,
                image: "ami-00000003".parse().unwrap(),
                kernel: Some("aki-00000001".parse().unwrap()),
                ramdisk: None,
                flavor: "m1.tiny".into(),
                memory_mb: 512,
                vcpus: 1,
                local_gb: 0,
                key: Some(("my key".parse().unwrap(), "ssh-rsa AAAA joe\n".into())),
                user_data: Some(vec![0, 255, b'\n']),
                availability_zone: None,
                host: Some("h1".parse().unwrap()),
                mac: "02:16:3e:00:00:01".parse().unwrap(),
                hostname: "i-0000000a".into(),
                display_name: None,
                display_description: None,
                client_token: None,
                created_at: OffsetDateTime::UNIX_EPOCH,
                launched_at: None,
                terminated_at: None,
            },
            fixed_ip: Some(("10.0.0.5".parse().unwrap(), nova_types::NetworkId::new(1))),
            address6: None,
            floating_ip: None,
            groups: vec![
                (nova_types::SecurityGroupId::new(1), "default".parse().unwrap()),
                (nova_types::SecurityGroupId::new(2), "web".parse().unwrap()),
            ],
            host_zone: Some("nova".into()),
        }
    }

    fn get(path: &str) -> Option<String> {
        let around = Surroundings { image: None, project: vec![view()] };
        let tree = of_instance(&view(), &around);
        tree.walk(path).map(|node| String::from_utf8_lossy(&node.render()).into_owned())
    }

    #[test]
    fn a_folder_lists_its_names_and_a_slash_at_the_end_changes_nothing() {
        expect![[r"
            dynamic/
            meta-data/
            user-data"]]
        .assert_eq(&get("").unwrap());
        expect![[r"
            ami-id
            ami-launch-index
            ami-manifest-path
            block-device-mapping/
            hostname
            instance-action
            instance-id
            instance-type
            kernel-id
            local-hostname
            local-ipv4
            mac
            mpi/
            placement/
            public-hostname
            public-ipv4
            public-keys/
            ramdisk-id
            reservation-id
            security-groups"]]
        .assert_eq(&get("meta-data").unwrap());
        assert_eq!(get("meta-data/"), get("//meta-data"));
    }

    #[test]
    fn values_are_where_clients_of_2010_look() {
        for (path, wanted) in [
            ("meta-data/instance-id", "i-0000000a"),
            ("meta-data/local-ipv4", "10.0.0.5"),
            ("meta-data/public-ipv4", ""),
            ("meta-data/public-keys", "0=my key"),
            ("meta-data/public-keys/0", "openssh-key"),
            ("meta-data/public-keys/0/openssh-key", "ssh-rsa AAAA joe"),
            ("meta-data/placement/availability-zone", "nova"),
            ("meta-data/block-device-mapping/root", "/dev/sda1"),
            ("meta-data/kernel-id", "aki-00000001"),
            ("meta-data/security-groups", "default\nweb"),
            ("meta-data/mpi/my key", "10.0.0.5 slots=1"),
        ] {
            assert_eq!(get(path).as_deref(), Some(wanted), "{path}");
        }
    }

    #[test]
    fn the_public_address_and_name_follow_the_floating_address() {
        let mut view = view();
        for (floating, address, name) in [(None, "", "i-0000000a"), (Some("192.0.2.7"), "192.0.2.7", "192.0.2.7")] {
            view.floating_ip = floating.map(|text| text.parse().unwrap());
            let tree = of_instance(&view, &Surroundings::default());
            let get = |path| String::from_utf8(tree.walk(path).unwrap().render()).unwrap();
            assert_eq!((get("meta-data/public-ipv4"), get("meta-data/public-hostname")), (address.into(), name.into()));
            assert_eq!(get("meta-data/local-hostname"), "i-0000000a");
        }
    }

    #[test]
    fn a_path_that_leads_nowhere_is_absent_even_below_a_value() {
        for path in ["meta-data/nope", "meta-data/instance-id/foo", "nope", "meta-data/public-keys/1"] {
            assert_eq!(get(path), None, "{path}");
        }
    }

    #[test]
    fn user_data_is_the_bytes_that_were_given() {
        let tree = of_instance(&view(), &Surroundings::default());
        assert_eq!(tree.walk("user-data").map(Node::render), Some(vec![0, 255, b'\n']));
    }

    #[test]
    fn an_instance_without_a_key_has_no_public_keys() {
        let mut view = view();
        view.instance.key = None;
        assert!(of_instance(&view, &Surroundings::default()).walk("meta-data/public-keys").is_none());
    }
}
