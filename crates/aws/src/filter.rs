//! `Filter.N.Name` and `Filter.N.Value.M`: which rows of a Describe call are shown.

use crate::params::{ParamError, Params};

/// One filter that an action has: its name, and the values an item has for it.
///
/// An action lists its filters in a table, so that reading and applying cannot disagree:
/// ```
/// use nova_aws::{Filter, Filters, Params};
///
/// struct Key { name: String }
/// const FILTERS: &[Filter<Key>] = &[("key-name", |key| vec![key.name.clone()])];
///
/// let mut params = Params::new(vec![("Filter.1.Name".into(), "key-name".into()), ("Filter.1.Value.1".into(), "web-*".into())]);
/// let filters = Filters::parse(&mut params, FILTERS)?;
/// assert!(filters.admit(&Key { name: "web-1".into() }));
/// assert!(!filters.admit(&Key { name: "db".into() }));
/// # Ok::<(), nova_aws::ParamError>(())
/// ```
pub type Filter<T> = (&'static str, fn(&T) -> Vec<String>);

/// The filters of one request. An item must pass each; a filter is passed by any of its values.
#[derive(Debug)]
pub struct Filters<T>(Vec<Wanted<T>>);

#[derive(Debug)]
struct Wanted<T> {
    values: fn(&T) -> Vec<String>,
    patterns: Vec<Pattern>,
}

impl<T> Filters<T> {
    /// Takes `Filter.N` from `params`; `known` is the action's table.
    ///
    /// # Errors
    /// [`ParamError::Filter`] for a filter that is not in the table, [`ParamError::Missing`] for one without a name or value.
    pub fn parse(params: &mut Params, known: &[Filter<T>]) -> Result<Self, ParamError> {
        let filters = params.structs("Filter", |filter| {
            let name: String = filter.required("Name")?;
            let patterns: Vec<String> = filter.list("Value")?;
            let (_, values) =
                known.iter().find(|(known, _)| *known == name).ok_or_else(|| ParamError::Filter(name.clone()))?;
            if patterns.is_empty() {
                return Err(filter.missing("Value"));
            }
            Ok(Wanted { values: *values, patterns: patterns.iter().map(|pattern| Pattern::new(pattern)).collect() })
        });
        filters.map(Self)
    }

    /// Whether `item` passes every filter.
    #[must_use]
    pub fn admit(&self, item: &T) -> bool {
        self.0.iter().all(|wanted| {
            let values = (wanted.values)(item);
            wanted.patterns.iter().any(|pattern| values.iter().any(|value| pattern.matches(value)))
        })
    }

    /// Whether no filter was given, and so every item passes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A text with EC2's wildcards: `*` any text, `?` any character, `\` takes the next character as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Part>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Exactly(char),
    Any,
    AnyText,
}

impl Pattern {
    /// Reads a pattern; every text is one.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut parts = Vec::with_capacity(text.len());
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            let part = match c {
                '*' => Part::AnyText,
                '?' => Part::Any,
                '\\' => Part::Exactly(rest.next().unwrap_or('\\')),
                c => Part::Exactly(c),
            };
            if part != Part::AnyText || parts.last() != Some(&Part::AnyText) {
                parts.push(part);
            }
        }
        Self(parts)
    }

    /// Whether the whole of `text` matches, letter case included. Takes time in proportion to pattern times text at worst.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let (mut at, mut part) = (0, 0);
        // Where to go on if what follows the last `*` fits nowhere yet: that part, and how much text `*` has eaten.
        let mut retry: Option<(usize, usize)> = None;
        while at < text.len() {
            match self.0.get(part) {
                Some(Part::AnyText) => {
                    part += 1;
                    retry = Some((part, at));
                }
                Some(Part::Any) => (at, part) = (at + 1, part + 1),
                Some(Part::Exactly(c)) if *c == text[at] => (at, part) = (at + 1, part + 1),
                Some(Part::Exactly(_)) | None => {
                    let Some((after_star, eaten)) = retry else { return false };
                    (at, part) = (eaten + 1, after_star);
                    retry = Some((after_star, eaten + 1));
                }
            }
        }
        self.0[part..].iter().all(|part| *part == Part::AnyText)
    }
}

#[cfg(test)]
mod tests {
    use super::{Filter, Filters, ParamError, Params, Pattern};
    use crate::query::decode;

    #[test]
    fn patterns_match_as_ec2_says() {
        let cases = [
            ("abc", "abc", true),
            ("abc", "ABC", false),
            ("abc", "abcd", false),
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "anything", true),
            ("a*", "a", true),
            ("a*c", "abbbc", true),
            ("a*c", "abbbd", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*ab", "aab", true),
            ("?", "é", true),
            ("?", "", false),
            ("a?c", "abc", true),
            (r"\*", "*", true),
            (r"\*", "a", false),
            (r"a\?", "a?", true),
            (r"\\", r"\", true),
            (r"a\", r"a\", true),
            (r"\*amazon\?\\", r"*amazon?\", true),
            ("m1.*", "m1.tiny", true),
        ];
        for (pattern, text, wanted) in cases {
            assert_eq!(Pattern::new(pattern).matches(text), wanted, "{pattern} on {text}");
        }
    }

    #[test]
    fn a_pattern_made_to_hurt_is_answered_at_once() {
        let pattern = Pattern::new(&"*a".repeat(30_000));
        assert!(!pattern.matches(&"a".repeat(2_000)));
    }

    struct Zone {
        name: &'static str,
        hosts: Vec<&'static str>,
    }

    const FILTERS: &[Filter<Zone>] = &[
        ("zone-name", |zone| vec![zone.name.to_owned()]),
        ("host", |zone| zone.hosts.iter().map(|host| (*host).to_owned()).collect()),
    ];

    fn parse(query: &str) -> Result<Filters<Zone>, ParamError> {
        let [pairs] = decode([query.as_bytes()]).unwrap();
        let mut params = Params::new(pairs);
        let filters = Filters::parse(&mut params, FILTERS)?;
        params.finish().map(|()| filters)
    }

    #[test]
    fn every_filter_must_be_passed_by_one_of_its_values() {
        let zone = Zone { name: "nova", hosts: vec!["node1", "node2"] };
        let cases = [
            ("", true),
            ("Filter.1.Name=zone-name&Filter.1.Value.1=nova", true),
            ("Filter.1.Name=zone-name&Filter.1.Value=nova", true),
            ("Filter.1.Name=zone-name&Filter.1.Value.1=x&Filter.1.Value.2=n*", true),
            ("Filter.1.Name=host&Filter.1.Value.1=node2", true),
            ("Filter.1.Name=host&Filter.1.Value.1=node3", false),
            ("Filter.1.Name=host&Filter.1.Value.1=node1&Filter.2.Name=zone-name&Filter.2.Value.1=x", false),
        ];
        for (query, wanted) in cases {
            assert_eq!(parse(query).unwrap().admit(&zone), wanted, "{query}");
        }
    }

    #[test]
    fn no_filter_is_ignored() {
        for (query, wanted) in [
            ("Filter.1.Name=colour&Filter.1.Value.1=red", ParamError::Filter("colour".into())),
            ("Filter.1.Value.1=red", ParamError::Missing("Filter.1.Name".into())),
            ("Filter.2.Name=host", ParamError::Missing("Filter.2.Value".into())),
            ("Filter.1.Name=host&Filter.1.Value.1=a&Filter.1.Values=b", ParamError::Unknown("Filter.1.Values".into())),
            ("Filter=host", ParamError::Unknown("Filter".into())),
        ] {
            assert_eq!(parse(query).err(), Some(wanted), "{query}");
        }
    }
}
