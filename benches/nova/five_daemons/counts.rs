//! What was done in a while: by the database and the broker by their own counters, by each process by the kernel's.

use std::time::Instant;

use nova_bus::dev::OwnRabbit;
use nova_db::{Conn, DbError, Engine};

use super::cloud::Five;
use crate::process::busy_seconds;

/// The name of MariaDB or PostgreSQL among processes.
pub(crate) const DATABASE: &str = "database";
pub(crate) const BROKER: &str = "RabbitMQ";
const BENCH: &str = "this program";

/// How often, or how many, until now or in a while.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    at: Instant,
    pub(crate) seconds: f64,
    /// What MariaDB counts; PostgreSQL does not by itself.
    pub(crate) sql: Option<Sql>,
    pub(crate) messages: f64,
    /// For how many seconds each process was on a processor.
    pub(crate) busy: Vec<(&'static str, f64)>,
}

/// What was asked of the database.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sql {
    /// select, and those that write.
    pub(crate) statements: f64,
    pub(crate) begins: f64,
    /// Transactions that wrote something, with a statement or without.
    pub(crate) commits: f64,
}

impl Counts {
    /// The counters as they are now; of messages only where they are asked for, which takes a second.
    pub(crate) async fn now(five: &Five, broker: Option<&OwnRabbit>) -> anyhow::Result<Self> {
        let pids = five.processes.iter().map(|(name, process)| (*name, process.pid()));
        let pids = pids.chain([(DATABASE, five.database.pid), (BENCH, std::process::id())]);
        let mut pids: Vec<_> = pids.collect();
        pids.extend(five.broker.map(|pid| (BROKER, pid)));
        #[expect(clippy::cast_precision_loss, reason = "three digits are told")]
        let messages = broker.map_or(0.0, |broker| broker.messages() as f64);
        let busy: anyhow::Result<_> = pids.iter().map(|(name, pid)| Ok((*name, busy_seconds(*pid)?))).collect();
        let sql = sql(&mut five.database.db.read().await?).await?;
        Ok(Self { at: Instant::now(), seconds: 0.0, sql, messages, busy: busy? })
    }

    /// What was counted since then.
    pub(crate) fn since(&self, then: &Self) -> Self {
        let busy = self.busy.iter().zip(&then.busy).map(|((name, now), (_, then))| (*name, now - then));
        Self {
            at: self.at,
            seconds: (self.at - then.at).as_secs_f64(),
            // The question itself was one.
            sql: less(self.sql, then.sql, 1.0).map(|sql| Sql { statements: sql.statements - 1.0, ..sql }),
            messages: self.messages - then.messages,
            busy: busy.collect(),
        }
    }

    /// What is left without what is done while nothing is asked for.
    pub(crate) fn without(&self, idle: &Self) -> Self {
        let share = self.seconds / idle.seconds;
        let sql = less(self.sql, idle.sql, share);
        Self { sql, messages: self.messages - idle.messages * share, ..self.clone() }
    }

    /// Shares of a processor, as `api 3.1 %`.
    pub(crate) fn told_busy(&self) -> String {
        let told = |(name, busy): &(&str, f64)| {
            format!("{} {:.1} %", name.trim_start_matches("nova-"), busy / self.seconds * 100.0)
        };
        self.busy.iter().map(told).collect::<Vec<_>>().join(", ")
    }

    /// The share of a processor that all but this program took.
    pub(crate) fn all(&self) -> f64 {
        self.busy.iter().filter(|(name, _)| *name != BENCH).map(|(_, busy)| busy).sum::<f64>() / self.seconds
    }

    /// The share of a processor that all daemons together took.
    pub(crate) fn daemons(&self) -> f64 {
        let daemons = self.busy.iter().filter(|(name, _)| name.starts_with("nova-"));
        daemons.map(|(_, busy)| busy).sum::<f64>() / self.seconds
    }
}

fn less(one: Option<Sql>, other: Option<Sql>, times: f64) -> Option<Sql> {
    one.zip(other).map(|(one, other)| Sql {
        statements: one.statements - other.statements * times,
        begins: one.begins - other.begins * times,
        commits: one.commits - other.commits * times,
    })
}

async fn sql(conn: &mut Conn) -> Result<Option<Sql>, DbError> {
    const COUNTED: &str = "select /* bench */ \
         cast(sum(if(variable_name in ('COM_SELECT', 'COM_INSERT', 'COM_UPDATE', 'COM_DELETE', 'COM_INSERT_SELECT', \
             'COM_UPDATE_MULTI', 'COM_DELETE_MULTI', 'COM_REPLACE'), variable_value, 0)) as signed) as statements, \
         cast(sum(if(variable_name = 'COM_BEGIN', variable_value, 0)) as signed) as begins, \
         (select cast(`count` as signed) from information_schema.innodb_metrics where name = 'trx_rw_commits') as commits \
         from information_schema.global_status";
    if conn.engine() != Engine::MySql {
        return Ok(None);
    }
    let row = conn.one(COUNTED, &[]).await?;
    #[expect(clippy::cast_precision_loss, reason = "three digits are told")]
    let get = |column: &str| row.get::<i64>(column).map(|count| count as f64);
    Ok(Some(Sql { statements: get("statements")?, begins: get("begins")?, commits: get("commits")? }))
}
