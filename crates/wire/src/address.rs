//! Who a message is for, and the queue or exchange that stands for them.

use std::fmt;

/// A kind of daemon, as it is named on the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Chooses hosts.
    Scheduler,
    /// Runs guests.
    Compute,
    /// Runs networks.
    Network,
}

impl Topic {
    /// The word used in queue names and in the `services.topic` column.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scheduler => "scheduler",
            Self::Compute => "compute",
            Self::Network => "network",
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a message goes. Its text is the routing key, or for [`Address::Every`] the name of the exchange.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// Whichever daemon of the topic is free.
    Any(Topic),
    /// The one daemon of the topic on this host.
    Host(Topic, String),
    /// All daemons of the topic that listen now; those that do not never hear of it.
    Every(Topic),
}

impl Address {
    /// The kind of daemon that is meant.
    pub const fn topic(&self) -> Topic {
        match self {
            Self::Any(topic) | Self::Host(topic, _) | Self::Every(topic) => *topic,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any(topic) => topic.fmt(f),
            Self::Host(topic, host) => write!(f, "{topic}.{host}"),
            Self::Every(topic) => write!(f, "{topic}_fanout"),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{Address, Topic};

    #[test]
    fn addresses_are_written_as_the_first_nova_named_its_queues() {
        let all = [
            Address::Any(Topic::Scheduler),
            Address::Host(Topic::Compute, "node1.lab".into()),
            Address::Every(Topic::Network),
        ];
        let text: Vec<String> = all.iter().map(Address::to_string).collect();
        expect!["scheduler compute.node1.lab network_fanout"].assert_eq(&text.join(" "));
    }
}
