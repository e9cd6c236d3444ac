//! What Nova costs: each bench is a file that prints medians, and ratios against a peer measured in the same run.
//!
//! `cargo bench -p nova-benches` runs all of them, `cargo bench -p nova-benches -- NAME` those whose name contains it.
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

mod choose;
mod client;
mod cloud;
mod combined;
mod describe_instances;
mod dhcp_hosts;
mod five_daemons;
mod fixed_addresses;
mod group_rows;
mod guest_firewall;
mod launches;
mod log;
mod measure;
mod process;
mod run_instances;
mod signatures;
mod start;
mod tenant;
mod xml;

use std::process::ExitCode;

use nova_config::{CombinedConfig, Config};

fn main() -> anyhow::Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let [role, flags @ ..] = &*args
        && role == combined::ROLE
    {
        let ended = runtime.block_on(combined::run(flags));
        return Ok(nova_service::finish(CombinedConfig::BINARY, ended));
    }
    match args.first().map(String::as_str) {
        Some(guest_firewall::GUEST) => return guest_firewall::be_guest().map(|()| ExitCode::SUCCESS),
        Some(guest_firewall::ROLE) => return runtime.block_on(guest_firewall::run()).map(|()| ExitCode::SUCCESS),
        _ => {}
    }
    if let [name, flags @ ..] = &*args
        && let Some(ended) = runtime.block_on(five_daemons::run_as(name, flags))
    {
        ended?;
        return Ok(ExitCode::SUCCESS);
    }
    if !args.iter().any(|arg| arg == "--bench") {
        println!("These take minutes and check nothing: run them with cargo bench.");
        return Ok(ExitCode::SUCCESS);
    }
    let wanted: Vec<&str> = args.iter().map(String::as_str).filter(|arg| !arg.starts_with('-')).collect();
    log::init()?;
    runtime.block_on(run_all(&wanted))?;
    Ok(ExitCode::SUCCESS)
}

async fn run_all(wanted: &[&str]) -> anyhow::Result<()> {
    let is_wanted = |name: &str| {
        let wanted = wanted.is_empty() || wanted.iter().any(|part| name.contains(part));
        if wanted {
            println!("\n{name}");
        }
        wanted
    };
    if is_wanted("signatures") {
        signatures::bench()?;
    }
    if is_wanted("xml") {
        xml::bench().await?;
    }
    if is_wanted("choose") {
        choose::bench();
    }
    if is_wanted("describe_instances") {
        describe_instances::bench().await?;
    }
    if is_wanted("run_instances") {
        run_instances::bench().await?;
    }
    if is_wanted("fixed_addresses") {
        fixed_addresses::bench().await?;
    }
    if is_wanted("dhcp_hosts") {
        dhcp_hosts::bench().await?;
    }
    if is_wanted("guest_firewall") {
        guest_firewall::bench().await?;
    }
    if is_wanted("five_daemons") {
        five_daemons::bench().await?;
    }
    if is_wanted("start") {
        start::bench().await?;
    }
    Ok(())
}
