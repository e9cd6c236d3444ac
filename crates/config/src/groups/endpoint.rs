//! Under which addresses the services are known.

use std::time::Duration;

use super::flags;
use crate::Region;
use crate::known::Flag;
use crate::value::Kind;

flags! {
    "Addresses of services"
    /// What clients and guests are told.
    EndpointFlags {
        /// Host of the EC2 API as clients see it.
        ec2_host: String = "$my_ip",
        /// Host of the EC2 API and of metadata as guests and other hosts see it.
        ec2_dmz_host: String = "$my_ip",
        /// Port of the EC2 API.
        ec2_port: u16 = "8773" ["cc_port"],
        /// Scheme of the EC2 API.
        ec2_scheme: String = "http",
        /// Path of the EC2 API.
        ec2_path: String = "/services/Cloud",
        /// Host of the object store as clients see it.
        s3_host: String = "$my_ip",
        /// Port of the object store.
        s3_port: u16 = "3333",
        /// Host of the object store as guests and other hosts see it.
        s3_dmz: String = "$my_ip",
        /// Regions as NAME=HOST, with commas; empty for one region.
        region_list: Vec<Region> = "",
        /// How long a client may use an answer about credentials before it asks again.
        credential_cache: Duration = "5",
    }
}

/// Flags of the guide that stand for others; `Settings::translate_former` reads them.
pub(crate) const FORMER: &[Flag] = &[
    Flag {
        name: "cc_host",
        aliases: &[],
        kind: Kind::Value("HOST"),
        default: "$my_ip",
        help: "Same as --ec2_host and --ec2_dmz_host",
        heading: "Addresses of services",
    },
    Flag {
        name: "ec2_url",
        aliases: &[],
        kind: Kind::Value("URL"),
        default: "$ec2_scheme://$ec2_host:$ec2_port$ec2_path",
        help: "Same as --ec2_scheme, --ec2_host, --ec2_dmz_host, --ec2_port and --ec2_path together",
        heading: "Addresses of services",
    },
];
