//! Each outside crate has one home: the bans of `.cargo/deny.toml`, held here too, since cargo-deny takes minutes to build.

use std::fs;

use crate::workspace::{packages, root};

/// Tests and benches stand above all homes.
const TOP_FLOOR: u64 = 6;

struct Ban {
    name: String,
    wrappers: Vec<String>,
    reason: String,
}

#[test]
fn an_outside_crate_is_used_only_in_its_home() {
    let packages = packages();
    let mut wrong = Vec::new();
    for ban in bans() {
        for p in packages.iter().filter(|p| p.floor < Some(TOP_FLOOR)) {
            if p.dependencies.contains(&ban.name) && !ban.wrappers.contains(&p.name) {
                wrong.push(format!("{} may not depend on {}: {}", p.name, ban.name, ban.reason));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_home_that_is_named_exists() {
    let names: Vec<String> = packages().into_iter().map(|p| p.name).collect();
    for ban in bans() {
        let ours = ban.wrappers.iter().filter(|wrapper| wrapper.starts_with("nova-"));
        for wrapper in ours {
            assert!(names.contains(wrapper), "{} is the home of {}, but there is no such crate", wrapper, ban.name);
        }
    }
}

fn bans() -> Vec<Ban> {
    let text = fs::read_to_string(root().join(".cargo/deny.toml")).unwrap();
    let bans: Vec<Ban> = text.lines().filter(|line| line.contains("wrappers = [")).map(ban).collect();
    assert!(bans.len() > 10, "the bans of .cargo/deny.toml were not understood: one entry a line, please");
    bans
}

fn ban(line: &str) -> Ban {
    let after = |key: &str| line.split_once(key).unwrap_or_else(|| panic!("{key} is missing in: {line}")).1;
    let quoted = |text: &str| text.split('"').nth(1).unwrap_or_else(|| panic!("no quotes in: {line}")).to_owned();
    let wrappers = after("wrappers = [").split_once(']').unwrap().0;
    Ban {
        name: quoted(after("name =")),
        wrappers: wrappers.split('"').skip(1).step_by(2).map(str::to_owned).collect(),
        reason: quoted(after("reason =")),
    }
}
