//! `DescribeImages`.

use std::collections::BTreeSet;

use nova_aws::{Filter, Filters, Page, Params, Set, Timestamp};
use nova_db::{describe, images};
use nova_types::image::{Image, ImageState};
use nova_types::{ImageId, ImageKind, ProjectId};
use serde::Serialize;

use crate::{actions::Action, caller::Caller, cloud::Cloud, error::Error};

/// Lists the images that the caller may launch.
#[derive(Debug)]
pub(crate) struct DescribeImages {
    ids: Vec<ImageId>,
    owners: Vec<String>,
    executable_by: Vec<String>,
    filters: Filters<Image>,
    page: Page<ImageId>,
}

/// The answer to [`DescribeImages`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DescribeImagesResponse {
    images_set: Set<ImageItem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

/// One image: AWS's elements, and those that clients of 2010 read (`id`, `type`, `displayName`).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ImageItem {
    image_id: String,
    id: String,
    image_location: String,
    image_state: &'static str,
    image_owner_id: String,
    is_public: bool,
    architecture: String,
    image_type: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ramdisk_id: Option<String>,
    name: String,
    display_name: String,
    description: String,
    creation_date: Timestamp,
    root_device_type: &'static str,
    root_device_name: &'static str,
    virtualization_type: &'static str,
    hypervisor: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_reason: Option<ReasonItem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block_device_mapping: Option<Set<String>>,
}

#[derive(Debug, Serialize)]
struct ReasonItem {
    code: &'static str,
    message: String,
}

/// Every filter that an image has a field for.
const FILTERS: &[Filter<Image>] = &[
    ("architecture", |image| vec![image.architecture.clone()]),
    ("creation-date", |image| vec![Timestamp(image.created_at).to_string()]),
    ("description", |image| vec![image.description.clone()]),
    ("hypervisor", |_| vec!["xen".to_owned()]),
    ("image-id", |image| vec![image.id.to_string()]),
    ("image-type", |image| vec![image.id.kind().as_str().to_owned()]),
    ("is-public", |image| vec![image.is_public.to_string()]),
    ("kernel-id", |image| image.kernel.iter().map(ToString::to_string).collect()),
    ("manifest-location", |image| vec![image.location.clone()]),
    ("name", |image| vec![image.name.clone()]),
    ("owner-id", |image| vec![image.owner.to_string()]),
    ("ramdisk-id", |image| image.ramdisk.iter().map(ToString::to_string).collect()),
    ("root-device-name", |image| vec![root_device(image.id).to_owned()]),
    ("root-device-type", |_| vec!["instance-store".to_owned()]),
    ("state", |image| vec![image.state.as_str().to_owned()]),
    ("state-reason-code", |image| reason(image).map(|reason| reason.code.to_owned()).into_iter().collect()),
    ("state-reason-message", |image| reason(image).map(|reason| reason.message).into_iter().collect()),
    ("virtualization-type", |_| vec!["hvm".to_owned()]),
];

impl Action for DescribeImages {
    type Response = DescribeImagesResponse;

    fn parse(params: &mut Params) -> Result<Self, Error> {
        params.flag("IncludeDeprecated")?;
        params.flag("IncludeDisabled")?;
        Ok(Self {
            ids: params.list("ImageId")?,
            owners: params.list("Owner")?,
            executable_by: params.list("ExecutableBy")?,
            filters: Filters::parse(params, FILTERS)?,
            page: Page::parse(params, "DescribeImages")?,
        })
    }

    async fn run(self, caller: &Caller, cloud: &Cloud) -> Result<DescribeImagesResponse, Error> {
        let visible = describe!(cloud.db, &caller.names(), |conn| -> Error {
            Ok(images::list(conn, Some(&caller.project)).await?)
        })?;
        let found: BTreeSet<ImageId> = visible.iter().map(|image| image.id).collect();
        if let Some(absent) = self.ids.iter().find(|id| !found.contains(id)) {
            return Err(Error::NoSuchImage(*absent));
        }
        let selected = visible.into_iter().filter(|image| self.selects(image, &caller.project));
        let mut selected: Vec<Image> = selected.collect();
        selected.sort_unstable_by_key(|image| image.id);
        let (images, next_token) = self.page.cut(selected, |image| image.id);
        let nested = caller.version.knows_nested_lists();
        Ok(DescribeImagesResponse {
            images_set: images.into_iter().map(|image| item(image, nested)).collect(),
            next_token,
        })
    }
}

impl DescribeImages {
    fn selects(&self, image: &Image, project: &ProjectId) -> bool {
        let is = |who: &String| match who.as_str() {
            "self" => image.owner == *project,
            // There are no images of Amazon's or of its market here.
            "amazon" | "aws-marketplace" | "aws-backup-vault" => false,
            owner => image.owner.as_str() == owner,
        };
        let may = |who: &String| match who.as_str() {
            "all" => image.is_public,
            "self" => true,
            owner => image.is_public || image.owner.as_str() == owner,
        };
        (self.ids.is_empty() || self.ids.contains(&image.id))
            && (self.owners.is_empty() || self.owners.iter().any(is))
            && (self.executable_by.is_empty() || self.executable_by.iter().any(may))
            && self.filters.admit(image)
    }
}

fn item(image: Image, nested: bool) -> ImageItem {
    let kind = image.id.kind().as_str();
    ImageItem {
        state_reason: reason(&image).filter(|_| nested),
        image_id: image.id.to_string(),
        id: image.id.to_string(),
        image_location: image.location,
        image_state: image.state.as_str(),
        image_owner_id: image.owner.to_string(),
        is_public: image.is_public,
        architecture: image.architecture,
        image_type: kind,
        kind,
        kernel_id: image.kernel.map(|id| id.to_string()),
        ramdisk_id: image.ramdisk.map(|id| id.to_string()),
        display_name: image.name.clone(),
        name: image.name,
        description: image.description,
        creation_date: Timestamp(image.created_at),
        root_device_type: "instance-store",
        root_device_name: root_device(image.id),
        virtualization_type: "hvm",
        hypervisor: "xen",
        block_device_mapping: nested.then(Set::default),
    }
}

const fn root_device(id: ImageId) -> &'static str {
    match id.kind() {
        ImageKind::Machine => "/dev/vda",
        ImageKind::Kernel | ImageKind::Ramdisk => "",
    }
}

/// Why the image cannot be used.
fn reason(image: &Image) -> Option<ReasonItem> {
    let failed = |message: &String| ReasonItem { code: "Server.ImportFailed", message: message.clone() };
    image.state_reason.as_ref().filter(|_| image.state == ImageState::Failed).map(failed)
}
