//! `MaxResults` and `NextToken`: long lists in parts.

use std::{fmt::Display, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use crate::params::{ParamError, Params};

const LEAST_RESULTS: usize = 5;
const MOST_RESULTS: usize = 1000;
/// Bytes of the check sum that ties a token to its action.
const CHECK_BYTES: usize = 8;

/// Which part of a list a request asks for. The list must be ordered by `K`, which is unique in it.
///
/// A token holds the key of the last item shown, so parts neither repeat nor lose an item when rows come and go between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<K> {
    action: &'static str,
    limit: Option<usize>,
    after: Option<K>,
}

impl<K: Ord + Display + FromStr> Page<K> {
    /// Takes `MaxResults` and `NextToken`. A token is good for `action` only.
    ///
    /// # Errors
    /// [`ParamError::Malformed`] when `MaxResults` is not 5 to 1000, [`ParamError::NextToken`] for a token that is not ours.
    pub fn parse(params: &mut Params, action: &'static str) -> Result<Self, ParamError> {
        let limit = match params.take::<u32>("MaxResults")? {
            None => None,
            Some(sent) => Some(
                usize::try_from(sent)
                    .ok()
                    .filter(|limit| (LEAST_RESULTS..=MOST_RESULTS).contains(limit))
                    .ok_or_else(|| params.malformed("MaxResults", sent, "a whole number, 5 to 1000"))?,
            ),
        };
        let token = params.take::<String>("NextToken")?.filter(|token| !token.is_empty());
        let after = token.map(|token| open(action, &token).ok_or(ParamError::NextToken)).transpose()?;
        Ok(Self { action, limit, after })
    }

    /// How many items at most, if the client said so.
    #[must_use]
    pub fn limit(&self) -> Option<usize> {
        self.limit
    }

    /// The key after which the part begins, unless it is the first.
    #[must_use]
    pub fn after(&self) -> Option<&K> {
        self.after.as_ref()
    }

    /// Cuts the part out of the ordered `items`; also returns the token of the next part, if there is one.
    pub fn cut<T>(&self, items: impl IntoIterator<Item = T>, key: impl Fn(&T) -> K) -> (Vec<T>, Option<String>) {
        let mut items = items
            .into_iter()
            .skip_while(|item| self.after.as_ref().is_some_and(|after| key(item) <= *after))
            .peekable();
        let part: Vec<T> = items.by_ref().take(self.limit.unwrap_or(usize::MAX)).collect();
        let next = items.peek().and(part.last()).map(|last| seal(self.action, &key(last).to_string()));
        (part, next)
    }
}

fn seal(action: &str, key: &str) -> String {
    let check = check(action, key.as_bytes());
    URL_SAFE_NO_PAD.encode([&check[..], key.as_bytes()].concat())
}

fn open<K: FromStr>(action: &str, token: &str) -> Option<K> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (sent, key) = bytes.split_at_checked(CHECK_BYTES)?;
    (*sent == check(action, key)).then(|| std::str::from_utf8(key).ok()?.parse().ok())?
}

/// Not a signature: what a token says is only where to go on, in rows the caller may see anyway.
fn check(action: &str, key: &[u8]) -> [u8; CHECK_BYTES] {
    let digest = Sha256::new().chain_update(action).chain_update([0]).chain_update(key).finalize();
    std::array::from_fn(|at| digest[at])
}

#[cfg(test)]
mod tests {
    use super::{Page, ParamError, Params};

    fn page(limit: &str, token: Option<String>) -> Result<Page<u32>, ParamError> {
        let mut pairs = vec![("MaxResults".to_owned(), limit.to_owned())];
        pairs.extend(token.map(|token| ("NextToken".to_owned(), token)));
        Page::parse(&mut Params::new(pairs), "DescribeThings")
    }

    #[test]
    fn parts_neither_repeat_nor_lose_an_item() {
        let mut items: Vec<u32> = (1..=17).collect();
        let mut seen = Vec::new();
        let mut token = None;
        loop {
            let (part, next) = page("5", token).unwrap().cut(items.clone(), |item| *item);
            assert!(part.len() <= 5);
            seen.extend(part);
            token = next;
            items.retain(|item| *item != 5); // the item the first token names goes away
            if token.is_none() {
                break;
            }
        }
        assert_eq!(seen, (1..=17).collect::<Vec<_>>());
    }

    #[test]
    fn without_a_limit_all_is_one_part() {
        let page = Page::<u32>::parse(&mut Params::new(vec![]), "DescribeThings").unwrap();
        assert_eq!(page.cut(1..=3000, |item| *item), ((1..=3000).collect(), None));
    }

    #[test]
    fn a_part_that_ends_the_list_has_no_next() {
        assert_eq!(page("5", None).unwrap().cut(1..=5, |item| *item).1, None);
    }

    #[test]
    fn the_limit_is_five_to_a_thousand() {
        for (limit, good) in
            [("0", false), ("4", false), ("5", true), ("1000", true), ("1001", false), ("-5", false), ("x", false)]
        {
            assert_eq!(page(limit, None).is_ok(), good, "{limit}");
        }
    }

    #[test]
    fn a_token_of_another_action_or_of_nobody_is_refused() {
        let (_, ours) = page("5", None).unwrap().cut(1..=9, |item| *item);
        let ours = ours.unwrap();
        assert!(page("5", Some(ours.clone())).is_ok());
        let elsewhere = Params::new(vec![("NextToken".to_owned(), ours.clone())]);
        assert_eq!(Page::<u32>::parse(&mut elsewhere.clone(), "DescribeOthers"), Err(ParamError::NextToken));
        for token in ["x", "AAAA", "5", &ours[1..], "é"] {
            assert_eq!(page("5", Some(token.to_owned())), Err(ParamError::NextToken), "{token}");
        }
    }
}
