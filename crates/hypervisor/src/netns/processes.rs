//! The processes of guests, found by their command lines.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use nova_run::{Process, Runner};
use nova_types::InstanceId;

use super::{BOOT, HELPER};
use crate::CloudId;

/// Finds the guests of a cloud that run, in one walk through `/proc`.
pub(crate) fn guests(runner: &dyn Runner, cloud: CloudId) -> io::Result<BTreeMap<InstanceId, Process>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may have ended since the folder was listed.
        let Some(process) = runner.look(pid) else { continue };
        if let Some(id) = whose(cloud, &process.argv) {
            found.insert(id, process);
        }
    }
    Ok(found)
}

/// Tells whose guest has this command line: `[ip netns exec NAMESPACE] HELPER boot NAME UUID CONSOLE`. It begins with
/// `ip` for the moment until that has become the guest's program.
fn whose(cloud: CloudId, argv: &[String]) -> Option<InstanceId> {
    let argv = match argv {
        [ip, netns, exec, _, rest @ ..] if ip == "ip" && netns == "netns" && exec == "exec" => rest,
        argv => argv,
    };
    match argv {
        [program, boot, name, uuid, _]
            if boot == BOOT && Path::new(program).file_name().is_some_and(|name| name == HELPER) =>
        {
            cloud.recognise(name, uuid)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_ours_by_program_name_and_uuid_together() {
        let (cloud, id) = (CloudId::new("a"), InstanceId::new(10));
        let uuid = cloud.domain_uuid(id);
        let line = |text: &str| text.replace("UUID", &uuid).split(' ').map(str::to_owned).collect::<Vec<_>>();
        for text in [
            "/usr/lib/nova/nova-netns-guest boot instance-0000000a UUID /log",
            "ip netns exec nova-UUID /usr/lib/nova/nova-netns-guest boot instance-0000000a UUID /log",
        ] {
            assert_eq!(whose(cloud, &line(text)), Some(id), "{text}");
            assert_eq!(whose(CloudId::new("b"), &line(text)), None, "{text}");
        }
        for text in [
            "grep nova-netns-guest boot instance-0000000a UUID /log",
            "/bin/cat boot instance-0000000a UUID /log",
            "nova-netns-guest boot instance-0000000b UUID /log",
            "nova-netns-guest bound",
            "",
        ] {
            assert_eq!(whose(cloud, &line(text)), None, "{text}");
        }
    }
}
