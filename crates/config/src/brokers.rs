//! Where the message broker is: `--rabbit_host=a,b:5673,[::1]`.

use std::fmt;
use std::str::FromStr;

/// The most brokers that a list may name.
const MOST: usize = 16;

/// One broker of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// A name or an address; an IPv6 address without its brackets.
    pub host: String,
    /// Its port, where the list says one.
    pub port: Option<u16>,
}

/// The brokers to try, in this order. There is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brokers(Vec<Broker>);

impl Brokers {
    /// The brokers, in the order of the list.
    pub fn as_slice(&self) -> &[Broker] {
        &self.0
    }
}

impl FromStr for Brokers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        let brokers: Option<Vec<Broker>> = items.map(broker).collect();
        match brokers {
            Some(brokers) if (1..=MOST).contains(&brokers.len()) => Ok(Self(brokers)),
            _ => Err(format!("expected HOST or HOST:PORT, or up to {MOST} of them with commas between")),
        }
    }
}

/// `name`, `name:5672`, `192.0.2.1:5672`, `::1`, `[::1]` or `[::1]:5672`.
fn broker(text: &str) -> Option<Broker> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((_, rest)) if rest.contains(':') => (text, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.map(|port| port.parse().ok().filter(|port| *port != 0).ok_or(())).transpose().ok()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    (!host.is_empty() && host.len() < 256 && host.chars().all(plain)).then(|| Broker { host: host.to_owned(), port })
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.port, self.host.contains(':')) {
            (None, _) => f.write_str(&self.host),
            (Some(port), false) => write!(f, "{}:{port}", self.host),
            (Some(port), true) => write!(f, "[{}]:{port}", self.host),
        }
    }
}

impl fmt::Display for Brokers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, broker) in self.0.iter().enumerate() {
            write!(f, "{}{broker}", if n == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Brokers;

    #[test]
    fn a_list_may_hold_names_addresses_and_ports() {
        for (text, shown) in [
            ("localhost", "localhost"),
            (" a.lab , b:5673 ,", "a.lab,b:5673"),
            ("192.0.2.1:5671,[::1]:5671,::1,[fd00::2]", "192.0.2.1:5671,[::1]:5671,::1,fd00::2"),
        ] {
            assert_eq!(text.parse::<Brokers>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in ["", ",", "a:", "a:0", "a:65536", "a:x", ":5672", "[::1", "[::1]x", "a b", "amqp://a", "a/b", "u@a"]
        {
            assert!(text.parse::<Brokers>().is_err(), "{text:?}");
        }
        assert!(vec!["a"; 17].join(",").parse::<Brokers>().is_err());
    }
}
