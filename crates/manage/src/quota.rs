//! `nova-manage project quota`.

use anyhow::{Context as _, bail};
use nova_db::quotas;
use nova_types::ProjectId;
use nova_types::quota::Resource;

use crate::context::Context;

/// What gives a project the limit of the flags again.
const DEFAULT: &str = "default";

pub(crate) async fn run(
    cx: &mut Context<'_, '_>,
    project: &ProjectId,
    key: Option<&str>,
    value: Option<&str>,
) -> anyhow::Result<()> {
    if let Some(key) = key {
        let keys = Resource::ALL.map(Resource::key).join(", ");
        let resource = Resource::from_key(key).with_context(|| format!("no quota {key}; there are {keys}"))?;
        match value {
            None => bail!("what is the new limit of {key}? Give a number, or {DEFAULT}"),
            Some(DEFAULT) => quotas::set_limit(&mut cx.db.write().await?, project, resource, None).await?,
            Some(text) => {
                let limit = limit(text)?;
                quotas::set_limit(&mut cx.db.write().await?, project, resource, Some(limit)).await?;
            }
        }
    }
    let limits = quotas::limits(&mut cx.db.read().await?, project, &cx.config.api.quotas()).await?;
    for resource in Resource::ALL {
        cx.say(format_args!("{}: {}", resource.key(), limits.limit(resource)))?;
    }
    Ok(())
}

fn limit(text: &str) -> anyhow::Result<u32> {
    let fits = text.parse::<u32>().ok().filter(|n| i32::try_from(*n).is_ok());
    fits.with_context(|| format!("{text:?} is not a limit: expected a number from 0 to 2147483647, or {DEFAULT}"))
}
