//! Flags of the object store.

use std::net::IpAddr;

use super::flags;

flags! {
    "Object store"
    /// How the object store listens.
    ObjectstoreFlags {
        /// Address that the object store listens on.
        s3_listen_host: IpAddr = "0.0.0.0",
        /// Port that it listens on; 0 for any free one.
        s3_listen_port: u16 = "$s3_port",
    }
}
