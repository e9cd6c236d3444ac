//! The script that sets a VPN's instance up, made from a template as old Nova's: `$name` or `${name}`, and `$$` for a dollar.

use anyhow::{Context as _, bail};

use nova_types::ProjectId;

use crate::context::Context;

/// The template where `--boot_script_template` names no other.
const OURS: &str = include_str!("autorun.template");

/// The longest template that is read.
const MOST: u64 = 64 * 1024;

/// Reads the template and puts in what the flags say.
pub(super) fn script(cx: &Context<'_, '_>, project: &ProjectId) -> anyhow::Result<String> {
    let (network, endpoint) = (&cx.config.network, &cx.config.endpoint);
    let cn_prefix = match cn_prefix(&cx.config.identity.user_cert_subject, project) {
        None if network.boot_script_template.is_none() => bail!(
            "the CN of --user_cert_subject does not begin with the project, by which a VPN knows its users; give a \
             --boot_script_template of your own"
        ),
        prefix => prefix.unwrap_or_default(),
    };
    let values = [
        ("cc_dmz", endpoint.ec2_dmz_host.clone()),
        ("cc_port", endpoint.ec2_port.to_string()),
        ("dmz_net", network.dmz_net.map_or_else(String::new, |net| net.to_string())),
        ("dmz_mask", network.dmz_mask.to_string()),
        ("cn_prefix", cn_prefix),
        ("num_vpn", network.cnt_vpn_clients.to_string()),
    ];
    let Some(path) = &network.boot_script_template else { return fill(OURS, &values) };
    let reading = || format!("reading the --boot_script_template {}", path.display());
    if std::fs::metadata(path).with_context(reading)?.len() > MOST {
        bail!("the --boot_script_template {} is longer than {MOST} bytes", path.display());
    }
    let template = std::fs::read_to_string(path).with_context(reading)?;
    fill(&template, &values).with_context(|| format!("the --boot_script_template {} is no template", path.display()))
}

/// How the CN of a certificate of a project's user begins. One authority signs those of all projects.
fn cn_prefix(user_subject: &str, project: &ProjectId) -> Option<String> {
    let (before, cn) = user_subject.split_once("/CN=")?;
    let (start, rest) = cn.split_once("%s")?;
    let (end, _) = rest.split_once("%s")?;
    let tells = !before.contains("%s") && !end.is_empty() && !start.contains('/') && !end.contains('/');
    tells.then(|| format!("{start}{project}{end}"))
}

fn fill(template: &str, values: &[(&str, String)]) -> anyhow::Result<String> {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let (name, after) = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}').context("a ${ has no }")?,
            None => {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                after.split_at(end)
            }
        };
        let Some((_, value)) = values.iter().find(|(known, _)| *known == name) else {
            let names: Vec<&str> = values.iter().map(|(known, _)| *known).collect();
            bail!("there is no ${name}; there are {}, and $$ for a dollar sign", names.join(", "));
        };
        out.push_str(value);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::{OURS, cn_prefix, fill};

    #[test]
    fn a_template_is_filled_as_old_nova_did() {
        let values = [("cc_dmz", "10.0.0.1".to_owned()), ("num_vpn", "5".to_owned())];
        assert_eq!(fill("$$1 $cc_dmz:${num_vpn}0 $num_vpn", &values).unwrap(), "$1 10.0.0.1:50 5");
        for (bad, line) in [
            ("$1", "there is no $1; there are cc_dmz, num_vpn, and $$ for a dollar sign"),
            ("$cc_dm", "there is no $cc_dm; there are cc_dmz, num_vpn, and $$ for a dollar sign"),
            ("${cc_dmz", "a ${ has no }"),
        ] {
            assert_eq!(fill(bad, &values).unwrap_err().to_string(), line, "{bad}");
        }
    }

    #[test]
    fn users_of_a_project_are_known_by_their_certificates() {
        let moon = "moon".parse().unwrap();
        for (subject, prefix) in [
            ("/C=US/OU=NovaDev/CN=%s-%s-%s", Some("moon-")),
            ("/C=US/CN=at.%s.%s/O=x", Some("at.moon.")),
            ("/C=US/CN=%s", None),
            ("/C=US/CN=%s%s", None),
            ("/O=%s/CN=%s-%s", None),
            ("/CN=all/OU=%s-%s", None),
            ("/C=US", None),
        ] {
            assert_eq!(cn_prefix(subject, &moon).as_deref(), prefix, "{subject}");
        }
    }

    /// The shell that is to run it judges it.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test asks the shell, which production code never runs")]
    fn our_own_script_is_one() {
        let values =
            ["cc_dmz", "cc_port", "dmz_net", "dmz_mask", "cn_prefix", "num_vpn"].map(|name| (name, "0".to_owned()));
        let filled = fill(OURS, &values).unwrap();
        assert!(filled.contains("range=$(ip -4 route") && !filled.contains("$$"), "{filled}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("autorun.sh");
        std::fs::write(&path, &filled).unwrap();
        let checked = std::process::Command::new("sh").arg("-n").arg(&path).output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
}
