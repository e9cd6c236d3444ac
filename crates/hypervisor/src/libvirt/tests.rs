//! The driver against a scripted helper, and against a real libvirtd of its own where one can be had.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nova_run::Runner;
use nova_run::fake::Script;
use nova_types::InstanceId;

use super::{Libvirt, LibvirtOptions};
use crate::contract::spec;
use crate::protocol::{Ask, Domain, Outcome, Say, Verb};
use crate::{Accel, Change, CloudId, Guest, Hypervisor, HypervisorError, Power};

fn cloud() -> CloudId {
    CloudId::new("a")
}

fn libvirt(runner: impl Runner + 'static) -> Libvirt {
    let options = LibvirtOptions {
        helper: "nova-libvirt".into(),
        uri: "qemu:///system".to_owned(),
        accel: Accel::Emulation,
        cloud: cloud(),
        instances_path: "/i".into(),
    };
    Libvirt::new(Arc::new(runner), options)
}

fn answers(answer: impl Fn(Verb) -> Vec<Outcome> + Send + Sync + 'static) -> Script {
    Script::new().talks("nova-libvirt --uri=qemu:///system", move |line| {
        let ask: Ask = serde_json::from_str(line).unwrap();
        let says = answer(ask.verb).into_iter().map(|outcome| Say::Answer { id: ask.id, outcome });
        says.map(|say| serde_json::to_string(&say).unwrap()).collect()
    })
}

fn domain(number: u32, on: bool) -> Domain {
    let id = InstanceId::new(number);
    Domain { name: format!("instance-{number:08x}"), uuid: cloud().domain_uuid(id), on }
}

#[tokio::test]
async fn only_domains_with_our_mark_are_listed() {
    let foreign = Domain { name: "web".into(), uuid: "b1c0f3f5-0000-4000-8000-000000000001".into(), on: true };
    let other_cloud = Domain { uuid: CloudId::new("b").domain_uuid(InstanceId::new(3)), ..domain(3, true) };
    let domains = vec![domain(1, true), foreign, domain(2, false), other_cloud];
    let libvirt = libvirt(answers(move |_| vec![Outcome::Domains { domains: domains.clone() }]));
    let wanted = [(1, Power::On), (2, Power::Off)].map(|(n, power)| Guest { id: InstanceId::new(n), power });
    assert_eq!(libvirt.list().await.unwrap(), wanted);
}

#[tokio::test(start_paused = true)]
async fn could_not_ask_is_never_taken_for_an_answer() {
    let silent = libvirt(answers(|_| vec![]));
    let refused = libvirt(answers(|verb| match verb {
        Verb::List => vec![Outcome::CouldNotAsk { reason: "no socket".into() }],
        _ => vec![Outcome::Refused { reason: "no memory".into() }],
    }));
    let absent = libvirt(Script::new());
    let babbling = libvirt(Script::new().talks("nova-libvirt", |_| vec!["error: what?".to_owned()]));
    for (hypervisor, wanted) in [
        (&silent, "could not ask the hypervisor: no answer from libvirt within 15 s"),
        (&refused, "could not ask the hypervisor: no socket"),
        (&absent, "could not ask the hypervisor: nova-libvirt is not installed (looked in PATH)"),
        (
            &babbling,
            "could not ask the hypervisor: nova-libvirt ended: it does not speak our language: \
             expected value at line 1 column 1",
        ),
    ] {
        let error = hypervisor.list().await.unwrap_err();
        assert!(error.is_transient());
        assert_eq!(error.to_string(), wanted);
    }
    let error = refused.ensure_running(&spec(1, Path::new("/i"))).await.unwrap_err();
    assert!(matches!(&error, HypervisorError::Refused { .. }));
    assert_eq!(error.to_string(), "the hypervisor could not boot i-00000001: no memory");
}

#[tokio::test(start_paused = true)]
async fn a_helper_that_dies_is_started_again() {
    let script = Script::new().talks("nova-libvirt", |line| {
        let ask: Ask = serde_json::from_str(line).unwrap();
        let dies = ask.id == 2;
        let say = Say::Answer { id: ask.id, outcome: Outcome::Domains { domains: vec![] } };
        if dies { vec!["\u{0}".to_owned()] } else { vec![serde_json::to_string(&say).unwrap()] }
    });
    let libvirt = libvirt(script.clone());
    libvirt.list().await.unwrap();
    assert!(libvirt.list().await.unwrap_err().is_transient());
    tokio::time::sleep(Duration::from_secs(1)).await;
    libvirt.list().await.unwrap();
    assert_eq!(script.lines().len(), 2);
    assert_eq!(script.living().len(), 1);
    drop(libvirt);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(script.living(), []);
}

#[tokio::test(start_paused = true)]
async fn a_guest_is_asked_before_its_plug_is_pulled() {
    // Listens to the button at the third look.
    let looks = std::sync::atomic::AtomicU32::new(0);
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    let libvirt = libvirt(answers(move |verb| {
        noted.lock().unwrap().push(serde_json::to_value(&verb).unwrap()["do"].as_str().unwrap().to_owned());
        match verb {
            Verb::Look { .. } => {
                vec![Outcome::Power { on: Some(looks.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 2) }]
            }
            _ => vec![Outcome::Done],
        }
    }));
    libvirt.stop(InstanceId::new(1), Duration::from_secs(60)).await.unwrap();
    assert_eq!(asked.lock().unwrap().join(" "), "look press look look unplug");
    asked.lock().unwrap().clear();
    libvirt.stop(InstanceId::new(1), Duration::ZERO).await.unwrap();
    assert_eq!(asked.lock().unwrap().join(" "), "unplug");
}

#[tokio::test]
async fn changes_of_our_guests_are_heard() {
    let script = Script::new().talks("nova-libvirt", |_| {
        let foreign = Domain { name: "web".into(), uuid: "u".into(), on: false };
        [foreign, domain(5, false)]
            .map(|domain| serde_json::to_string(&Say::Changed { domain }).unwrap())
            .into_iter()
            .collect()
    });
    let libvirt = libvirt(script);
    let mut events = libvirt.events();
    let (heard, _) = tokio::join!(events.recv(), tokio::time::timeout(Duration::from_millis(50), libvirt.list()));
    assert_eq!(heard.unwrap(), Change { id: InstanceId::new(5), power: Power::Off });
}
