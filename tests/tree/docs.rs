//! Every file says what it is for, and so does every public item. (rustc's `missing_docs` holds the latter, too, but only for
//! what can be reached from outside and is compiled.)

use crate::source::{Source, files, scripts};

#[test]
fn every_public_item_says_what_it_is() {
    let mute: Vec<String> = files(&[".rs"]).iter().filter(|file| !file.is_test()).flat_map(undocumented).collect();
    assert!(mute.is_empty(), "these have no comment that begins with `///`:\n{}", mute.join("\n"));
}

/// Items and fields that are `pub` without a comment above them and their attributes.
fn undocumented(file: &Source) -> Vec<String> {
    let lines: Vec<&str> = file.text.lines().map(str::trim).collect();
    let public = file.production_lines().into_iter().filter(|(_, line)| is_item(line.trim()));
    public
        .filter(|(number, _)| !is_documented(&lines[..number - 1]))
        .map(|(number, line)| format!("{}:{number}: {}", file.path.display(), line.trim()))
        .collect()
}

/// Whether the lines above an item end with a comment on it, attributes aside.
fn is_documented(above: &[&str]) -> bool {
    let mut above = above.iter().rev();
    while let Some(line) = above.next() {
        match *line {
            line if line.starts_with("///") || line.starts_with("#[doc") => return true,
            line if line.starts_with("#[") => {}
            // The end of an attribute of several lines.
            line if line.ends_with(")]") => _ = above.by_ref().find(|line| line.starts_with("#[")),
            _ => return false,
        }
    }
    false
}

/// Whether a line begins an item or field that is public. A module says what it is in its own file, a re-export where it comes
/// from, and what a macro makes is left to rustc.
fn is_item(line: &str) -> bool {
    let elsewhere = |rest: &str| rest.starts_with("use ") || (rest.starts_with("mod ") && rest.ends_with(';'));
    line.strip_prefix("pub ").is_some_and(|rest| !line.contains('$') && !elsewhere(rest))
}

#[test]
fn an_item_without_a_comment_is_found() {
    let text = "\
//! A file.
/// Said.
#[derive(
    Debug,
)]
pub struct Said {
    /// Said.
    pub field: u8,
    pub mute: u8,
}
pub use a::b;
pub(crate) fn inside() {}
pub fn mute() {}
";
    let source = Source { path: "x.rs".into(), text: text.to_owned() };
    assert_eq!(undocumented(&source), ["x.rs:9: pub mute: u8,", "x.rs:13: pub fn mute() {}"]);
}

#[test]
fn every_rust_file_begins_by_saying_what_it_is() {
    let mute: Vec<String> = files(&[".rs"])
        .into_iter()
        .filter(|file| !file.text.starts_with("//! "))
        .map(|file| file.path.display().to_string())
        .collect();
    assert!(mute.is_empty(), "these files do not begin with `//! `:\n{}", mute.join("\n"));
}

#[test]
fn every_script_and_python_file_says_what_it_is() {
    for file in scripts() {
        let second = file.text.lines().nth(1).unwrap_or_default();
        assert!(second.starts_with("# "), "{}: the second line does not say what it is", file.path.display());
    }
    for file in files(&[".py"]) {
        assert!(file.text.starts_with("\"\"\""), "{}: does not begin with its docstring", file.path.display());
    }
}

#[test]
fn every_shell_script_is_strict() {
    let strict = |text: &str| text.contains("set -euo pipefail") || text.contains("sourced by");
    let lax: Vec<_> = scripts()
        .into_iter()
        // busybox sh, which runs in the guest, is process 1 or nearly so there: it must go on, whatever fails.
        .filter(|file| !file.path.starts_with("packaging/guest") && file.text.starts_with("#!/usr/bin/env bash"))
        .filter(|file| !strict(&file.text))
        .map(|file| file.path.display().to_string())
        .collect();
    assert!(lax.is_empty(), "no `set -euo pipefail` in {lax:?}");
}
