//! An error with its causes, in one line.

use std::error::Error;
use std::fmt;

/// Shows an error and its causes: `creating bridge br100: operation not permitted`.
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> Chain<'a> {
    Chain(error)
}

/// See [`chain`].
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some crates repeat their cause in their own text.
            if !last.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            last = text;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Link(&'static str, #[source] Option<Box<Link>>);

    #[test]
    fn an_error_is_shown_with_its_causes_and_none_twice() {
        let link = |text, cause: Option<Link>| Link(text, cause.map(Box::new));
        let error = link("opening a", Some(link("reading: gone", Some(link("gone", None)))));
        assert_eq!(chain(&error).to_string(), "opening a: reading: gone");
        assert_eq!(chain(&link("alone", None)).to_string(), "alone");
    }
}
