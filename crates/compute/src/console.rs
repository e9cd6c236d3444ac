//! What a guest has written to its console.

use nova_types::InstanceId;
use nova_wire::{ConsoleOutput, Failure};
use tracing::warn;

use crate::host::Host;

/// As much as EC2 keeps.
const MAX_BYTES: usize = 64 << 10;

/// Reads the end of the console. A guest that has not booted yet has written nothing.
pub(crate) async fn console(host: &Host, id: InstanceId) -> Result<ConsoleOutput, Failure> {
    match host.hypervisor.console(id, MAX_BYTES).await {
        Ok(output) => Ok(ConsoleOutput { output, timestamp: host.clock.now() }),
        Err(error) => {
            warn!(instance.id = %id, error = %nova_service::chain(&error), "The console of {id} cannot be read.");
            Err(Failure::new("ConsoleUnavailable", "the console cannot be read now"))
        }
    }
}
