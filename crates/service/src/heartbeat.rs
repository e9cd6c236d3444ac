//! The heartbeat: a daemon's row in `services` says that it lives.

use std::time::Duration;

use async_trait::async_trait;
use nova_db::{Db, DbError, services};
use nova_types::HostName;

use crate::{Stop, Ticks, Turn};

/// Who reports, and how often.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    /// Where the rows are.
    pub db: Db,
    /// The host.
    pub host: HostName,
    /// The daemon, as `nova-compute`.
    pub binary: &'static str,
    /// The zone that a new row is in: flag `--node_availability_zone`.
    pub zone: String,
    /// Whether a new row takes part at once: flag `--enable_new_services`.
    pub enable_new: bool,
    /// Flag `--report_interval`.
    pub interval: Duration,
}

/// Reports at once and then every interval, until `stop`. The row is made when it is absent, also later. A task of its
/// own, so that slow work is not taken for death.
pub async fn heartbeat(heartbeat: Heartbeat, stop: Stop) {
    let ticks = Ticks::new("heartbeat", heartbeat.interval);
    ticks.run(stop, heartbeat).await;
}

#[async_trait]
impl Turn for Heartbeat {
    type Error = DbError;

    async fn turn(&mut self) -> Result<(), DbError> {
        let mut conn = self.db.write().await?;
        services::heartbeat(&mut conn, &self.host, self.binary, &self.zone, self.enable_new).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_row_is_made_kept_fresh_and_made_again() {
        let db = nova_db::dev::sqlite().await;
        let host: HostName = "h1".parse().unwrap();
        let stop = Stop::new();
        let beating = tokio::spawn(heartbeat(
            Heartbeat {
                db: db.clone(),
                host: host.clone(),
                binary: "nova-compute",
                zone: "north".to_owned(),
                enable_new: false,
                interval: Duration::from_millis(10),
            },
            stop.clone(),
        ));
        let reports = async |least: i32| {
            for _ in 0..500 {
                let found = services::list(&mut db.read().await.unwrap()).await.unwrap().pop();
                if let Some(row) = found.filter(|row| row.report_count >= least) {
                    return row;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("no report came")
        };
        let row = reports(3).await;
        assert_eq!((&*row.binary, &*row.topic, &*row.availability_zone), ("nova-compute", "compute", "north"));
        assert!(row.disabled && row.is_up(60));
        services::delete(&mut db.write().await.unwrap(), &host, "nova-compute").await.unwrap();
        reports(1).await;
        stop.cancel();
        beating.await.unwrap();
    }
}
