//! Flags of the EC2 API.

use std::net::IpAddr;

use nova_types::quota::Quotas;

use super::flags;

flags! {
    "EC2 API"
    /// How the API listens, whom it trusts, what it allows.
    ApiFlags {
        /// Address to listen on.
        ec2_listen: IpAddr = "0.0.0.0",
        /// Port to listen on; 0 for any free one.
        ec2_listen_port: u16 = "$ec2_port",
        /// Take the client's address from X-Forwarded-For, if a trusted proxy sent it.
        use_forwarded_for: bool = "false",
        /// Addresses of proxies whose X-Forwarded-For is believed, with commas.
        trusted_proxies: Vec<IpAddr> = "",
        /// Accept signatures of version 0 and 1, which do not protect what is asked.
        allow_signature_v1: bool = "false",
        /// After how many wrong signatures an access key is locked.
        lockout_attempts: u32 = "5",
        /// For how many minutes it is locked.
        lockout_minutes: u32 = "15",
        /// Within how many minutes wrong signatures are counted.
        lockout_window: u32 = "15",
        /// Instance type of those who name none.
        default_instance_type: String = "m1.small",
        /// Kernel id that means an image boots by itself.
        null_kernel: String = "nokernel",
        /// Machine image with an OpenVPN server, for the VPNs of projects [default: there is none].
        vpn_image_id: Option<String> = "",
        /// Ends the names of the key pairs and security groups of these VPNs.
        vpn_key_suffix: String = "-vpn",
        /// Instances that a project may have.
        quota_instances: u32 = "10",
        /// Virtual processors that a project may have.
        quota_cores: u32 = "20",
        /// Volumes that a project may have.
        quota_volumes: u32 = "10",
        /// GiB that the volumes of a project may have.
        quota_gigabytes: u32 = "1000",
        /// Public addresses that a project may have.
        quota_floating_ips: u32 = "10",
    }
}

impl ApiFlags {
    /// What a project may have whose own limits are not set.
    pub fn quotas(&self) -> Quotas {
        Quotas {
            instances: self.quota_instances,
            cores: self.quota_cores,
            volumes: self.quota_volumes,
            gigabytes: self.quota_gigabytes,
            floating_ips: self.quota_floating_ips,
        }
    }
}
