//! Words that production code does without. Clippy holds the same; this sees also what a feature or a target hides from it.

use std::path::PathBuf;

use crate::source::{Source, files};

/// Each word, and the lint by whose `#[expect(…, reason = …)]` a file may be excused.
const WORDS: &[(&str, &str)] = &[
    (".unwrap()", "clippy::unwrap_used"),
    (".unwrap_err()", "clippy::unwrap_used"),
    (".expect(\"", "clippy::expect_used"),
    (".expect_err(\"", "clippy::expect_used"),
    ("todo!", "clippy::todo"),
    ("unimplemented!", "clippy::unimplemented"),
    ("dbg!(", "clippy::dbg_macro"),
    ("print!(", "clippy::print_stdout"),
    ("println!(", "clippy::print_stdout"),
    ("eprint!(", "clippy::print_stderr"),
    ("eprintln!(", "clippy::print_stderr"),
];

#[test]
fn production_code_neither_unwraps_nor_prints_nor_puts_off() {
    let mut found = Vec::new();
    let files = files(&[".rs"]);
    let test_modules: Vec<PathBuf> = files.iter().flat_map(Source::test_modules).collect();
    let ships = |file: &Source| !file.is_test() && !test_modules.iter().any(|module| file.path.starts_with(module));
    for file in files.iter().filter(|file| ships(file)) {
        for (number, line) in file.production_lines() {
            let code = without_texts(line);
            let excused = |lint: &str| file.text.contains(lint) && file.text.contains("reason = ");
            for (word, _) in WORDS.iter().filter(|(word, lint)| contains_word(&code, word) && !excused(lint)) {
                found.push(format!("{}:{number}: {word} in: {}", file.path.display(), line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn an_exception_from_a_lint_gives_its_reason() {
    let mut found = Vec::new();
    for file in files(&[".rs"]) {
        for (number, line) in (1..).zip(file.text.lines()) {
            let code = line.trim();
            if code.starts_with("#[allow(") || code.starts_with("#![allow(") {
                found.push(format!("{}:{number}: write #[expect(…, reason = \"…\")]", file.path.display()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Whether `word` stands in `code`, and not as the end of a longer name (`eprintln!` is not `println!`).
fn contains_word(code: &str, word: &str) -> bool {
    code.match_indices(word)
        .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') || word.starts_with('.'))
}

/// The line without what stands between double quotes (but with the quotes) and without a comment at its end.
fn without_texts(line: &str) -> String {
    let mut kept = String::new();
    let mut inside = false;
    let mut before = ' ';
    for c in line.chars() {
        let as_char = before == '\'' && !inside;
        if c == '"' && before != '\\' && !as_char {
            inside = !inside;
            kept.push(c);
        } else if !inside {
            kept.push(c);
        }
        before = if before == '\\' { ' ' } else { c };
    }
    kept.split("// ").next().unwrap_or_default().to_owned()
}

#[test]
fn words_inside_texts_and_comments_do_not_count() {
    assert_eq!(without_texts(r#"f("x.unwrap()", '"'); // todo!"#), r#"f("", '"'); "#);
    assert!(contains_word("let a = b.unwrap();", ".unwrap()"));
    assert!(contains_word("a.expect(\"\")", ".expect(\""));
    assert!(!contains_word("eprintln!(1)", "println!("));
}
