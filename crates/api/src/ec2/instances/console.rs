//! `GetConsoleOutput`.

use std::time::Duration;

use base64::Engine as _;
use nova_aws::{Params, Timestamp};
use nova_db::instances;
use nova_types::InstanceId;
use nova_wire::{ComputeCall, ConsoleOutput};
use serde::Serialize;

use crate::{actions::Action, caller::Caller, cloud::Cloud, error::Error};

/// How long a compute host may take to read a console.
const DEADLINE: Duration = Duration::from_secs(5);

/// Reads the last of what a guest wrote to its serial console.
#[derive(Debug)]
pub(crate) struct GetConsoleOutput(InstanceId);

/// The answer to [`GetConsoleOutput`]: base64, as EC2 has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GetConsoleOutputResponse {
    instance_id: String,
    timestamp: Timestamp,
    output: String,
}

impl Action for GetConsoleOutput {
    type Response = GetConsoleOutputResponse;

    /// The id comes alone, or as a list of one, as boto sends it.
    fn parse(params: &mut Params) -> Result<Self, Error> {
        params.flag("Latest")?;
        match params.list("InstanceId")?.as_slice() {
            [id] => Ok(Self(*id)),
            [] => Err(params.missing("InstanceId").into()),
            [_, second, ..] => Err(params.malformed("InstanceId", second, "one instance at a time").into()),
        }
    }

    /// Asks the compute host. An instance that no host has made yet, or that is over, has an empty console.
    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<GetConsoleOutputResponse, Error> {
        let mut conn = cloud.db.read().await?;
        let found = instances::describe(&mut conn, caller.scope(), &[self.0]).await?;
        drop(conn);
        let instance = found.into_iter().next().ok_or(Error::NoSuchInstance(self.0))?.instance;
        let console = match instance.host {
            Some(host) if !instance.state.vm.is_over() => {
                let call = ComputeCall::GetConsoleOutput { instance_id: self.0.number() };
                let asked = cloud.bus.call_compute(host.as_str(), call, DEADLINE).await;
                asked.map_err(|source| Error::Console { instance: self.0, source })?
            }
            _ => ConsoleOutput { output: Vec::new(), timestamp: cloud.clock.now() },
        };
        Ok(GetConsoleOutputResponse {
            instance_id: self.0.to_string(),
            timestamp: Timestamp(console.timestamp),
            output: base64::engine::general_purpose::STANDARD.encode(console.output),
        })
    }
}
