//! Brokers that are dead, mute, full, killed, elsewhere, or not who they say.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nova_wire::MessageId;
use tokio_util::sync::CancellationToken;

use super::super::RabbitMq;
use super::{host, listen, take};
use crate::bus::{Bus as _, Subscription};
use crate::dev::{self, OwnRabbit, Special};
use crate::error::BusError;

const AT_ONCE: Duration = Duration::from_millis(100);

/// A port where nobody is.
fn closed_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

#[track_caller]
fn unavailable<T: std::fmt::Debug>(outcome: &Result<T, BusError>) {
    assert!(matches!(outcome, Err(BusError::Unavailable(Some(_)))), "{outcome:?}");
}

/// Publishes until it succeeds.
async fn publish(bus: &RabbitMq, body: &str) {
    let until = Instant::now() + Duration::from_secs(60);
    while let Err(error) = bus.publish(&host(), Bytes::copy_from_slice(body.as_bytes())).await {
        assert!(Instant::now() < until, "{error:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn without_a_broker_everything_is_refused_at_once() {
    let arguments = [format!("--rabbit_host=127.0.0.1:{0},localhost:{0}", closed_port())];
    let bus = RabbitMq::open(dev::options(&arguments));
    // The first tries are waited for, and take as long as a refused connection.
    unavailable(&bus.publish(&host(), Bytes::new()).await);
    let begun = Instant::now();
    for _ in 0..10 {
        unavailable(&bus.publish(&host(), Bytes::new()).await);
        unavailable(&bus.call(&host(), &MessageId::random(), Bytes::new(), Duration::from_secs(60)).await);
        let wanted = Subscription { topic: nova_wire::Topic::Compute, host: "a".into(), prefetch: 1 };
        unavailable(&bus.consume(&wanted).await.map(drop));
        unavailable(&bus.dead_letters().await);
    }
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_broker_that_says_nothing_holds_nobody_up() {
    let mute = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let arguments = [format!("--rabbit_host={}", mute.local_addr().unwrap())];
    let bus = RabbitMq::open(dev::options(&arguments));
    let (mut caller, _) = mute.accept().await.unwrap();
    let begun = Instant::now();
    unavailable(&bus.publish(&host(), Bytes::new()).await);
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
    let begun = Instant::now();
    unavailable(&bus.publish(&host(), Bytes::new()).await);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    // The try was not left behind: its socket is closed, and with it the thread that lapin gave it.
    let mut said = Vec::new();
    let ended = tokio::io::AsyncReadExt::read_to_end(&mut caller, &mut said);
    tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap().unwrap();
    assert!(said.starts_with(b"AMQP"), "{said:?}");
}

#[tokio::test]
async fn the_first_broker_that_answers_is_used() {
    let Some(place) = dev::rabbit() else { return };
    let arguments = place.arguments();
    let live = arguments[0].strip_prefix("--rabbit_host=").unwrap();
    let hosts = format!("--rabbit_host=127.0.0.1:{},no-such-host.invalid,{live}", closed_port());
    let bus = RabbitMq::open(place.options(&[&hosts, "--rabbit_quorum_queues=no"]));
    let mut there = listen(&bus, 1).await;
    bus.publish(&host(), Bytes::from_static(b"hello")).await.unwrap();
    assert_eq!(take(&mut *there).await, "hello");
}

#[tokio::test]
async fn a_wrong_password_is_told() {
    let Some(place) = dev::rabbit() else { return };
    let bus = RabbitMq::open(place.options(&["--rabbit_password=wrong"]));
    let refused = bus.publish(&host(), Bytes::new()).await.unwrap_err();
    let told = crate::serve::chain(&refused);
    assert!(told.contains("ACCESS_REFUSED"), "{told}");
}

#[tokio::test]
async fn a_bus_that_nobody_needs_leaves_the_broker() {
    let Some(place) = dev::rabbit() else { return };
    let bus = place.bus();
    let there = listen(&bus, 1).await;
    let link = bus.shared.listening.to_receive(tokio::time::Instant::now()).await.unwrap();
    let channel = link.channel().await.unwrap();
    drop((bus, there));
    let begun = Instant::now();
    while channel.status().connected() {
        assert!(begun.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_without_disk_is_not_waited_for() {
    let Some(broker) = start("full", Special { full_disk: true, ..Special::default() }).await else { return };
    let bus = broker.place().bus();
    // Listening still works.
    let mut there = listen(&bus, 1).await;
    // The broker says so to whoever sends, and may take the first message still.
    let begun = Instant::now();
    let mut sent = 0;
    while sent < 10 && bus.publish(&host(), Bytes::from_static(b"hello")).await.is_ok() {
        sent += 1;
    }
    assert!(sent < 10 && begun.elapsed() < Duration::from_secs(6), "{sent} in {:?}", begun.elapsed());
    let begun = Instant::now();
    unavailable(&bus.publish(&host(), Bytes::new()).await);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    for _ in 0..sent {
        assert_eq!(take(&mut *there).await, "hello");
    }
}

async fn start(name: &'static str, special: Special<'static>) -> Option<OwnRabbit> {
    tokio::task::spawn_blocking(move || OwnRabbit::start(name, special)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_confirmed_message_is_lost_when_the_broker_is_killed_under_load() {
    let Some(broker) = start("killed", Special::default()).await else { return };
    let (sender, receiver) = (broker.place().bus(), broker.place().bus());
    let mut there = listen(&receiver, 8).await;
    a_broker_that_hangs_holds_up_one_message(&broker, &sender).await;
    let (stop, done) = (CancellationToken::new(), CancellationToken::new());
    let senders: Vec<_> = (0..4)
        .map(|sender_number| {
            let (bus, stop) = (sender.clone(), stop.clone());
            tokio::spawn(async move {
                let (mut confirmed, mut refused) = (Vec::new(), 0);
                for n in 0.. {
                    let text = format!("{sender_number}-{n}");
                    match bus.publish(&host(), Bytes::from(text.clone())).await {
                        Ok(()) => confirmed.push(text),
                        Err(BusError::Unavailable(_)) => {
                            refused += 1;
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                        Err(other) => panic!("{other:?}"),
                    }
                    if stop.is_cancelled() {
                        break;
                    }
                }
                (confirmed, refused)
            })
        })
        .collect();
    let taken = tokio::spawn({
        let done = done.clone();
        async move {
            let mut came = BTreeSet::new();
            loop {
                let delivery = tokio::select! {
                    () = done.cancelled() => break came,
                    delivery = there.next() => delivery.unwrap(),
                };
                came.insert(String::from_utf8(delivery.body().to_vec()).unwrap());
                // Where that fails, it comes again.
                let _ = delivery.ack().await;
            }
        }
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    let broker = tokio::task::spawn_blocking(move || {
        broker.kill();
        broker.start_again();
        broker
    })
    .await
    .unwrap();
    // Everybody comes back by themselves.
    publish(&sender, "back").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.cancel();
    let (mut confirmed, mut refused) = (Vec::new(), 0);
    for sender in senders {
        let (texts, errors) = sender.await.unwrap();
        confirmed.extend(texts);
        refused += errors;
    }
    publish(&sender, "last").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    done.cancel();
    let came = taken.await.unwrap();
    assert!(refused > 0 && confirmed.len() > 100, "there was no load: {} sent, {refused} refused", confirmed.len());
    let lost: Vec<_> = confirmed.iter().filter(|text| !came.contains(*text)).collect();
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), confirmed.len());
    assert!(came.contains("last"));
    assert_eq!(receiver.dead_letters().await.unwrap(), []);
    drop(broker);
}

async fn a_broker_that_hangs_holds_up_one_message(broker: &OwnRabbit, sender: &RabbitMq) {
    publish(sender, "before").await;
    broker.pause();
    let begun = Instant::now();
    unavailable(&sender.publish(&host(), Bytes::from_static(b"hanging")).await);
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
    tokio::time::sleep(AT_ONCE).await;
    let begun = Instant::now();
    unavailable(&sender.publish(&host(), Bytes::from_static(b"refused")).await);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    broker.resume();
    publish(sender, "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_asks_who_the_broker_is_and_who_says_so() {
    let (ca, certificate, key) = certificates();
    let (_, stranger, _) = certificates();
    let special = (certificate, key);
    let broker = tokio::task::spawn_blocking(move || {
        OwnRabbit::start("tls", Special { tls: Some((&special.0, &special.1)), ..Special::default() })
    });
    let Some(broker) = broker.await.unwrap() else { return };
    let file = |name: &str, text: &str| {
        let path = std::env::temp_dir().join(format!("nova-bus-{name}-{}.pem", std::process::id()));
        std::fs::write(&path, text).unwrap();
        path
    };
    let (ours, theirs) = (file("ours", &ca), file("theirs", &stranger));
    let bus = |host: &str, trusted: &std::path::Path| {
        let place = format!("--rabbit_host={host}:{}", broker.port());
        let trusted = format!("--rabbit_ca_file={}", trusted.display());
        RabbitMq::open(broker.place().options(&[&place, "--rabbit_use_ssl", &trusted]))
    };
    let good = bus("localhost", &ours);
    let mut there = listen(&good, 1).await;
    good.publish(&host(), Bytes::from_static(b"secret")).await.unwrap();
    assert_eq!(take(&mut *there).await, "secret");
    // The certificate names localhost only; and another authority is not trusted.
    for wrong in [bus("127.0.0.1", &ours), bus("localhost", &theirs)] {
        let refused = wrong.publish(&host(), Bytes::new()).await.unwrap_err();
        let told = crate::serve::chain(&refused);
        assert!(told.contains("certificate"), "{told}");
    }
    std::fs::remove_file(ours).unwrap();
    std::fs::remove_file(theirs).unwrap();
}

/// An authority, and a certificate with its key that it signed for `localhost`.
fn certificates() -> (String, String, String) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = rcgen::CertifiedIssuer::self_signed(ca, ca_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &ca).unwrap();
    (ca.pem(), leaf.pem(), key.serialize_pem())
}
