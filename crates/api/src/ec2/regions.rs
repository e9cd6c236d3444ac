//! `DescribeRegions`.

use nova_aws::{Filter, Filters, Params, Set};
use nova_config::{EndpointFlags, Region};
use serde::Serialize;

use crate::{actions::Action, caller::Caller, cloud::Cloud, error::Error};

/// Lists the regions, each a Nova of its own, or only those named.
pub(crate) struct DescribeRegions {
    names: Vec<String>,
    filters: Filters<RegionItem>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DescribeRegionsResponse {
    region_info: Set<RegionItem>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RegionItem {
    region_name: String,
    region_endpoint: String,
}

const FILTERS: &[Filter<RegionItem>] = &[
    ("region-name", |region| vec![region.region_name.clone()]),
    ("endpoint", |region| vec![region.region_endpoint.clone()]),
];

impl Action for DescribeRegions {
    type Response = DescribeRegionsResponse;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        params.flag("AllRegions")?; // none of ours is ever switched off
        Ok(Self { names: params.list("RegionName")?, filters: Filters::parse(params, FILTERS)? })
    }

    async fn run(self, _: &Caller, cloud: &Cloud) -> Result<DescribeRegionsResponse, Error> {
        let regions = regions(&cloud.config.endpoint);
        let known = |name: &String| regions.iter().any(|region| region.region_name == *name);
        if let Some(unknown) = self.names.iter().find(|name| !known(name)) {
            return Err(Error::NoSuchRegion(unknown.clone()));
        }
        let named = |region: &RegionItem| self.names.is_empty() || self.names.contains(&region.region_name);
        let region_info = regions.into_iter().filter(|region| named(region) && self.filters.admit(region)).collect();
        Ok(DescribeRegionsResponse { region_info })
    }
}

/// The name of the region that this API belongs to: the one whose host is ours.
pub(crate) fn own(cloud: &Cloud) -> String {
    let (endpoint, mut regions) = (&cloud.config.endpoint, regions(&cloud.config.endpoint));
    let ours = regions.iter().position(|region| region.region_endpoint == url(endpoint, &endpoint.ec2_host));
    regions.swap_remove(ours.unwrap_or(0)).region_name
}

/// The regions of `--region_list`; without any there is one, called `nova`.
fn regions(endpoint: &EndpointFlags) -> Vec<RegionItem> {
    let item =
        |region: &Region| RegionItem { region_name: region.name.clone(), region_endpoint: url(endpoint, &region.host) };
    let mut regions: Vec<RegionItem> = endpoint.region_list.iter().map(item).collect();
    if regions.is_empty() {
        regions.push(RegionItem { region_name: "nova".to_owned(), region_endpoint: url(endpoint, &endpoint.ec2_host) });
    }
    regions
}

fn url(endpoint: &EndpointFlags, host: &str) -> String {
    let EndpointFlags { ec2_scheme, ec2_port, ec2_path, .. } = endpoint;
    format!("{ec2_scheme}://{host}:{ec2_port}{ec2_path}")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::testing::TestCloud;

    #[tokio::test]
    async fn without_a_list_there_is_one_region_called_nova() {
        let cloud = TestCloud::start().await;
        expect![[r#"
            200
            <DescribeRegionsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
              <regionInfo>
                <item>
                  <regionName>nova</regionName>
                  <regionEndpoint>http://192.168.0.1:8773/services/Cloud</regionEndpoint>
                </item>
              </regionInfo>
            </DescribeRegionsResponse>
        "#]]
        .assert_eq(&cloud.ann().call("DescribeRegions").await.pretty());
    }

    #[tokio::test]
    async fn regions_are_chosen_by_name_and_filter() {
        let cloud = TestCloud::start_with(&["--region_list=west=10.2.0.1,east=192.168.0.1"]).await;
        for (call, wanted) in [
            ("", vec!["west", "east"]),
            ("AllRegions=true", vec!["west", "east"]),
            ("RegionName.1=east", vec!["east"]),
            ("Filter.1.Name=region-name Filter.1.Value.1=w*", vec!["west"]),
            ("Filter.1.Name=endpoint Filter.1.Value.1=http://10.2.0.1:8773/services/Cloud", vec!["west"]),
        ] {
            let answer = cloud.ann().call(&format!("DescribeRegions {call}")).await;
            assert_eq!(answer.texts("regionName"), wanted, "{call}");
        }
        let unknown = cloud.ann().call("DescribeRegions RegionName.1=north").await;
        assert_eq!(unknown.outcome(), "400 InvalidParameterValue");
    }
}
