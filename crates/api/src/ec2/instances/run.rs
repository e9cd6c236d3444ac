//! `RunInstances`: the request as clients of every year send it.

use base64::Engine as _;
use nova_aws::Params;
use nova_db::security_groups::GroupRef;
use nova_types::{GroupName, ImageId, KeyName, SecurityGroupId};

use super::item::ReservationItem;
use super::launch;
use crate::{actions::Action, caller::Caller, cloud::Cloud, error::Error};

/// The most that one call may launch.
const MOST_INSTANCES: u32 = 1000;
/// The longest user data, decoded, as AWS has it.
const MOST_USER_DATA: usize = 16_384;
/// The longest client token, display name or description.
const MOST_TEXT: usize = 255;

/// Launches instances.
#[derive(Debug)]
pub(crate) struct RunInstances {
    pub(super) image: ImageId,
    pub(super) least: u32,
    pub(super) most: u32,
    /// `None` is the image's own; a text may also be the flag `--null_kernel`.
    pub(super) kernel: Option<String>,
    pub(super) ramdisk: Option<ImageId>,
    pub(super) flavor: Option<String>,
    pub(super) key: Option<KeyName>,
    pub(super) groups: Vec<GroupRef>,
    pub(super) user_data: Option<Vec<u8>>,
    pub(super) zone: Option<String>,
    pub(super) display_name: Option<String>,
    pub(super) display_description: Option<String>,
    pub(super) client_token: Option<String>,
}

impl Action for RunInstances {
    type Response = ReservationItem;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        let most = params.take("MaxCount")?.unwrap_or(1);
        let least = params.take("MinCount")?.unwrap_or(most);
        if !(1..=MOST_INSTANCES).contains(&least) || !(least..=MOST_INSTANCES).contains(&most) {
            return Err(Error::BadCount { least, most });
        }
        refuse_what_we_do_not_have(params)?;
        let name_tag = name_tag(params)?;
        Ok(Self {
            image: params.required("ImageId")?,
            least,
            most,
            kernel: params.given("KernelId")?,
            ramdisk: params.given("RamdiskId")?,
            flavor: params.given("InstanceType")?,
            key: params.given("KeyName")?,
            groups: groups(params)?,
            user_data: user_data(params)?,
            zone: params.given("Placement.AvailabilityZone")?,
            display_name: text(params, "DisplayName")?.or(name_tag),
            display_description: text(params, "DisplayDescription")?,
            client_token: text(params, "ClientToken")?,
        })
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<ReservationItem, Error> {
        launch::launch(self, caller, cloud).await
    }
}

fn text(params: &mut Params, name: &'static str) -> Result<Option<String>, Error> {
    match params.given::<String>(name)? {
        Some(long) if long.chars().count() > MOST_TEXT => {
            Err(params.malformed(name, long, "at most 255 characters").into())
        }
        other => Ok(other),
    }
}

/// Reads `SecurityGroup.N` (names) and `SecurityGroupId.N`.
fn groups(params: &mut Params) -> Result<Vec<GroupRef>, Error> {
    let names: Vec<GroupName> = params.list("SecurityGroup")?;
    let ids: Vec<SecurityGroupId> = params.list("SecurityGroupId")?;
    Ok(names.into_iter().map(GroupRef::Name).chain(ids.into_iter().map(GroupRef::Id)).collect())
}

/// Decodes user data. Line breaks inside the base64 are fine; anything else that is not base64 is the client's error.
fn user_data(params: &mut Params) -> Result<Option<Vec<u8>>, Error> {
    let Some(sent) = params.given::<String>("UserData")? else { return Ok(None) };
    let base64: String = sent.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let decoded = base64::engine::general_purpose::STANDARD.decode(base64).map_err(|_| Error::UserDataNotBase64)?;
    if decoded.len() > MOST_USER_DATA {
        return Err(Error::UserDataTooLong(decoded.len()));
    }
    Ok(Some(decoded))
}

/// Reads the tag `Name` of `TagSpecification.N`, the only one that is kept: as the display name.
fn name_tag(params: &mut Params) -> Result<Option<String>, Error> {
    let specifications = params.structs("TagSpecification", |specification| {
        let resource: String = specification.required("ResourceType")?;
        if resource != "instance" {
            return Err(specification.malformed("ResourceType", resource, "instance"));
        }
        specification.structs("Tag", |tag| {
            let key: String = tag.required("Key")?;
            if key != "Name" {
                return Err(tag.malformed("Key", key, "Name, the only tag that is kept"));
            }
            tag.given::<String>("Value")
        })
    })?;
    Ok(specifications.into_iter().flatten().flatten().next())
}

/// What modern clients send by habit is taken if it asks for what is so anyway, and refused if it asks for more.
fn refuse_what_we_do_not_have(params: &mut Params) -> Result<(), Error> {
    for name in ["EbsOptimized", "DisableApiTermination", "DisableApiStop", "Monitoring.Enabled"] {
        if params.flag(name)? {
            return Err(params.malformed(name, true, "false: Nova has no such thing").into());
        }
    }
    for (name, usual) in [
        ("InstanceInitiatedShutdownBehavior", "stop"),
        ("Placement.Tenancy", "default"),
        ("MetadataOptions.HttpTokens", "optional"),
        ("MetadataOptions.HttpEndpoint", "enabled"),
    ] {
        match params.take::<String>(name)? {
            Some(asked) if asked != usual => return Err(params.malformed(name, asked, usual_sentence(name)).into()),
            _ => {}
        }
    }
    params.take::<u32>("MetadataOptions.HttpPutResponseHopLimit")?;
    Ok(())
}

const fn usual_sentence(name: &str) -> &'static str {
    match name.as_bytes() {
        b"InstanceInitiatedShutdownBehavior" => "stop",
        b"Placement.Tenancy" => "default",
        b"MetadataOptions.HttpTokens" => "optional",
        _ => "enabled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<RunInstances, Error> {
        let [pairs] = nova_aws::decode([query.as_bytes()]).unwrap();
        let mut params = Params::new(pairs);
        let action = RunInstances::parse(&mut params)?;
        params.finish()?;
        Ok(action)
    }

    #[test]
    fn a_request_of_2010_and_one_of_today_ask_for_the_same() {
        let old = parse(
            "ImageId=ami-00000003&MinCount=1&MaxCount=2&KeyName=k&SecurityGroup.1=default&InstanceType=m1.tiny\
             &AddressingType=public&UserData=aGk%3D&KernelId=&RamdiskId=&Placement.AvailabilityZone=nova",
        )
        .unwrap();
        let new = parse(
            "ImageId=ami-00000003&MinCount=1&MaxCount=2&KeyName=k&SecurityGroup.1=default&InstanceType=m1.tiny\
             &UserData=aGk%3D&Placement.AvailabilityZone=nova&Monitoring.Enabled=false&EbsOptimized=false",
        )
        .unwrap();
        assert_eq!(format!("{old:?}"), format!("{new:?}"));
        assert_eq!(old.user_data.as_deref(), Some(&b"hi"[..]));
        let bare = parse("ImageId=ami-00000003&MaxCount=1&KeyName=&InstanceType=&UserData=&DisplayName=&ClientToken=");
        assert_eq!(format!("{:?}", bare.unwrap()), format!("{:?}", parse("ImageId=ami-00000003").unwrap()));
    }

    #[test]
    fn the_name_tag_becomes_the_display_name_and_other_tags_are_refused() {
        let named = "ImageId=ami-00000003&TagSpecification.1.ResourceType=instance&TagSpecification.1.Tag.1.Key=";
        let run = parse(&format!("{named}Name&TagSpecification.1.Tag.1.Value=web")).unwrap();
        assert_eq!(run.display_name.as_deref(), Some("web"));
        assert!(parse(&format!("{named}Owner&TagSpecification.1.Tag.1.Value=me")).is_err());
    }

    #[test]
    fn counts_and_user_data_out_of_range_are_refused() {
        let long = base64::engine::general_purpose::STANDARD.encode(vec![0; MOST_USER_DATA + 1]).replace('+', "%2B");
        for (query, code) in [
            ("MinCount=0&MaxCount=0".to_owned(), "InvalidParameterValue"),
            ("MinCount=2&MaxCount=1".to_owned(), "InvalidParameterValue"),
            ("MaxCount=1001".to_owned(), "InvalidParameterValue"),
            ("MaxCount=-1".to_owned(), "InvalidParameterValue"),
            ("UserData=%25%25".to_owned(), "InvalidUserData.Malformed"),
            (format!("UserData={}", long.replace('=', "%3D")), "InvalidParameterValue"),
            ("SubnetId=subnet-1".to_owned(), "UnknownParameter"),
            ("EbsOptimized=true".to_owned(), "InvalidParameterValue"),
        ] {
            let refused = parse(&format!("ImageId=ami-00000003&{query}")).unwrap_err();
            assert_eq!(refused.ec2().0, code, "{query}");
        }
        assert_eq!(parse("MaxCount=1").unwrap_err().ec2().0, "MissingParameter");
    }
}
