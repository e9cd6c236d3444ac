//! A crate leans only on lower floors, is named after its folder, and takes the lints of the whole.

use std::collections::BTreeMap;
use std::fs;

use crate::workspace::{packages, root};

#[test]
fn no_crate_depends_on_its_own_floor_or_above() {
    let packages = packages();
    let floor: BTreeMap<&str, u64> = packages
        .iter()
        .map(|p| {
            (p.name.as_str(), p.floor.unwrap_or_else(|| panic!("{} states no floor in [package.metadata]", p.name)))
        })
        .collect();
    let wrong: Vec<String> = packages
        .iter()
        .flat_map(|p| p.dependencies.iter().map(move |d| (p, d)))
        .filter_map(|(p, d)| floor.get(d.as_str()).map(|below| (p, d, *below)))
        .filter(|(p, _, below)| *below >= floor[p.name.as_str()])
        .map(|(p, d, below)| {
            format!("{} (floor {}) may not depend on {d} (floor {below})", p.name, floor[p.name.as_str()])
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_crate_is_named_after_its_folder_which_has_no_prefix() {
    for p in packages() {
        let folder = p.folder.file_name().unwrap().to_str().unwrap();
        assert_eq!(p.name, format!("nova-{folder}"), "in {}", p.folder.display());
    }
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    for p in packages() {
        let manifest = fs::read_to_string(p.folder.join("Cargo.toml")).unwrap();
        let takes =
            manifest.split("[lints]").nth(1).is_some_and(|rest| rest.trim_start().starts_with("workspace = true"));
        assert!(takes, "{} lacks [lints] workspace = true", p.name);
    }
}

#[test]
fn the_lints_the_other_rules_rely_on_are_on() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let on: Vec<&str> = manifest
        .lines()
        .filter(|line| line.contains("\"warn\"") || line.contains("\"deny\""))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    for lint in [
        "unsafe_code",
        "missing_docs",
        "unreachable_pub",
        "unwrap_used",
        "expect_used",
        "print_stdout",
        "dbg_macro",
        "todo",
        "wildcard_imports",
        "too_many_lines",
        "mod_module_files",
        "disallowed_methods",
    ] {
        assert!(on.contains(&lint), "{lint} is not among the lints of the workspace");
    }
    let clippy = fs::read_to_string(root().join(".clippy.toml")).unwrap();
    assert!(clippy.contains("too-many-lines-threshold = 80"), "the limit of a function is 80 lines");
    let run = fs::read_to_string(root().join("tests/run")).unwrap();
    assert!(
        run.lines().any(|line| line.contains("cargo clippy") && line.contains("-D warnings")),
        "tests/run does not run clippy with -D warnings"
    );
}
