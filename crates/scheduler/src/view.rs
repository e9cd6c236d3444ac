//! Keeps the table of hosts current with few and small queries.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nova_db::{Db, compute_nodes};
use nova_types::HostName;
use time::OffsetDateTime;

use crate::Outcome;
use crate::hosts::{Hosts, Rules};

/// All hosts are read this rarely; in between, those that changed.
const WHOLE_EVERY: Duration = Duration::from_secs(300);
/// A change is stamped when it is made and seen when its transaction ends. One that took longer is seen at the host's
/// next report, or when a claim fails.
const OVERLAP: Duration = Duration::from_secs(5);

/// The hosts, and how current they are.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) hosts: Hosts,
    down_after_seconds: i64,
    keep: Duration,
    last: Option<Reading>,
    /// Hosts that proved to be other than they looked.
    suspects: BTreeSet<HostName>,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    /// By the database's clock.
    at: OffsetDateTime,
    when: Instant,
    whole: Instant,
}

impl View {
    /// Nothing is known yet; what is known later is good for `keep`.
    pub(crate) fn new(rules: Rules, keep: Duration) -> Self {
        let down_after_seconds = i64::try_from(rules.down_after.as_secs()).unwrap_or(i64::MAX);
        Self { hosts: Hosts::new(rules), down_after_seconds, keep, last: None, suspects: BTreeSet::new() }
    }

    /// Lets a host be looked at again before the next choice.
    pub(crate) fn suspect(&mut self, host: &HostName) {
        self.suspects.insert(host.clone());
    }

    /// Lets everything be read anew before the next choice.
    pub(crate) fn distrust(&mut self) {
        self.last = None;
    }

    /// Reads what changed when the last reading is too old, or at once when it is `urgent`. Returns whether it did.
    pub(crate) async fn refresh(&mut self, db: &Db, urgent: bool) -> Outcome<bool> {
        let due = urgent || self.last.is_none_or(|last| last.when.elapsed() >= self.keep);
        if !due && self.suspects.is_empty() {
            return Ok(false);
        }
        let mut conn = db.read().await?;
        if due {
            // The clock before the answer: a host is never thought to live longer than it may.
            let when = Instant::now();
            match self.last.filter(|last| last.whole.elapsed() < WHOLE_EVERY) {
                None => {
                    let all = compute_nodes::all(&mut conn, self.down_after_seconds).await?;
                    self.last = all.at.map(|at| Reading { at, when, whole: when });
                    self.hosts.replace(all, when);
                    self.suspects.clear();
                }
                Some(last) => {
                    let since = last.at - OVERLAP;
                    let changed = compute_nodes::changed_since(&mut conn, since, self.down_after_seconds).await?;
                    self.last = Some(Reading { at: changed.at.unwrap_or(last.at), when, ..last });
                    self.hosts.update(changed, when);
                }
            }
        }
        if !self.suspects.is_empty() {
            let names: Vec<HostName> = self.suspects.iter().cloned().collect();
            let when = Instant::now();
            let found = compute_nodes::named(&mut conn, &names, self.down_after_seconds).await?;
            for host in names.iter().filter(|host| found.nodes.iter().all(|(node, _)| node.host != **host)) {
                self.hosts.forget(host);
            }
            self.hosts.update(found, when);
            self.suspects.clear();
        }
        Ok(due)
    }
}

#[cfg(test)]
mod tests {
    use nova_db::dev::{self, fixtures};
    use nova_db::services;
    use nova_types::InstanceId;

    use super::*;
    use crate::choose::{Place, Wish};
    use crate::order::Policy;

    const RULES: Rules = Rules { policy: Policy::Spread, max_cores: 0, down_after: Duration::from_secs(60) };

    /// Which of some hosts have room.
    fn with_room(view: &View, hosts: &[&str]) -> Vec<String> {
        let wish = |host: &&str| Wish {
            instance: InstanceId::new(1),
            demand: fixtures::DEMAND,
            place: Place::Host((*host).to_owned()),
        };
        let fits = |host: &&&str| {
            // A fresh table for each question, for an answer takes room.
            let mut hosts = view.hosts.clone();
            hosts.plan(&[wish(host)], Instant::now()).unplaced.is_empty()
        };
        hosts.iter().filter(fits).map(|host| (*host).to_owned()).collect()
    }

    #[tokio::test]
    async fn only_what_changed_is_read_and_every_change_is_seen() {
        dev::each(async |db: &Db| {
            let [a, b, c]: [HostName; 3] = ["a", "b", "c"].map(fixtures::name);
            fixtures::node(db, &a, 1).await;
            fixtures::node(db, &b, 1).await;
            let mut view = View::new(RULES, Duration::from_secs(1000));
            assert!(view.refresh(db, false).await.unwrap());
            assert!(!view.refresh(db, false).await.unwrap(), "what was read is kept");
            assert_eq!(with_room(&view, &["a", "b", "c"]), ["a", "b"]);

            // A new host, a claim, a daemon that is disabled.
            fixtures::node(db, &c, 1).await;
            let mut conn = db.write().await.unwrap();
            assert!(compute_nodes::claim(&mut conn, &a, fixtures::DEMAND).await.unwrap());
            services::set_disabled(&mut conn, &b, "nova-compute", true).await.unwrap();
            assert!(view.refresh(db, true).await.unwrap());
            assert_eq!(with_room(&view, &["a", "b", "c"]), ["c"]);
            compute_nodes::release(&mut conn, &a, fixtures::DEMAND).await.unwrap();
            services::set_disabled(&mut conn, &b, "nova-compute", false).await.unwrap();
            services::delete(&mut conn, &c, "nova-compute").await.unwrap();
            assert!(view.refresh(db, true).await.unwrap());
            assert_eq!(with_room(&view, &["a", "b", "c"]), ["a", "b"]);

            // What is old is not read again; a host that is suspected is, however old.
            let now = conn.now().await.unwrap();
            let none = compute_nodes::changed_since(&mut conn, now + OVERLAP, 60).await.unwrap();
            assert_eq!(none, compute_nodes::Snapshot::default());
            conn.execute("update compute_nodes set deleted = true where host = 'a'", &[]).await.unwrap();
            drop(conn);
            view.refresh(db, true).await.unwrap();
            assert_eq!(with_room(&view, &["a", "b", "c"]), ["a", "b"], "a row that is gone does not change");
            view.suspect(&a);
            view.refresh(db, false).await.unwrap();
            assert_eq!(with_room(&view, &["a", "b", "c"]), ["b"]);
        })
        .await;
    }
}
