//! A handler that does as the message says, served in memory.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use expect_test::expect;
use nova_wire::{Address, ComputeCall, Context, Failure, Topic};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Handler, chain, serve};
use crate::{Bus, BusError, Faults, InProcess, Subscription, dev};

/// Instance 1 works, 2 fails, 3 panics, 4 takes ten seconds.
#[derive(Default)]
struct Compute {
    seen: Mutex<Vec<u32>>,
    done: AtomicU32,
    at_once: AtomicU32,
    most_at_once: AtomicU32,
}

#[async_trait]
impl Handler for Compute {
    type Call = ComputeCall;

    async fn handle(&self, call: ComputeCall, _: &Context) -> Result<Value, Failure> {
        let id = match call {
            ComputeCall::RunInstance { instance_ids } => instance_ids[0],
            ComputeCall::GetConsoleOutput { instance_id } => instance_id,
            other => return Err(Failure::new("Unexpected", format!("{other:?}"))),
        };
        self.seen.lock().unwrap().push(id);
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        if id == 4 {
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        match id {
            2 => return Err(Failure::new("NotFound", "no instance i-00000002")),
            3 => panic!("three"),
            _ => {}
        }
        self.done.fetch_add(1, Ordering::SeqCst);
        Ok(json!(id))
    }
}

struct Served {
    bus: Arc<dyn Bus>,
    compute: Arc<Compute>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), BusError>>,
}

impl Served {
    async fn start(prefetch: u16) -> Self {
        Self::start_on(Arc::new(InProcess::new()), prefetch).await
    }

    async fn start_on(bus: Arc<dyn Bus>, prefetch: u16) -> Self {
        let wanted = Subscription { topic: Topic::Compute, host: "a".into(), prefetch };
        let (compute, stop) = (Arc::new(Compute::default()), CancellationToken::new());
        let task = tokio::spawn(serve(Arc::clone(&bus), wanted, Arc::clone(&compute), stop.clone()));
        // Its first step is to listen.
        tokio::task::yield_now().await;
        Self { bus, compute, stop, task }
    }

    async fn run(&self, id: u32) {
        self.bus.cast_compute("a", ComputeCall::RunInstance { instance_ids: vec![id] }).await.unwrap();
    }

    async fn ask(&self, id: u32) -> Result<u32, BusError> {
        let call = ComputeCall::GetConsoleOutput { instance_id: id };
        self.bus.call_compute("a", call, Duration::from_secs(30)).await
    }

    async fn dead(&self) -> Vec<String> {
        self.bus.dead_letters().await.unwrap().into_iter().map(|letter| letter.reason).collect()
    }

    async fn stop(self) -> Arc<Compute> {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
        self.compute
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_answered_with_the_result_or_the_failure() {
    let served = Served::start(4).await;
    assert_eq!(served.ask(1).await.unwrap(), 1);
    expect!["compute.a refused: NotFound: no instance i-00000002"].assert_eq(&chain(&served.ask(2).await.unwrap_err()));
    assert_eq!(served.dead().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_cast_that_fails_is_tried_three_times_and_others_go_on() {
    for bad in [2, 3] {
        let served = Served::start(1).await;
        served.run(bad).await;
        served.run(1).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(served.dead().await, ["came back 3 times"]);
        let compute = served.stop().await;
        assert_eq!(*compute.seen.lock().unwrap(), [bad, bad, bad, 1]);
    }
}

#[tokio::test(start_paused = true)]
async fn nonsense_is_set_aside_once_its_caller_told_and_the_next_message_handled() {
    nonsense(Served::start(1).await).await;
}

#[tokio::test]
async fn a_broker_sets_nonsense_aside_as_well() {
    let Some(place) = dev::rabbit() else { return };
    let bus = place.bus();
    // That the queue is there.
    drop(bus.consume(&Subscription { topic: Topic::Compute, host: "a".into(), prefetch: 1 }).await.unwrap());
    nonsense(Served::start_on(Arc::new(bus), 1).await).await;
}

async fn nonsense(served: Served) {
    let to = Address::Host(Topic::Compute, "a".into());
    for body in ["{", r#"{"args": {}}"#, r#"{"method": "run_instance", "args": {"instance_ids": "x"}}"#] {
        served.bus.publish(&to, Bytes::from_static(body.as_bytes())).await.unwrap();
    }
    let id = nova_wire::MessageId::random();
    let body = Bytes::from(format!(r#"{{"method": "kill", "_msg_id": "{id}"}}"#));
    let answer = served.bus.call(&to, &id, body, Duration::from_secs(5)).await.unwrap();
    expect![[r#"{"failure":["BadMessage","compute has no method \"kill\"",[]],"result":null}"#]]
        .assert_eq(std::str::from_utf8(&answer).unwrap());
    assert_eq!(served.ask(1).await.unwrap(), 1);
    expect![[r#"
        the message is not an envelope: EOF while parsing an object at line 1 column 1
        the message names no method
        the arguments of run_instance do not fit: invalid type: string "x", expected u32
        compute has no method "kill""#]]
    .assert_eq(&served.dead().await.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn work_goes_on_at_once_up_to_the_prefetch() {
    let served = Served::start(3).await;
    for _ in 0..7 {
        served.run(4).await;
    }
    tokio::time::sleep(Duration::from_secs(31)).await;
    let compute = served.stop().await;
    assert_eq!((compute.done.load(Ordering::SeqCst), compute.most_at_once.load(Ordering::SeqCst)), (7, 3));
}

#[tokio::test(start_paused = true)]
async fn what_was_begun_is_finished_at_a_stop_and_the_rest_waits_for_the_next_start() {
    let served = Served::start(1).await;
    served.run(4).await;
    served.run(1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let bus = Arc::clone(&served.bus);
    let compute = served.stop().await;
    assert_eq!(*compute.seen.lock().unwrap(), [4]);
    assert_eq!(compute.done.load(Ordering::SeqCst), 1);

    let wanted = Subscription { topic: Topic::Compute, host: "a".into(), prefetch: 1 };
    let mut again = bus.consume(&wanted).await.unwrap();
    let left = again.next().await.unwrap();
    assert!(
        std::str::from_utf8(left.body())
            .unwrap()
            .starts_with(r#"{"method":"run_instance","args":{"instance_ids":[1]}"#)
    );
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_away_is_waited_for_and_a_stop_does_not_wait_for_it() {
    let broker = InProcess::new();
    broker.misbehave(Faults { away: true, ..Faults::default() });
    let bus: Arc<dyn Bus> = Arc::new(broker.clone());
    let wanted = Subscription { topic: Topic::Compute, host: "a".into(), prefetch: 1 };
    let (compute, stop) = (Arc::new(Compute::default()), CancellationToken::new());
    let begin = || tokio::spawn(serve(Arc::clone(&bus), wanted.clone(), Arc::clone(&compute), stop.clone()));
    let task = begin();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!task.is_finished());
    broker.misbehave(Faults::default());
    tokio::time::sleep(Duration::from_secs(2)).await;
    bus.cast_compute("a", ComputeCall::RunInstance { instance_ids: vec![1] }).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(compute.done.load(Ordering::SeqCst), 1);

    broker.misbehave(Faults { away: true, ..Faults::default() });
    let never_listened = begin();
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.cancel();
    task.await.unwrap().unwrap();
    never_listened.await.unwrap().unwrap();
}
