//! The workspace as cargo sees it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// One of our packages.
pub(crate) struct Package {
    pub(crate) name: String,
    /// The folder that holds its `Cargo.toml`.
    pub(crate) folder: PathBuf,
    /// What `[package.metadata]` states.
    pub(crate) floor: Option<u64>,
    /// What it needs to be built, not what its tests need besides.
    pub(crate) dependencies: Vec<String>,
}

/// The folder of the whole.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Every member of the workspace.
pub(crate) fn packages() -> Vec<Package> {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(out.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&out.stderr));
    let metadata: Value = serde_json::from_slice(&out.stdout).unwrap();
    metadata["packages"].as_array().unwrap().iter().map(package).collect()
}

fn package(of: &Value) -> Package {
    let manifest = Path::new(of["manifest_path"].as_str().unwrap());
    Package {
        name: of["name"].as_str().unwrap().to_owned(),
        folder: manifest.parent().unwrap().to_path_buf(),
        floor: of["metadata"]["floor"].as_u64(),
        dependencies: of["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|dependency| dependency["kind"] != "dev")
            .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
            .collect(),
    }
}
