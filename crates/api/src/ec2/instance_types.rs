//! `DescribeInstanceTypes`.

use nova_aws::{Filter, Filters, Page, Params, Set};
use nova_types::flavor::{FLAVORS, Flavor};
use serde::Serialize;

use crate::{actions::Action, caller::Caller, cloud::Cloud, error::Error};

/// Lists what an instance may be, smallest first, or only the types named.
pub(crate) struct DescribeInstanceTypes {
    names: Vec<String>,
    filters: Filters<Flavor>,
    page: Page<u32>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DescribeInstanceTypesResponse {
    instance_type_set: Set<InstanceTypeItem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InstanceTypeItem {
    instance_type: &'static str,
    current_generation: bool,
    free_tier_eligible: bool,
    bare_metal: bool,
    v_cpu_info: VcpuInfo,
    memory_info: MemoryInfo,
    instance_storage_supported: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_storage_info: Option<InstanceStorageInfo>,
    supported_usage_classes: Set<&'static str>,
    supported_root_device_types: Set<&'static str>,
    supported_virtualization_types: Set<&'static str>,
    burstable_performance_supported: bool,
}

#[derive(Serialize)]
struct VcpuInfo {
    #[serde(rename = "defaultVCpus")]
    vcpus: u32,
    #[serde(rename = "defaultCores")]
    cores: u32,
    #[serde(rename = "defaultThreadsPerCore")]
    threads_per_core: u32,
}

#[derive(Serialize)]
struct MemoryInfo {
    #[serde(rename = "sizeInMiB")]
    size_mib: u32,
}

#[derive(Serialize)]
struct InstanceStorageInfo {
    #[serde(rename = "totalSizeInGB")]
    total_size_gb: u32,
}

const FILTERS: &[Filter<Flavor>] = &[
    ("instance-type", |flavor| vec![flavor.name.to_owned()]),
    ("current-generation", |_| vec!["true".to_owned()]),
    ("free-tier-eligible", |_| vec!["false".to_owned()]),
    ("bare-metal", |_| vec!["false".to_owned()]),
    ("burstable-performance-supported", |_| vec!["false".to_owned()]),
    ("vcpu-info.default-vcpus", |flavor| vec![flavor.vcpus.to_string()]),
    ("vcpu-info.default-cores", |flavor| vec![flavor.vcpus.to_string()]),
    ("vcpu-info.default-threads-per-core", |_| vec!["1".to_owned()]),
    ("memory-info.size-in-mib", |flavor| vec![flavor.memory_mb.to_string()]),
    ("instance-storage-supported", |flavor| vec![has_storage(flavor).to_string()]),
    ("instance-storage-info.total-size-in-gb", |flavor| {
        has_storage(flavor).then(|| flavor.local_gb.to_string()).into_iter().collect()
    }),
    ("supported-usage-class", |_| vec!["on-demand".to_owned()]),
    ("supported-root-device-type", |_| vec!["instance-store".to_owned()]),
    ("supported-virtualization-type", |_| vec!["hvm".to_owned()]),
];

impl Action for DescribeInstanceTypes {
    type Response = DescribeInstanceTypesResponse;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        params.flag("IncludeUnsupportedInRegion")?; // there are no others
        Ok(Self {
            names: params.list("InstanceType")?,
            filters: Filters::parse(params, FILTERS)?,
            page: Page::parse(params, "DescribeInstanceTypes")?,
        })
    }

    async fn run(self, _: &Caller, _: &Cloud) -> Result<DescribeInstanceTypesResponse, Error> {
        if let Some(unknown) = self.names.iter().find(|name| Flavor::named(name).is_none()) {
            return Err(Error::NoSuchInstanceType(unknown.clone()));
        }
        let named = |flavor: &Flavor| self.names.is_empty() || self.names.iter().any(|name| name == flavor.name);
        let flavors = FLAVORS.into_iter().filter(|flavor| named(flavor) && self.filters.admit(flavor));
        let (part, next_token) = self.page.cut(flavors, |flavor| flavor.flavor_id);
        Ok(DescribeInstanceTypesResponse { instance_type_set: part.iter().map(item).collect(), next_token })
    }
}

fn item(flavor: &Flavor) -> InstanceTypeItem {
    InstanceTypeItem {
        instance_type: flavor.name,
        current_generation: true,
        free_tier_eligible: false,
        bare_metal: false,
        v_cpu_info: VcpuInfo { vcpus: flavor.vcpus, cores: flavor.vcpus, threads_per_core: 1 },
        memory_info: MemoryInfo { size_mib: flavor.memory_mb },
        instance_storage_supported: has_storage(flavor),
        instance_storage_info: has_storage(flavor).then_some(InstanceStorageInfo { total_size_gb: flavor.local_gb }),
        supported_usage_classes: vec!["on-demand"].into(),
        supported_root_device_types: vec!["instance-store"].into(),
        supported_virtualization_types: vec!["hvm"].into(),
        burstable_performance_supported: false,
    }
}

const fn has_storage(flavor: &Flavor) -> bool {
    flavor.local_gb > 0
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::testing::TestCloud;

    #[tokio::test]
    async fn a_type_is_described_as_todays_clients_read_it() {
        let cloud = TestCloud::start().await;
        expect![[r#"
            200
            <DescribeInstanceTypesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
              <instanceTypeSet>
                <item>
                  <instanceType>m1.small</instanceType>
                  <currentGeneration>true</currentGeneration>
                  <freeTierEligible>false</freeTierEligible>
                  <bareMetal>false</bareMetal>
                  <vCpuInfo>
                    <defaultVCpus>1</defaultVCpus>
                    <defaultCores>1</defaultCores>
                    <defaultThreadsPerCore>1</defaultThreadsPerCore>
                  </vCpuInfo>
                  <memoryInfo>
                    <sizeInMiB>2048</sizeInMiB>
                  </memoryInfo>
                  <instanceStorageSupported>true</instanceStorageSupported>
                  <instanceStorageInfo>
                    <totalSizeInGB>20</totalSizeInGB>
                  </instanceStorageInfo>
                  <supportedUsageClasses>
                    <item>on-demand</item>
                  </supportedUsageClasses>
                  <supportedRootDeviceTypes>
                    <item>instance-store</item>
                  </supportedRootDeviceTypes>
                  <supportedVirtualizationTypes>
                    <item>hvm</item>
                  </supportedVirtualizationTypes>
                  <burstablePerformanceSupported>false</burstablePerformanceSupported>
                </item>
              </instanceTypeSet>
            </DescribeInstanceTypesResponse>
        "#]]
        .assert_eq(&cloud.ann().call("DescribeInstanceTypes InstanceType.1=m1.small").await.pretty());
    }

    #[tokio::test]
    async fn types_are_chosen_by_name_and_filter_smallest_first() {
        let cloud = TestCloud::start().await;
        for (call, wanted) in [
            ("", vec!["m1.tiny", "m1.small", "m1.medium", "m1.large", "m1.xlarge"]),
            ("InstanceType.1=m1.large InstanceType.2=m1.tiny", vec!["m1.tiny", "m1.large"]),
            (
                "Filter.1.Name=instance-type Filter.1.Value.1=*.*l*e Filter.1.Value.2=m1.tiny",
                vec!["m1.tiny", "m1.large", "m1.xlarge"],
            ),
            ("Filter.1.Name=vcpu-info.default-vcpus Filter.1.Value.1=1", vec!["m1.tiny", "m1.small"]),
            ("Filter.1.Name=memory-info.size-in-mib Filter.1.Value.1=4096", vec!["m1.medium"]),
            ("Filter.1.Name=instance-storage-supported Filter.1.Value.1=false", vec!["m1.tiny"]),
            (
                "Filter.1.Name=instance-storage-info.total-size-in-gb Filter.1.Value.1=*0",
                vec!["m1.small", "m1.medium", "m1.large", "m1.xlarge"],
            ),
            ("Filter.1.Name=bare-metal Filter.1.Value.1=true", vec![]),
        ] {
            let answer = cloud.ann().call(&format!("DescribeInstanceTypes {call}")).await;
            assert_eq!(answer.texts("instanceType"), wanted, "{call}: {}", answer.body);
        }
    }

    #[tokio::test]
    async fn what_does_not_exist_is_refused() {
        let cloud = TestCloud::start().await;
        for (call, wanted) in [
            ("InstanceType.1=m9.huge", "400 InvalidInstanceType"),
            ("Filter.1.Name=colour Filter.1.Value.1=red", "400 InvalidParameterValue"),
            ("MaxResults=4", "400 InvalidParameterValue"),
            ("NextToken=x", "400 InvalidNextToken"),
        ] {
            let answer = cloud.ann().call(&format!("DescribeInstanceTypes {call}")).await;
            assert_eq!(answer.outcome(), wanted, "{call}");
        }
        let whole = cloud.ann().call("DescribeInstanceTypes MaxResults=5").await;
        assert_eq!((whole.texts("instanceType").len(), whole.text("nextToken")), (5, None));
    }
}
