//! The contract, and what only a bus in memory can be made to do.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nova_wire::{Address, MessageId, Topic};

use super::{Faults, InProcess};
use crate::{Bus, BusError, Consumer, Subscription};

fn host() -> Address {
    Address::Host(Topic::Compute, "a".into())
}

async fn listen(bus: &InProcess) -> Box<dyn Consumer> {
    bus.consume(&Subscription { topic: Topic::Compute, host: "a".into(), prefetch: 1000 }).await.unwrap()
}

/// Sends 0 to 99 through `faults` and tells what arrived, in order.
async fn through(faults: Faults) -> Vec<u32> {
    let bus = InProcess::new();
    let mut there = listen(&bus).await;
    bus.misbehave(faults);
    for n in 0..100 {
        bus.publish(&host(), Bytes::from(n.to_string())).await.unwrap();
    }
    let mut came = Vec::new();
    while let Ok(delivery) = tokio::time::timeout(Duration::from_secs(60), there.next()).await {
        let delivery = delivery.unwrap();
        came.push(std::str::from_utf8(delivery.body()).unwrap().parse().unwrap());
        delivery.ack().await.unwrap();
    }
    came
}

#[tokio::test]
async fn the_contract_holds() {
    crate::contract::contract(Arc::new(InProcess::new())).await;
}

#[tokio::test(start_paused = true)]
async fn faults_do_what_they_say_and_the_same_for_the_same_seed() {
    let all: Vec<u32> = (0..100).collect();
    assert_eq!(through(Faults::default()).await, all);

    let lossy = Faults { seed: 1, drop: 0.5, ..Faults::default() };
    let came = through(lossy.clone()).await;
    assert!((20..80).contains(&came.len()) && came.is_sorted(), "{came:?}");
    assert_eq!(through(lossy).await, came);

    let mut doubled = through(Faults { seed: 2, double: 0.5, ..Faults::default() }).await;
    assert!((120..180).contains(&doubled.len()), "{doubled:?}");
    doubled.dedup();
    assert_eq!(doubled, all);

    for faults in [
        Faults { seed: 3, reorder: 0.5, ..Faults::default() },
        Faults { seed: 4, delay: Duration::ZERO..Duration::from_secs(1), ..Faults::default() },
    ] {
        let mut came = through(faults.clone()).await;
        assert!(!came.is_sorted(), "{faults:?}");
        assert_eq!(through(faults).await, came);
        came.sort_unstable();
        assert_eq!(came, all);
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_broker_is_away_senders_are_told_and_nothing_moves() {
    let bus = InProcess::new();
    let mut there = listen(&bus).await;
    bus.publish(&host(), Bytes::from_static(b"before")).await.unwrap();
    bus.misbehave(Faults { away: true, ..Faults::default() });
    assert!(matches!(bus.publish(&host(), Bytes::new()).await, Err(BusError::Unavailable(_))));
    assert!(matches!(bus.reply(&MessageId::random(), Bytes::new()).await, Err(BusError::Unavailable(_))));
    {
        let waiting = there.next();
        tokio::pin!(waiting);
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut waiting).await.is_err());
        bus.misbehave(Faults::default());
        assert_eq!(waiting.await.unwrap().body(), "before");
    }
}

#[tokio::test]
async fn a_queue_grows_only_so_long() {
    let bus = InProcess::new();
    drop(listen(&bus).await);
    for _ in 0..super::broker::LONGEST_QUEUE {
        bus.publish(&host(), Bytes::new()).await.unwrap();
    }
    assert!(matches!(bus.publish(&host(), Bytes::new()).await, Err(BusError::Full(queue)) if queue == "compute.a"));
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_nothing_behind() {
    let bus = InProcess::new();
    let _there = listen(&bus).await;
    let (id, to) = (MessageId::random(), host());
    let call = bus.call(&to, &id, Bytes::new(), Duration::from_secs(60));
    assert!(tokio::time::timeout(Duration::from_millis(10), call).await.is_err());
    assert_eq!(bus.broker.calls_waiting(), 0);
}
