//! What must hold of the tree itself: floors, homes, sizes, docs, words, paths. Each file is one rule.

#![expect(clippy::disallowed_methods, reason = "these tests ask cargo about the tree; no daemon runs here")]
#![expect(clippy::unwrap_used, reason = "a helper of a test fails as a test does")]

mod docs;
mod floors;
mod homes;
mod paths;
mod sizes;
mod source;
mod words;
mod workspace;
