//! Long operations as lists of steps. Each step can be done twice and undone, also when it was never done.

use async_trait::async_trait;
use nova_failpoint::{Point, hit};
use tracing::debug;

use crate::problem::Problem;

/// One step. Both halves are idempotent, for either may run again after a crash.
#[async_trait]
pub(crate) trait Step<C>: Send + Sync {
    /// Names the step in logs.
    fn name(&self) -> &'static str;
    /// Where tests end the process: before and after doing it, before and after undoing it.
    fn points(&self) -> [Point; 4];
    async fn act(&self, cx: &mut C) -> Result<(), Problem>;
    async fn undo(&self, cx: &mut C) -> Result<(), Problem>;
}

/// Does the steps in order, up to the first that fails.
pub(crate) async fn act<C: Send>(steps: &[&dyn Step<C>], cx: &mut C) -> Result<(), Problem> {
    for step in steps {
        debug!(step = step.name(), "Step {}.", step.name());
        let [before, after, ..] = step.points();
        hit(before);
        step.act(cx).await?;
        hit(after);
    }
    Ok(())
}

/// Undoes all steps, the last one first; up to the first that cannot be undone now.
pub(crate) async fn undo<C: Send>(steps: &[&dyn Step<C>], cx: &mut C) -> Result<(), Problem> {
    for step in steps.iter().rev() {
        debug!(step = step.name(), "Undoing step {}.", step.name());
        let [.., before, after] = step.points();
        hit(before);
        step.undo(cx).await?;
        hit(after);
    }
    Ok(())
}
