//! The EC2 actions, one file per kind of resource: the request, how it is read and done, the answer, tests.

pub(crate) mod addresses;
pub(crate) mod availability_zones;
pub(crate) mod images;
pub(crate) mod instance_types;
pub(crate) mod instances;
pub(crate) mod key_pairs;
pub(crate) mod regions;
pub(crate) mod security_groups;
