//! Long operations as lists of steps. Each step can be done twice and undone, also when it was never done.

use async_trait::async_trait;
use tracing::debug;

use crate::problem::Problem;

/// One step. Both halves are idempotent, for either may run again after a crash.
#[async_trait]
pub(crate) trait Step<C>: Send + Sync {
    /// Names the step in logs.
    fn name(&self) -> &'static str;
    async fn act(&self, cx: &mut C) -> Result<(), Problem>;
    async fn undo(&self, cx: &mut C) -> Result<(), Problem>;
}

/// Does the steps in order, up to the first that fails.
pub(crate) async fn act<C: Send>(steps: &[&dyn Step<C>], cx: &mut C) -> Result<(), Problem> {
    for step in steps {
        debug!(step = step.name(), "Step {}.", step.name());
        step.act(cx).await?;
    }
    Ok(())
}

/// Undoes all steps, the last one first; up to the first that cannot be undone now.
pub(crate) async fn undo<C: Send>(steps: &[&dyn Step<C>], cx: &mut C) -> Result<(), Problem> {
    for step in steps.iter().rev() {
        debug!(step = step.name(), "Undoing step {}.", step.name());
        step.undo(cx).await?;
    }
    Ok(())
}
