//! What is long over is hidden.

use nova_db::{Db, client_tokens, instances};
use tracing::debug;

use crate::Outcome;

/// How long a terminated instance is shown.
const SHOWN_SECONDS: i32 = 3600;
/// How long a request is answered again instead of done again.
const TOKENS_SECONDS: i32 = 24 * 3600;

/// Hides instances an hour after their end, and forgets client tokens after a day.
pub(crate) async fn clean(db: &Db) -> Outcome<()> {
    let mut conn = db.write().await?;
    let instances = instances::expire(&mut conn, SHOWN_SECONDS).await?;
    let tokens = client_tokens::expire(&mut conn, TOKENS_SECONDS).await?;
    debug!(instances, tokens, "Hid what is long over.");
    Ok(())
}
