//! Keeps the firewall of this host as its rows say.
//!
//! A launch waits until rules are in force that were read after it was placed; launches that wait at the same time
//! share one reading. A changed rule is in force within a tick even if no message told of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nova_db::Db;
use nova_db::security_groups::{self, FirewallStamp};
use nova_link::guests::{FirewallChange, GuestFirewall};
use nova_service::{Hint, Stop, Ticks};
use nova_types::{HostName, InstanceId};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::info;

use crate::host::Host;
use crate::problem::Problem;

/// How often the rules are compared although no row changed, in case that somebody else changed them.
const COMPARE_AGAIN: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Groups {
    db: Db,
    name: HostName,
    firewall: Arc<dyn GuestFirewall>,
    /// Whether guests have IPv6.
    ipv6: bool,
    /// Counts the readings that were asked for.
    asked: AtomicU64,
    applied: Mutex<Applied>,
    news: Hint,
}

#[derive(Debug, Default)]
struct Applied {
    /// The latest request that the rules in force answer.
    answers: u64,
    /// What the rows looked like then.
    stamp: Option<FirewallStamp>,
    /// When the rules were last compared with what the kernel holds. Between two of these, only differences are applied.
    compared: Option<Instant>,
}

impl Groups {
    pub(crate) fn new(db: Db, name: HostName, firewall: Arc<dyn GuestFirewall>, ipv6: bool) -> Self {
        Self { db, name, firewall, ipv6, asked: AtomicU64::new(0), applied: Mutex::default(), news: Hint::default() }
    }

    /// Says that rules or members have changed.
    pub(crate) fn tell(&self) {
        self.news.give();
    }

    /// Returns when rules are in force that were read after this was called.
    pub(crate) async fn refresh(&self) -> Result<(), Problem> {
        let mine = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut applied = self.applied.lock().await;
        if applied.answers >= mine {
            return Ok(());
        }
        self.apply(&mut applied).await
    }

    /// Takes the rules of one guest away. The rows still name it, so a reading at the same moment may bring them back
    /// until they do not; they let nobody into anything, for there is nothing behind them.
    pub(crate) async fn forget(&self, id: InstanceId) -> Result<(), Problem> {
        let applied = self.applied.lock().await;
        if applied.stamp.is_none() {
            drop(applied);
            // Never told all rules: the first reading will not name it.
            return Ok(());
        }
        self.firewall.change(&FirewallChange { gone: vec![id], ..FirewallChange::default() }).await?;
        Ok(())
    }

    /// Puts the rules in force if a row has changed since they were read, or it is time to compare them again.
    async fn follow(&self) -> Result<(), Problem> {
        let mut applied = self.applied.lock().await;
        let stamp = security_groups::changed(&mut self.db.read().await?, &self.name).await?;
        match &applied.stamp {
            Some(known) if *known == stamp && applied.compared.as_ref().is_some_and(is_fresh) => Ok(()),
            _ => self.apply(&mut applied).await,
        }
    }

    async fn apply(&self, applied: &mut Applied) -> Result<(), Problem> {
        let answers = self.asked.load(Ordering::SeqCst);
        let begun = Instant::now();
        let (stamp, wanted) = {
            let mut conn = self.db.read().await?;
            // The stamp first: what changes in between is then seen the next time.
            let stamp = security_groups::changed(&mut conn, &self.name).await?;
            (stamp, security_groups::for_host(&mut conn, &self.name, self.ipv6).await?)
        };
        // Should it fail half-way, the next tick must not take the rules for current.
        applied.stamp = None;
        let changed = match applied.compared.take().filter(is_fresh) {
            Some(compared) => {
                let changed = self.firewall.advance(&wanted).await?;
                applied.compared = Some(compared);
                changed
            }
            None => {
                let changed = self.firewall.ensure(&wanted).await?;
                applied.compared = Some(begun);
                changed
            }
        };
        applied.answers = answers;
        applied.stamp = Some(stamp);
        if changed.commands > 0 {
            let took_ms = begun.elapsed().as_millis();
            info!(
                guests = wanted.guests.len(),
                commands = changed.commands,
                forgotten = changed.forgotten,
                took_ms,
                "Changed the firewall of guests."
            );
        }
        Ok(())
    }
}

fn is_fresh(compared: &Instant) -> bool {
    compared.elapsed() < COMPARE_AGAIN
}

/// Follows the rows until the daemon stops. What is in force then stays in force.
pub(crate) async fn keep_current(host: &Host, stop: Stop) {
    let Some(real) = &host.real else { return stop.cancelled().await };
    Ticks::new("firewall", host.settings.tick).hinted_by(&real.groups.news).run(stop, || real.groups.follow()).await;
}

#[cfg(test)]
mod tests {
    use nova_db::transaction;
    use nova_link::guests::FakeGuestFirewall;
    use nova_types::rule::{Rule, Source, Traffic};

    use super::*;
    use crate::testing::{Bench, host_name, project};

    #[tokio::test]
    async fn a_changed_row_is_applied_by_what_differs_and_all_is_compared_once_a_minute() {
        let bench = Bench::new().await;
        let groups =
            Groups::new(bench.db.clone(), host_name(), Arc::<FakeGuestFirewall>::clone(&bench.firewall), false);
        let id = bench.placed(1).await[0];
        groups.follow().await.unwrap();
        assert_eq!(bench.firewall.compared(), 1, "at the start");
        let open = |port| Traffic::parse("tcp", Some(port), Some(port)).unwrap();
        for port in [22, 80] {
            let (group, rules) = (bench.group, [Rule { traffic: open(port), source: Source::EVERYONE }]);
            transaction!(bench.db, |tx| -> security_groups::GroupError {
                security_groups::add_rules(tx, &project(), group, &rules, 100).await
            })
            .unwrap();
            groups.follow().await.unwrap();
            assert!(bench.firewall.lets_in(id, open(port), "192.0.2.7".parse().unwrap()));
        }
        groups.refresh().await.unwrap();
        groups.follow().await.unwrap();
        assert_eq!(bench.firewall.compared(), 1);
        tokio::time::pause();
        tokio::time::advance(COMPARE_AGAIN).await;
        tokio::time::resume();
        groups.follow().await.unwrap();
        assert_eq!(bench.firewall.compared(), 2);
    }
}
