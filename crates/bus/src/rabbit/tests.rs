//! The contract on a real broker.

use std::sync::Arc;

use super::RabbitMq;
use crate::dev;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds() {
    let Some(place) = dev::rabbit() else { return };
    crate::contract::contract(Arc::new(place.bus())).await;
}

#[tokio::test]
async fn the_contract_holds_with_quorum_queues() {
    let Some(place) = dev::rabbit() else { return };
    crate::contract::contract(Arc::new(RabbitMq::open(place.options(&["--rabbit_quorum_queues=yes"])))).await;
}
