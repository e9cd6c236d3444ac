//! What is asked of this host. Only the console is answered; all else makes the daemon look at its rows.

use std::sync::Arc;

use async_trait::async_trait;
use nova_bus::Handler;
use nova_types::InstanceId;
use nova_wire::{ComputeCall, Context, Failure};
use serde_json::Value;

use crate::host::Host;

#[derive(Debug)]
pub(crate) struct Calls(pub(crate) Arc<Host>);

#[async_trait]
impl Handler for Calls {
    type Call = ComputeCall;

    async fn handle(&self, call: ComputeCall, _: &Context) -> Result<Value, Failure> {
        match call {
            ComputeCall::RunInstance { instance_ids }
            | ComputeCall::TerminateInstance { instance_ids }
            | ComputeCall::RebootInstance { instance_ids }
            | ComputeCall::StopInstance { instance_ids }
            | ComputeCall::StartInstance { instance_ids } => {
                self.0.desk.tell(instance_ids.into_iter().map(InstanceId::new));
                Ok(Value::Null)
            }
            ComputeCall::RefreshSecurityGroupRules { .. } | ComputeCall::RefreshSecurityGroupMembers { .. } => {
                if let Some(real) = &self.0.real {
                    real.groups.tell();
                }
                Ok(Value::Null)
            }
            ComputeCall::GetConsoleOutput { instance_id } => {
                let output = crate::console::console(&self.0, InstanceId::new(instance_id)).await?;
                serde_json::to_value(output).map_err(|error| Failure::new("ConsoleUnavailable", error.to_string()))
            }
        }
    }
}
