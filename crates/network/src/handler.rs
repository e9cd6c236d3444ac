//! Messages to the network daemon. Each is a hint to look at rows, but for the two that old helpers send themselves.

use std::net::Ipv4Addr;

use async_trait::async_trait;
use nova_bus::Handler;
use nova_db::{Db, DbError, fixed_ips};
use nova_service::{Hint, chain};
use nova_types::Mac;
use nova_wire::{Context, Failure, NetworkCall};
use serde_json::Value;
use tracing::debug;

use crate::spool::LeaseKind;

pub(crate) struct Messages {
    db: Db,
    hint: Hint,
}

impl Messages {
    pub(crate) fn new(db: Db, hint: Hint) -> Self {
        Self { db, hint }
    }

    async fn lease(&self, kind: LeaseKind, mac: &str, address: Ipv4Addr) -> Result<(), Failure> {
        let mac: Mac = mac.parse().map_err(|error| Failure::new("BadMessage", chain(&error).to_string()))?;
        let noted = async {
            let mut conn = self.db.write().await?;
            match kind {
                LeaseKind::Held => fixed_ips::leased(&mut conn, address, mac).await,
                LeaseKind::Ended => fixed_ips::lease_ended(&mut conn, address, mac).await,
            }
        };
        let known = noted.await.map_err(|error: DbError| Failure::new("Unavailable", chain(&error).to_string()))?;
        debug!(%address, %mac, known, "A message told of a lease.");
        Ok(())
    }
}

#[async_trait]
impl Handler for Messages {
    type Call = NetworkCall;

    async fn handle(&self, call: NetworkCall, _: &Context) -> Result<Value, Failure> {
        match call {
            NetworkCall::RefreshNetwork { .. } => {}
            NetworkCall::LeaseFixedIp { mac, address } => self.lease(LeaseKind::Held, &mac, address).await?,
            NetworkCall::ReleaseFixedIp { mac, address } => self.lease(LeaseKind::Ended, &mac, address).await?,
        }
        self.hint.give();
        Ok(Value::Null)
    }
}
