//! The files of the tree as text, and which of their lines are production code.

use std::fs;
use std::path::{Path, PathBuf};

use crate::workspace::root;

/// What stands before a module that never ships.
const TEST_GATES: &[&str] = &[
    "#[cfg(test)]",
    "#[cfg(any(test",
    "#[cfg(feature = \"fake\")]",
    "#[cfg(feature = \"dev\")]",
    "#[cfg(feature = \"contract\")]",
];

/// A text file of the tree.
pub(crate) struct Source {
    /// Relative to the root.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

impl Source {
    /// Whether the file holds only tests, benches or what they share.
    pub(crate) fn is_test(&self) -> bool {
        let top = self.path.components().next().unwrap().as_os_str();
        let named = |part: &str| self.path.components().any(|c| c.as_os_str() == part);
        top == "tests" || top == "benches" || named("tests") || named("tests.rs")
    }

    /// The modules that this file declares for tests alone: each as the path of its file, and of its folder.
    pub(crate) fn test_modules(&self) -> Vec<PathBuf> {
        let here = match self.path.file_name().and_then(|name| name.to_str()) {
            Some("lib.rs" | "main.rs") => self.path.parent().unwrap().to_path_buf(),
            _ => self.path.with_extension(""),
        };
        let lines: Vec<&str> = self.text.lines().map(str::trim).collect();
        let gated = lines.windows(2).filter(|pair| TEST_GATES.iter().any(|gate| pair[0].starts_with(gate)));
        let names = gated.filter_map(|pair| pair[1].strip_suffix(';')?.rsplit_once("mod ").map(|(_, name)| name));
        names.flat_map(|name| [here.join(name), here.join(format!("{name}.rs"))]).collect()
    }

    /// The lines that ship, each with its number from 1: no comment, nothing under `#[cfg(test)]`.
    pub(crate) fn production_lines(&self) -> Vec<(usize, &str)> {
        let mut kept = Vec::new();
        let mut skipping: Option<usize> = None;
        let mut awaiting_item = false;
        for (number, line) in (1..).zip(self.text.lines()) {
            let indent = line.len() - line.trim_start().len();
            let code = line.trim();
            if let Some(outer) = skipping {
                // rustfmt closes an item at the column where it began.
                if indent == outer && code.starts_with(['}', ')']) {
                    skipping = None;
                }
            } else if TEST_GATES.iter().any(|gate| code.starts_with(gate)) {
                awaiting_item = true;
            } else if awaiting_item {
                if !code.starts_with("#[") && !code.starts_with("//") {
                    awaiting_item = false;
                    skipping = (!code.ends_with(';') && !code.ends_with('}')).then_some(indent);
                }
            } else if !code.starts_with("//") {
                kept.push((number, line));
            }
        }
        kept
    }
}

/// Every file of ours whose name ends in one of `endings`, sorted.
pub(crate) fn files(endings: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    for top in ["crates", "tests", "benches", "packaging", "docs", "etc", "migrations"] {
        walk(&root().join(top), &mut found);
    }
    for entry in fs::read_dir(root()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    found
        .into_iter()
        .filter(|path| endings.iter().any(|ending| path.to_str().is_some_and(|p| p.ends_with(ending))))
        .map(|path| Source {
            text: fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
            path: path.strip_prefix(root()).unwrap().to_path_buf(),
        })
        .collect()
}

/// Every shell script of ours, whatever its name.
pub(crate) fn scripts() -> Vec<Source> {
    files(&[""])
        .into_iter()
        .filter(|file| file.text.starts_with("#!") && file.text.lines().next().unwrap().ends_with("sh"))
        .collect()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.starts_with('.') || name == "target" || name == "__pycache__" || name.ends_with(".pyc") {
            continue;
        }
        if path.is_dir() {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn lines_under_cfg_test_are_not_production() {
    let text = "\
use a::b;
#[cfg(test)]
mod tests;
fn ships() {
    // not code
    one();
}
#[cfg(test)]
mod more {
    fn stays_out() {
        x.unwrap();
    }
}
fn ships_too() {}
";
    let source = Source { path: PathBuf::from("x.rs"), text: text.to_owned() };
    let lines: Vec<usize> = source.production_lines().into_iter().map(|(number, _)| number).collect();
    assert_eq!(lines, [1, 4, 6, 7, 14]);
}
