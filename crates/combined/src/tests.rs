//! What is decided before the daemons run; the daemons together are tested by `tests/`.

use nova_config::{Config, Surroundings};

use super::*;

fn config(flags: &[&str]) -> CombinedConfig {
    let args = [CombinedConfig::BINARY].iter().chain(flags).map(Into::into);
    CombinedConfig::load_in(args, &Surroundings::bare()).unwrap().config
}

#[tokio::test]
async fn a_file_gets_its_schema_and_a_shared_database_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let flag = format!("--sql_connection=sqlite:///{}/nova.sqlite", folder.path().display());
    let db = parts::database(&config(&[&flag]).database).await.unwrap();
    assert_eq!(db.version().await.unwrap(), nova_db::SCHEMA_VERSION);
    // Nobody is there; it was not asked.
    parts::database(&config(&["--sql_connection=mysql://nova:x@127.0.0.1:1/nova"]).database).await.unwrap();
}
