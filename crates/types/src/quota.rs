//! How much a project may have.

/// A countable thing that quotas limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Instances that are not terminated.
    Instances,
    /// The virtual processors of those instances.
    Cores,
    /// Volumes.
    Volumes,
    /// The sizes of those volumes, in GiB.
    Gigabytes,
    /// Public addresses.
    FloatingIps,
}

impl Resource {
    /// Every resource, in the order `nova-manage project quota` prints them.
    pub const ALL: [Self; 5] = [Self::Instances, Self::Cores, Self::Volumes, Self::Gigabytes, Self::FloatingIps];

    /// Returns the resource's column and key: `floating_ips`.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Instances => "instances",
            Self::Cores => "cores",
            Self::Volumes => "volumes",
            Self::Gigabytes => "gigabytes",
            Self::FloatingIps => "floating_ips",
        }
    }

    /// Finds the resource with that key.
    #[must_use]
    pub fn from_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource| resource.key() == key)
    }
}

/// The limits of one project. The defaults are old Nova's flags `quota_*` (nova-api §11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// See [`Resource::Instances`].
    pub instances: u32,
    /// See [`Resource::Cores`].
    pub cores: u32,
    /// See [`Resource::Volumes`].
    pub volumes: u32,
    /// See [`Resource::Gigabytes`].
    pub gigabytes: u32,
    /// See [`Resource::FloatingIps`].
    pub floating_ips: u32,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { instances: 10, cores: 20, volumes: 10, gigabytes: 1000, floating_ips: 10 }
    }
}

impl Quotas {
    /// Returns the limit of one resource.
    #[must_use]
    pub const fn limit(&self, resource: Resource) -> u32 {
        match resource {
            Resource::Instances => self.instances,
            Resource::Cores => self.cores,
            Resource::Volumes => self.volumes,
            Resource::Gigabytes => self.gigabytes,
            Resource::FloatingIps => self.floating_ips,
        }
    }

    /// Replaces the limit of one resource.
    pub const fn set(&mut self, resource: Resource, limit: u32) {
        match resource {
            Resource::Instances => self.instances = limit,
            Resource::Cores => self.cores = limit,
            Resource::Volumes => self.volumes = limit,
            Resource::Gigabytes => self.gigabytes = limit,
            Resource::FloatingIps => self.floating_ips = limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_has_its_own_limit() {
        let mut quotas = Quotas::default();
        for (n, resource) in (1..).zip(Resource::ALL) {
            quotas.set(resource, n);
        }
        let limits: Vec<u32> = Resource::ALL.into_iter().map(|resource| quotas.limit(resource)).collect();
        assert_eq!(limits, [1, 2, 3, 4, 5]);
        assert_eq!(Resource::from_key("floating_ips"), Some(Resource::FloatingIps));
    }
}
