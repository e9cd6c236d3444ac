//! Instance types, which Nova also calls flavors.

/// What an instance of one type gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flavor {
    /// The name users give: `m1.small`.
    pub name: &'static str,
    /// The number the OpenStack API used.
    pub flavor_id: u32,
    /// Memory in MiB.
    pub memory_mb: u32,
    /// Virtual processors.
    pub vcpus: u32,
    /// Disk beside the root disk, in GiB.
    pub local_gb: u32,
}

/// The five types of old Nova (nova-core §5.3), smallest first.
pub const FLAVORS: [Flavor; 5] = [
    Flavor { name: "m1.tiny", flavor_id: 1, memory_mb: 512, vcpus: 1, local_gb: 0 },
    Flavor { name: "m1.small", flavor_id: 2, memory_mb: 2048, vcpus: 1, local_gb: 20 },
    Flavor { name: "m1.medium", flavor_id: 3, memory_mb: 4096, vcpus: 2, local_gb: 40 },
    Flavor { name: "m1.large", flavor_id: 4, memory_mb: 8192, vcpus: 4, local_gb: 80 },
    Flavor { name: "m1.xlarge", flavor_id: 5, memory_mb: 16384, vcpus: 8, local_gb: 160 },
];

impl Flavor {
    /// Finds the type called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        FLAVORS.iter().find(|flavor| flavor.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_found_by_its_exact_name() {
        assert_eq!(Flavor::named("m1.small").map(|f| f.memory_mb), Some(2048));
        assert_eq!(Flavor::named("M1.small"), None);
    }
}
