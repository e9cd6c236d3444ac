//! What every kind of bus must do, as one suite. Run it against a bus that nothing else uses.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a suite of tests, which crates with other buses run")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nova_wire::{Address, MessageId, Topic};

use crate::{Bus, BusError, Consumer, Delivery, MAX_DELIVERIES, Subscription};

const SOON: Duration = Duration::from_secs(10);
const A_WHILE: Duration = Duration::from_millis(200);

/// Runs the whole suite.
///
/// # Panics
/// Where the bus breaks a promise.
pub async fn contract(bus: Arc<dyn Bus>) {
    what_is_sent_arrives_unchanged_and_in_order(&*bus).await;
    what_nobody_ever_listened_to_is_refused_at_once(&*bus).await;
    a_message_for_any_goes_to_one(&*bus).await;
    a_message_for_a_host_goes_to_that_host(&*bus).await;
    a_message_for_every_one_goes_to_every_one(&*bus).await;
    a_message_waits_for_a_daemon_that_is_away(&*bus).await;
    a_dropped_message_comes_again_and_is_then_set_aside(&*bus).await;
    a_rejected_message_is_set_aside_and_the_next_comes(&*bus).await;
    no_more_are_handed_out_than_the_prefetch(&*bus).await;
    a_waiting_consumer_can_be_cancelled(&*bus).await;
    a_call_is_answered(&bus).await;
    a_call_ends_at_its_deadline(&*bus).await;
}

async fn listen(bus: &dyn Bus, topic: Topic, host: &str, prefetch: u16) -> Box<dyn Consumer> {
    bus.consume(&Subscription { topic, host: host.to_owned(), prefetch }).await.unwrap()
}

fn host(name: &str) -> Address {
    Address::Host(Topic::Compute, name.to_owned())
}

async fn send(bus: &dyn Bus, to: &Address, text: &'static str) {
    bus.publish(to, Bytes::from_static(text.as_bytes())).await.unwrap();
}

async fn next(consumer: &mut dyn Consumer) -> Delivery {
    tokio::time::timeout(SOON, consumer.next()).await.expect("a message comes").unwrap()
}

async fn take(consumer: &mut dyn Consumer) -> String {
    let delivery = next(consumer).await;
    let text = String::from_utf8(delivery.body().to_vec()).unwrap();
    delivery.ack().await.unwrap();
    text
}

async fn nothing_comes(consumer: &mut dyn Consumer) {
    let came = tokio::time::timeout(A_WHILE, consumer.next()).await;
    assert!(came.is_err(), "unexpected: {came:?}");
}

async fn what_is_sent_arrives_unchanged_and_in_order(bus: &dyn Bus) {
    let mut there = listen(bus, Topic::Compute, "order", 10).await;
    let mut sent: Vec<Bytes> = (0..100).map(|n| Bytes::from(format!("{{\"n\": {n}}}"))).collect();
    sent.push(Bytes::from((0..=255).collect::<Vec<u8>>()));
    sent.push(Bytes::from(vec![b'x'; 1 << 20]));
    for body in &sent {
        bus.publish(&host("order"), body.clone()).await.unwrap();
    }
    for body in &sent {
        let delivery = next(&mut *there).await;
        assert_eq!((delivery.body(), delivery.attempt()), (body, 1));
        delivery.ack().await.unwrap();
    }
}

async fn what_nobody_ever_listened_to_is_refused_at_once(bus: &dyn Bus) {
    let begun = Instant::now();
    let refused = bus.publish(&host("never-seen"), Bytes::from_static(b"{}")).await;
    assert!(matches!(refused, Err(BusError::Unroutable(queue)) if queue == "compute.never-seen"));
    let refused = bus.call(&host("never-seen"), &MessageId::random(), Bytes::from_static(b"{}"), SOON).await;
    assert!(matches!(refused, Err(BusError::Unroutable(_))), "{refused:?}");
    assert!(begun.elapsed() < SOON / 2, "the refusal waited for the deadline");
    bus.publish(&Address::Every(Topic::Network), Bytes::from_static(b"{}")).await.expect("to every one of none");
}

async fn a_message_for_any_goes_to_one(bus: &dyn Bus) {
    let mut one = listen(bus, Topic::Scheduler, "any-1", 1).await;
    let mut two = listen(bus, Topic::Scheduler, "any-2", 1).await;
    send(bus, &Address::Any(Topic::Scheduler), "a").await;
    send(bus, &Address::Any(Topic::Scheduler), "b").await;
    // Each holds one at a time, so that each gets one.
    let (first, second) = (next(&mut *one).await, next(&mut *two).await);
    let mut bodies = [first.body().clone(), second.body().clone()];
    bodies.sort();
    assert_eq!(bodies, ["a", "b"]);
    first.ack().await.unwrap();
    second.ack().await.unwrap();
    nothing_comes(&mut *one).await;
    nothing_comes(&mut *two).await;
}

async fn a_message_for_a_host_goes_to_that_host(bus: &dyn Bus) {
    let mut one = listen(bus, Topic::Compute, "host-1.lab", 1).await;
    let mut two = listen(bus, Topic::Compute, "host-2.lab", 1).await;
    send(bus, &host("host-2.lab"), "two").await;
    assert_eq!(take(&mut *two).await, "two");
    nothing_comes(&mut *one).await;
}

async fn a_message_for_every_one_goes_to_every_one(bus: &dyn Bus) {
    let mut one = listen(bus, Topic::Network, "every-1", 1).await;
    let mut two = listen(bus, Topic::Network, "every-2", 1).await;
    send(bus, &Address::Every(Topic::Network), "all").await;
    assert_eq!((take(&mut *one).await, take(&mut *two).await), ("all".into(), "all".into()));
    drop(two);
    send(bus, &Address::Every(Topic::Network), "all again").await;
    assert_eq!(take(&mut *one).await, "all again");
    let mut two = listen(bus, Topic::Network, "every-2", 1).await;
    nothing_comes(&mut *two).await;
}

async fn a_message_waits_for_a_daemon_that_is_away(bus: &dyn Bus) {
    drop(listen(bus, Topic::Compute, "away", 1).await);
    send(bus, &host("away"), "waited").await;
    let mut back = listen(bus, Topic::Compute, "away", 1).await;
    assert_eq!(take(&mut *back).await, "waited");
}

async fn a_dropped_message_comes_again_and_is_then_set_aside(bus: &dyn Bus) {
    let mut there = listen(bus, Topic::Compute, "drop", 1).await;
    send(bus, &host("drop"), "poison").await;
    send(bus, &host("drop"), "good").await;
    for attempt in 1..=MAX_DELIVERIES {
        let delivery = next(&mut *there).await;
        assert_eq!((&delivery.body()[..], delivery.attempt()), (&b"poison"[..], attempt));
        drop(delivery);
    }
    assert_eq!(take(&mut *there).await, "good");
    let mut dead = bus.dead_letters().await.unwrap();
    dead.retain(|letter| letter.queue == "compute.drop");
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(dead[0].body, "poison");
}

async fn a_rejected_message_is_set_aside_and_the_next_comes(bus: &dyn Bus) {
    let mut there = listen(bus, Topic::Compute, "reject", 1).await;
    send(bus, &host("reject"), "nonsense").await;
    send(bus, &host("reject"), "good").await;
    next(&mut *there).await.reject("cannot be read").await.unwrap();
    assert_eq!(take(&mut *there).await, "good");
    let mut dead = bus.dead_letters().await.unwrap();
    dead.retain(|letter| letter.queue == "compute.reject");
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(dead[0].body, "nonsense");
}

async fn no_more_are_handed_out_than_the_prefetch(bus: &dyn Bus) {
    let mut there = listen(bus, Topic::Compute, "prefetch", 2).await;
    for text in ["1", "2", "3"] {
        send(bus, &host("prefetch"), text).await;
    }
    let (one, two) = (next(&mut *there).await, next(&mut *there).await);
    nothing_comes(&mut *there).await;
    two.ack().await.unwrap();
    assert_eq!(take(&mut *there).await, "3");
    one.ack().await.unwrap();
}

async fn a_waiting_consumer_can_be_cancelled(bus: &dyn Bus) {
    let mut there = listen(bus, Topic::Compute, "cancel", 1).await;
    for text in ["1", "2", "3"] {
        nothing_comes(&mut *there).await;
        send(bus, &host("cancel"), text).await;
        assert_eq!(take(&mut *there).await, text);
    }
}

async fn a_call_is_answered(bus: &Arc<dyn Bus>) {
    let mut there = listen(&**bus, Topic::Compute, "call", 1).await;
    let id = MessageId::random();
    let caller = tokio::spawn({
        let (bus, id) = (Arc::clone(bus), id.clone());
        async move { bus.call(&host("call"), &id, Bytes::from_static(b"ask"), SOON).await }
    });
    assert_eq!(take(&mut *there).await, "ask");
    bus.reply(&id, Bytes::from_static(b"answer")).await.unwrap();
    assert_eq!(caller.await.unwrap().unwrap(), "answer");
    bus.reply(&id, Bytes::from_static(b"answer twice")).await.expect("nobody waits any more");
}

async fn a_call_ends_at_its_deadline(bus: &dyn Bus) {
    let mut there = listen(bus, Topic::Compute, "late", 1).await;
    drop(there);
    let ended = bus.call(&host("late"), &MessageId::random(), Bytes::from_static(b"ask"), A_WHILE).await;
    assert!(matches!(&ended, Err(BusError::TimedOut { to, .. }) if to == "compute.late"), "{ended:?}");
    there = listen(bus, Topic::Compute, "late", 1).await;
    nothing_comes(&mut *there).await;
}
