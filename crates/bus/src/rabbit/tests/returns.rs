//! Messages that come back, or find no place.

use std::time::Duration;

use bytes::Bytes;
use lapin::options::{BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel};
use tokio::time::Instant;

use super::super::{RabbitMq, names};
use super::{host, listen, take};
use crate::bus::{Bus as _, Consumer};
use crate::delivery::Delivery;
use crate::dev;
use crate::error::BusError;

/// A channel beside the bus, for what others may do.
async fn channel(bus: &RabbitMq) -> Channel {
    let link = bus.shared.listening.to_receive(Instant::now() + Duration::from_secs(10)).await.unwrap();
    link.channel().await.unwrap()
}

async fn next(consumer: &mut dyn Consumer) -> Delivery {
    tokio::time::timeout(Duration::from_secs(20), consumer.next()).await.unwrap().unwrap()
}

/// Ends the connection under a consumer, as the kernel does for a process that was killed.
async fn vanish(bus: &RabbitMq, consumer: Box<dyn Consumer>, held: Delivery) {
    let link = bus.shared.listening.to_receive(Instant::now() + Duration::from_secs(10)).await.unwrap();
    link.cut();
    // As if it had never been: nothing is told to the broker.
    std::mem::forget((consumer, held));
}

#[tokio::test]
async fn a_message_whose_consumers_vanish_is_set_aside_the_third_time() {
    let Some(place) = dev::rabbit() else { return };
    let sender = place.bus();
    drop(listen(&sender, 1).await);
    sender.publish(&host(), Bytes::from_static(b"deadly")).await.unwrap();
    for attempt in 1..=3 {
        let bus = place.bus();
        let mut there = listen(&bus, 1).await;
        let held = next(&mut *there).await;
        assert_eq!((&held.body()[..], held.attempt()), (&b"deadly"[..], attempt));
        vanish(&bus, there, held).await;
    }
    sender.publish(&host(), Bytes::from_static(b"good")).await.unwrap();
    assert_eq!(take(&mut *listen(&sender, 1).await).await, "good");
    let dead = sender.dead_letters().await.unwrap();
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(
        (&*dead[0].queue, &*dead[0].reason, &dead[0].body[..]),
        ("compute.a", "came back 3 times", &b"deadly"[..])
    );
}

#[tokio::test]
async fn what_was_received_and_not_handed_out_is_not_blamed() {
    let Some(place) = dev::rabbit() else { return };
    let bus = place.bus();
    drop(listen(&bus, 2).await);
    for text in ["1", "2", "3"] {
        bus.publish(&host(), Bytes::from_static(text.as_bytes())).await.unwrap();
    }
    for _ in 0..4 {
        let there = listen(&bus, 2).await;
        // Two are received by now, and none handed out.
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(there);
    }
    let mut there = listen(&bus, 2).await;
    let mut came = Vec::new();
    while came.len() < 3 {
        let delivery = next(&mut *there).await;
        came.push((String::from_utf8(delivery.body().to_vec()).unwrap(), delivery.attempt()));
        delivery.ack().await.unwrap();
    }
    came.sort();
    assert_eq!(came, [("1".to_owned(), 1), ("2".to_owned(), 1), ("3".to_owned(), 1)]);
    assert_eq!(bus.dead_letters().await.unwrap(), []);
}

#[tokio::test]
async fn a_message_of_somebody_else_is_counted_as_well() {
    let Some(place) = dev::rabbit() else { return };
    let bus = place.bus();
    let mut there = listen(&bus, 1).await;
    let other = channel(&bus).await;
    let (key, how) = ("compute.a".into(), BasicPublishOptions::default());
    let plain = BasicProperties::default();
    other.basic_publish("nova".into(), key, how, b"from python", plain).await.unwrap().await.unwrap();
    for attempt in 1..=3 {
        let delivery = next(&mut *there).await;
        assert_eq!((&delivery.body()[..], delivery.attempt()), (&b"from python"[..], attempt));
        drop(delivery);
    }
    bus.publish(&host(), Bytes::from_static(b"good")).await.unwrap();
    assert_eq!(take(&mut *there).await, "good");
    assert_eq!(bus.dead_letters().await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_newest_thousand_dead_letters_are_kept() {
    let Some(place) = dev::rabbit() else { return };
    let bus = place.bus();
    for n in 0..1_010 {
        bus.shared.dead.add(&bus.shared.sender, "compute.a", "why", n.to_string().as_bytes()).await.unwrap();
    }
    // Looking changes nothing.
    for _ in 0..2 {
        let dead = bus.dead_letters().await.unwrap();
        let numbers: Vec<_> = dead.iter().map(|letter| std::str::from_utf8(&letter.body).unwrap()).collect();
        let expected: Vec<String> = (10..1_010).map(|n: u32| n.to_string()).collect();
        assert_eq!(numbers, expected);
    }
}

#[tokio::test]
async fn a_queue_that_exists_is_used_as_it_is_and_says_when_it_is_full() {
    let Some(place) = dev::rabbit() else { return };
    let bus = place.bus();
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let mut short = FieldTable::default();
    short.insert("x-max-length".into(), AMQPValue::LongInt(1));
    short.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    channel(&bus).await.queue_declare("compute.a".into(), durable, short).await.unwrap();
    drop(listen(&bus, 1).await);
    bus.publish(&host(), Bytes::from_static(b"first")).await.unwrap();
    let refused = bus.publish(&host(), Bytes::from_static(b"second")).await;
    assert!(matches!(&refused, Err(BusError::Full(queue)) if queue == "compute.a"), "{refused:?}");
    assert_eq!(take(&mut *listen(&bus, 1).await).await, "first");
}

#[tokio::test]
async fn what_was_deleted_at_the_broker_is_made_again() {
    let Some(place) = dev::rabbit() else { return };
    let bus = place.bus();
    let mut there = listen(&bus, 1).await;
    bus.publish(&host(), Bytes::from_static(b"before")).await.unwrap();
    assert_eq!(take(&mut *there).await, "before");
    let operator = channel(&bus).await;
    operator.exchange_delete("nova".into(), Default::default()).await.unwrap();
    operator.queue_delete("compute.a".into(), Default::default()).await.unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    // The consumer is told that its queue is gone, and makes exchange, queue and binding.
    tokio::spawn(async move {
        assert_eq!(take(&mut *there).await, "after");
    });
    while bus.publish(&host(), Bytes::from_static(b"after")).await.is_err() {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn replies_go_only_to_queues_of_replies() {
    assert!(names::is_reply_queue(&names::reply_queue()));
    assert!(!names::is_reply_queue("compute.a"));
}
