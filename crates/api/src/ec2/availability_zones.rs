//! `DescribeAvailabilityZones`, and its `verbose` form for administrators.

use nova_aws::{Filter, Filters, Params, Set, Timestamp};
use nova_db::{describe, services};
use nova_types::service::Service;
use serde::Serialize;

use super::regions;
use crate::{actions::Action, caller::Caller, cloud::Cloud, error::Error};

/// Lists the zones, or only those named.
///
/// The name `verbose` asks for every daemon on every host instead; to those who are not administrators it means nothing.
pub(crate) struct DescribeAvailabilityZones {
    names: Vec<String>,
    ids: Vec<String>,
    verbose: bool,
    filters: Filters<ZoneItem>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DescribeAvailabilityZonesResponse {
    availability_zone_info: Set<ZoneItem>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ZoneItem {
    zone_name: String,
    zone_state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region_name: Option<String>,
}

const FILTERS: &[Filter<ZoneItem>] = &[
    ("zone-name", |zone| vec![zone.zone_name.clone()]),
    ("zone-id", |zone| zone.zone_id.iter().cloned().collect()),
    ("state", |zone| vec![zone.zone_state.clone()]),
    ("region-name", |zone| zone.region_name.iter().cloned().collect()),
];

impl Action for DescribeAvailabilityZones {
    type Response = DescribeAvailabilityZonesResponse;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        params.flag("AllAvailabilityZones")?; // none of ours is ever switched off
        let mut names: Vec<String> = params.list("ZoneName")?;
        let asked = names.len();
        names.retain(|name| name != "verbose");
        Ok(Self {
            verbose: names.len() < asked,
            names,
            ids: params.list("ZoneId")?,
            filters: Filters::parse(params, FILTERS)?,
        })
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<DescribeAvailabilityZonesResponse, Error> {
        let down_after = cloud.config.common.service_down_time.as_secs().try_into().unwrap_or(i64::MAX);
        let services = describe!(cloud.db, &caller.names(), |conn| -> Error { Ok(services::list(conn).await?) })?;
        let zones = zones(&services, down_after, &regions::own(cloud));
        let wanted: Vec<String> = self.names.into_iter().chain(self.ids).collect();
        if let Some(unknown) = wanted.iter().find(|name| !zones.iter().any(|zone| zone.zone_name == **name)) {
            return Err(Error::NoSuchZone(unknown.clone()));
        }
        let named = |zone: &ZoneItem| wanted.is_empty() || wanted.contains(&zone.zone_name);
        let zones = zones.into_iter().filter(|zone| named(zone) && self.filters.admit(zone));
        let hosts = if self.verbose && caller.is_admin { hosts(&services, down_after) } else { Vec::new() };
        Ok(DescribeAvailabilityZonesResponse { availability_zone_info: zones.chain(hosts).collect() })
    }
}

/// The zones of compute hosts, by name. A zone is available while one of its hosts is alive and enabled.
fn zones(services: &[Service], down_after: i64, region: &str) -> Vec<ZoneItem> {
    let mut zones = std::collections::BTreeMap::<&str, bool>::new();
    for service in services.iter().filter(|service| service.topic == "compute") {
        let available = zones.entry(&service.availability_zone).or_default();
        *available |= !service.disabled && service.is_up(down_after);
    }
    let item = |(name, available): (&str, bool)| ZoneItem {
        zone_name: name.to_owned(),
        zone_id: Some(name.to_owned()), // a zone has one name for everybody here, so it serves as the id, too
        zone_state: if available { "available" } else { "unavailable" }.to_owned(),
        region_name: Some(region.to_owned()),
    };
    zones.into_iter().map(item).collect()
}

/// What old Nova printed as a tree: each host, and below it each daemon with a smile while it is alive.
fn hosts(services: &[Service], down_after: i64) -> Vec<ZoneItem> {
    let row = |zone_name, zone_state| ZoneItem { zone_name, zone_state, zone_id: None, region_name: None };
    let mut services: Vec<&Service> = services.iter().collect();
    services.sort_by(|a, b| (&a.host, &a.binary).cmp(&(&b.host, &b.binary)));
    let mut rows = Vec::new();
    for of_host in services.chunk_by(|a, b| a.host == b.host) {
        rows.push(row(format!("|- {}", of_host[0].host), String::new()));
        for service in of_host {
            let enabled = if service.disabled { "disabled" } else { "enabled" };
            let alive = if service.is_up(down_after) { ":-)" } else { "XXX" };
            let seen = service.updated_at.map_or_else(|| "None".to_owned(), |at| Timestamp(at).to_string());
            rows.push(row(format!("| |- {}", service.binary), format!("{enabled} {alive} {seen}")));
        }
    }
    rows
}

#[cfg(test)]
mod tests;
