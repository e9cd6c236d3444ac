//! A map must show what is there: every path in README and docs exists.

use std::path::Path;

use crate::source::{Source, files};
use crate::workspace::root;

/// What makes a word a path of this tree even without a folder before it.
const ENDINGS: &[&str] = &[".rs", ".md", ".toml", ".py", ".sh"];

#[test]
fn every_path_in_readme_and_docs_exists() {
    let mut checked = 0;
    let mut missing = Vec::new();
    for page in files(&[".md"]) {
        let mut in_block = false;
        for (number, line) in (1..).zip(page.text.lines()) {
            let fence = line.trim_start().starts_with("```");
            in_block ^= fence;
            // Of a block of commands, the words before a remark.
            let words = match line.split(" #").next() {
                _ if fence => Vec::new(),
                Some(command) if in_block => command.split_whitespace().collect(),
                _ => backticked(line),
            };
            for path in words.into_iter().filter(|w| is_path(w)).chain(links(line)) {
                checked += 1;
                if !exists(&page, path) {
                    missing.push(format!("{}:{number}: {path}", page.path.display()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "these paths do not exist:\n{}", missing.join("\n"));
    assert!(checked > 0, "no path was found in any page: the check is broken");
}

fn exists(page: &Source, path: &str) -> bool {
    let path = path.trim_end_matches('/');
    let beside = root().join(page.path.parent().unwrap_or(Path::new("")));
    beside.join(path).exists() || root().join(path).exists()
}

/// Whether a word in backticks names a file or folder of the tree, rather than a path of the machine, a URL or a type.
fn is_path(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    if !word.chars().all(plain) || word.starts_with(['/', '-']) || word.starts_with("..") {
        return false;
    }
    let first = word.split('/').next().unwrap_or_default();
    let in_tree = !first.is_empty() && word.contains('/') && root().join(first).exists();
    in_tree || ENDINGS.iter().any(|ending| word.ends_with(ending) && word.len() > ending.len())
}

fn backticked(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// The targets of `[text](target)` that are not URLs, without the part after `#`.
fn links(line: &str) -> Vec<&str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .map(|target| target.split('#').next().unwrap_or_default())
        .filter(|target| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:"))
        .collect()
}

#[test]
fn paths_are_told_from_other_words() {
    for word in ["crates/db", "docs/architecture.md", "README.md", "tests/run"] {
        assert!(is_path(word), "{word}");
    }
    for word in
        ["/etc/nova/nova.conf", "http://x/y", "nova-manage check", "2009-04-04/meta-data", "--flagfile", "a::b", ".rs"]
    {
        assert!(!is_path(word), "{word}");
    }
    assert_eq!(links("see [a](docs/a.md#part) and [b](https://x.y/z)"), ["docs/a.md"]);
}
