//! Every file says what it is for. (That every public item does is rustc's `missing_docs`, which `tests/run` makes an error.)

use crate::source::{files, scripts};

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
