//! No file over 500 lines, no function over 80: what cannot be held in the head is split.

use crate::source::{Source, files, scripts};

const FILE: usize = 500;
const FUNCTION: usize = 80;

#[test]
fn no_file_is_longer_than_500_lines() {
    let long: Vec<String> = files(&[".rs", ".py", ".sql"])
        .into_iter()
        .chain(scripts())
        .map(|file| (file.text.lines().count(), file.path))
        .filter(|(lines, _)| *lines > FILE)
        .map(|(lines, path)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn no_function_is_longer_than_80_lines() {
    let mut long = Vec::new();
    for file in files(&[".rs"]) {
        long.extend(functions(&file, rust_function, |line| line.starts_with('}')));
    }
    for file in files(&[".py"]) {
        long.extend(python_functions(&file));
    }
    for file in scripts() {
        long.extend(functions(&file, |line| line.ends_with("() {"), |line| line == "}"));
    }
    long.retain(|(_, lines)| *lines > FUNCTION);
    let long: Vec<String> = long.into_iter().map(|(at, lines)| format!("{at}: {lines} lines")).collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn no_module_is_called_mod_rs() {
    let named: Vec<_> = files(&["/mod.rs"]).into_iter().map(|file| file.path).collect();
    assert!(named.is_empty(), "foo.rs goes beside foo/: {named:?}");
}

/// Where each function begins and how many lines of it are code. Both rustfmt and our shell style close a function at the
/// column where it began.
fn functions(file: &Source, opens: impl Fn(&str) -> bool, closes: impl Fn(&str) -> bool) -> Vec<(String, usize)> {
    let lines: Vec<&str> = file.text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate().filter(|(_, line)| opens(line.trim())) {
        if line.trim_end().ends_with(['}', ';']) {
            continue;
        }
        let body = lines[start + 1..].iter().take_while(|l| indent(l) != indent(line) || !closes(l.trim()));
        found.push((format!("{}:{}", file.path.display(), start + 1), body.filter(|l| is_code(l)).count()));
    }
    found
}

fn python_functions(file: &Source) -> Vec<(String, usize)> {
    let lines: Vec<&str> = file.text.lines().collect();
    let opens = |line: &&str| line.trim().starts_with("def ") || line.trim().starts_with("async def ");
    let starts = lines.iter().enumerate().filter(|(_, line)| opens(line));
    starts
        .map(|(start, line)| {
            let inside = |l: &&&str| l.trim().is_empty() || indent(l) > indent(line) || l.trim().starts_with(')');
            let body = lines[start + 1..].iter().take_while(inside);
            (format!("{}:{}", file.path.display(), start + 1), body.filter(|l| is_code(l)).count())
        })
        .collect()
}

fn rust_function(line: &str) -> bool {
    let words = line.split('(').next().unwrap_or_default();
    let is_qualifier = |word: &str| matches!(word, "pub" | "const" | "async" | "unsafe" | "extern");
    // `pub(crate)` ends the words above at its own parenthesis.
    let words = if words == "pub" { line.split_once(')').map_or("", |(_, rest)| rest) } else { words };
    words.split_whitespace().find(|word| !is_qualifier(word)) == Some("fn")
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn is_code(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with("//") && !line.starts_with('#')
}

#[test]
fn a_function_of_rust_is_known_by_its_words() {
    for line in [
        "fn a() {",
        "pub fn a<T>(",
        "pub(crate) async fn a() {",
        "pub const fn a() -> u8 {",
        "pub(in crate::x) fn b() {",
    ] {
        assert!(rust_function(line), "{line}");
    }
    for line in ["let f = fn_call(x);", "// fn a() {", "impl Fn() for X {", "pub struct A(fn());"] {
        assert!(!rust_function(line), "{line}");
    }
}
