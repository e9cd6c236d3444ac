//! The contract on a real broker, and what only a real broker can do to us.

mod outages;
mod returns;

use std::sync::Arc;
use std::time::Duration;

use nova_wire::{Address, Topic};

use super::RabbitMq;
use crate::bus::{Bus as _, Consumer, Subscription};
use crate::dev;

fn host() -> Address {
    Address::Host(Topic::Compute, "a".into())
}

async fn listen(bus: &RabbitMq, prefetch: u16) -> Box<dyn Consumer> {
    let wanted = Subscription { topic: Topic::Compute, host: "a".into(), prefetch };
    bus.consume(&wanted).await.unwrap()
}

/// The next message, acknowledged.
async fn take(consumer: &mut dyn Consumer) -> String {
    let delivery = tokio::time::timeout(Duration::from_secs(20), consumer.next()).await.unwrap().unwrap();
    let text = String::from_utf8(delivery.body().to_vec()).unwrap();
    delivery.ack().await.unwrap();
    text
}

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
