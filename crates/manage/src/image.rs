//! `nova-manage image …`

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use clap::{Subcommand, ValueEnum};
use nova_db::images::{self, ImageError, Stored};
use nova_failpoint::{Point, hit};
use nova_images::{ImageStore, StoreError, StoredImage};
use nova_types::image::{DiskFormat, Image, ImageState, NewImage};
use nova_types::{ImageId, ImageKind, ProjectId};

use crate::context::{Context, absolute, given, parse};
use crate::output::{List, Output, shown};
use crate::project;

/// Who owns the images that belong to nobody, as with old Nova's import tool.
const SYSTEM: &str = "system";

/// The longest name or description, in characters.
const MOST_TEXT: usize = 255;

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Register a file and print the new image's id
    Register(Register),
    /// List the images of all projects
    List(Output),
    /// Deregister an image and remove its file; instances made from it go on
    Delete {
        /// The image, as ami-00000001
        id: String,
    },
    /// Register a disk the way Cactus did
    #[command(name = "image_register")]
    ImageRegister {
        #[command(flatten)]
        old: Old,
        /// Accepted and not used
        #[arg(default_value = "bare")]
        container_format: String,
        /// raw or qcow2
        #[arg(default_value = "raw")]
        disk_format: String,
        /// Kernel to boot it with, as aki-00000001 or a decimal number
        kernel_id: Option<String>,
        /// Ramdisk that goes with the kernel
        ramdisk_id: Option<String>,
    },
    /// Register a kernel the way Cactus did
    #[command(name = "kernel_register")]
    KernelRegister(Old),
    /// Register a ramdisk the way Cactus did
    #[command(name = "ramdisk_register")]
    RamdiskRegister(Old),
    /// Register kernel, ramdisk and disk together the way Cactus did
    #[command(name = "all_register")]
    AllRegister {
        /// The disk's file
        image: PathBuf,
        /// The kernel's file
        kernel: PathBuf,
        /// The ramdisk's file
        ramdisk: PathBuf,
        #[command(flatten)]
        how: OldHow,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// A disk
    Machine,
    /// A kernel
    Kernel,
    /// An initial ramdisk
    Ramdisk,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Layout {
    /// The disk byte for byte; kernels and ramdisks, too
    Raw,
    /// QEMU's format, without a backing file
    Qcow2,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Register {
    /// The file
    path: PathBuf,
    /// What it is
    #[arg(long, value_enum, default_value = "machine")]
    kind: Kind,
    /// Its name [default: the file's]
    #[arg(long)]
    name: Option<String>,
    /// What it is for
    #[arg(long, default_value = "")]
    description: String,
    /// The project that owns it
    #[arg(long, default_value = SYSTEM)]
    owner: String,
    /// Every project may launch it
    #[arg(long)]
    public: bool,
    /// x86_64, i386 or arm64
    #[arg(long, default_value = "x86_64")]
    arch: String,
    /// How the file is laid out; checked, never guessed
    #[arg(long, value_enum, default_value = "raw")]
    format: Layout,
    /// Kernel to boot it with, as aki-00000001
    #[arg(long)]
    kernel: Option<String>,
    /// Ramdisk that goes with the kernel, as ari-00000001
    #[arg(long)]
    ramdisk: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Old {
    /// The file
    path: PathBuf,
    #[command(flatten)]
    how: OldHow,
}

#[derive(Debug, clap::Args)]
pub(crate) struct OldHow {
    /// The project that owns it
    owner: String,
    /// Its name [default: the file's]
    name: Option<String>,
    /// T if every project may launch it
    #[arg(default_value = "T")]
    is_public: String,
    /// x86_64, i386 or arm64
    #[arg(default_value = "x86_64")]
    architecture: String,
}

impl Action {
    pub(crate) async fn run(self, cx: &mut Context<'_, '_>) -> anyhow::Result<()> {
        match self {
            Self::Register(asked) => {
                let (path, new) = asked.read()?;
                let id = register(cx, &path, new).await?;
                Ok(cx.say(id)?)
            }
            Self::List(output) => list(cx, output).await,
            Self::Delete { id } => delete(cx, parse(&id)?).await,
            Self::ImageRegister { old, container_format: _, disk_format, kernel_id, ramdisk_id } => {
                let format = match disk_format.as_str() {
                    "ami" | "" => DiskFormat::Raw,
                    word => DiskFormat::from_word(word)
                        .with_context(|| format!("no disk format {word}: expected raw or qcow2"))?,
                };
                let kernel = given(kernel_id.as_ref()).map(|id| old_id(id, ImageKind::Kernel)).transpose()?;
                let ramdisk = given(ramdisk_id.as_ref()).map(|id| old_id(id, ImageKind::Ramdisk)).transpose()?;
                let new = old.how.read(ImageKind::Machine, &old.path)?;
                old_register(cx, &old.path, NewImage { format, kernel, ramdisk, ..new }).await.map(drop)
            }
            Self::KernelRegister(old) => {
                let new = old.how.read(ImageKind::Kernel, &old.path)?;
                old_register(cx, &old.path, new).await.map(drop)
            }
            Self::RamdiskRegister(old) => {
                let new = old.how.read(ImageKind::Ramdisk, &old.path)?;
                old_register(cx, &old.path, new).await.map(drop)
            }
            Self::AllRegister { image, kernel, ramdisk, how } => {
                let mut made = Vec::new();
                let done = all_register(cx, [&kernel, &ramdisk, &image], &how, &mut made).await;
                if done.is_err() {
                    take_back(cx, &made).await;
                }
                done
            }
        }
    }
}

impl Register {
    fn read(self) -> anyhow::Result<(PathBuf, NewImage)> {
        let kind = match self.kind {
            Kind::Machine => ImageKind::Machine,
            Kind::Kernel => ImageKind::Kernel,
            Kind::Ramdisk => ImageKind::Ramdisk,
        };
        let format = match self.format {
            Layout::Raw => DiskFormat::Raw,
            Layout::Qcow2 => DiskFormat::Qcow2,
        };
        let new = NewImage {
            kind,
            owner: parse(&self.owner)?,
            name: name(self.name.as_ref(), &self.path),
            description: self.description,
            location: absolute(&self.path)?.display().to_string(),
            is_public: self.public,
            architecture: self.arch,
            format,
            kernel: self.kernel.as_deref().map(parse).transpose()?,
            ramdisk: self.ramdisk.as_deref().map(parse).transpose()?,
        };
        Ok((self.path, new))
    }
}

impl OldHow {
    fn read(&self, kind: ImageKind, path: &Path) -> anyhow::Result<NewImage> {
        Ok(NewImage {
            kind,
            owner: parse(&self.owner)?,
            name: name(self.name.as_ref(), path),
            description: String::new(),
            location: absolute(path)?.display().to_string(),
            is_public: self.is_public.to_uppercase().starts_with('T'),
            architecture: self.architecture.clone(),
            format: DiskFormat::Raw,
            kernel: None,
            ramdisk: None,
        })
    }
}

fn name(asked: Option<&String>, path: &Path) -> String {
    let of_file = || path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    given(asked).map_or_else(of_file, str::to_owned)
}

/// Cactus wrote ids of kernels and ramdisks as decimal numbers.
fn old_id(text: &str, kind: ImageKind) -> anyhow::Result<ImageId> {
    match text.parse::<i32>() {
        Ok(number) if number > 0 => Ok(ImageId::from_row(kind, number)),
        _ => parse(text),
    }
}

/// Registers, and prints what Cactus printed.
async fn old_register(cx: &mut Context<'_, '_>, path: &Path, new: NewImage) -> anyhow::Result<ImageId> {
    let id = register(cx, path, new).await?;
    cx.say(format_args!("Image registered to {} ({:08x}).", id.number(), id.number()))?;
    Ok(id)
}

/// Registers kernel, ramdisk and disk; `made` tells how far that came.
async fn all_register(
    cx: &mut Context<'_, '_>,
    [kernel, ramdisk, disk]: [&Path; 3],
    how: &OldHow,
    made: &mut Vec<ImageId>,
) -> anyhow::Result<()> {
    for (kind, path) in [(ImageKind::Kernel, kernel), (ImageKind::Ramdisk, ramdisk)] {
        made.push(old_register(cx, path, how.read(kind, path)?).await?);
    }
    let new = how.read(ImageKind::Machine, disk)?;
    let linked = NewImage { kernel: made.first().copied(), ramdisk: made.last().copied(), ..new };
    old_register(cx, disk, linked).await.map(drop)
}

/// Deregisters what was made for a disk that then could not be registered.
async fn take_back(cx: &mut Context<'_, '_>, made: &[ImageId]) {
    for id in made {
        match delete(cx, *id).await {
            Ok(()) => cx.note(format_args!("Took {id} back.")),
            Err(error) => {
                cx.note(format_args!("{id} stays registered ({error:#}); run nova-manage image delete {id}"));
            }
        }
    }
}

/// The row comes first and says `pending`; it becomes `available` once the file is checked, hashed and on the disk.
async fn register(cx: &mut Context<'_, '_>, path: &Path, new: NewImage) -> anyhow::Result<ImageId> {
    check(cx, &new).await?;
    let mut source = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    if !source.metadata()?.is_file() {
        bail!("{} is not a file", path.display());
    }
    let store = ImageStore::new(&cx.config.images.images_path);
    let id = name_it(cx, &store, &new).await?;
    hit(Point::ImageNamed);
    // Who finds the row pending and this not held knows that nobody completes it any more.
    let _held = store.hold(id)?.with_context(|| format!("another process registers {}", new.location))?;
    match store.put(id, new.format, &mut source) {
        Ok(StoredImage { sha256, size_bytes, virtual_size_bytes }) => {
            let stored = Stored { sha256: &sha256, size_bytes, virtual_size_bytes };
            images::available(&mut cx.db.write().await?, id, stored).await?;
            hit(Point::ImageRegistered);
            cx.note(format_args!("Registered {} as {id}: {size_bytes} bytes, sha256 {sha256}.", new.name));
            Ok(id)
        }
        Err(refused) => {
            give_up(cx, id, &refused).await;
            Err(anyhow::Error::from(refused).context(format!("registering {}", path.display())))
        }
    }
}

/// Gives the image its row. One that a killed registration of the same file left is cleared away first.
async fn name_it(cx: &mut Context<'_, '_>, store: &ImageStore, new: &NewImage) -> anyhow::Result<ImageId> {
    let refused = match images::register(&mut cx.db.write().await?, new).await {
        Err(refused @ ImageError::LocationTaken(_)) => refused,
        named => return Ok(named?),
    };
    let all = images::list(&mut cx.db.read().await?, None).await?;
    let same = |image: &&Image| image.owner == new.owner && image.location == new.location;
    let Some(there) = all.iter().find(same) else { return Err(refused.into()) };
    if there.state != ImageState::Pending {
        return Err(taken(there));
    }
    let Some(_held) = store.hold(there.id)? else { bail!("another process registers {}", new.location) };
    // It may have been completed before it was held.
    let now = images::get_any(&mut cx.db.read().await?, there.id).await?;
    if now.is_some_and(|image| image.state != ImageState::Pending) {
        return Err(taken(there));
    }
    delete(cx, there.id).await?;
    cx.note(format_args!("Removed {}, whose registration was never completed.", there.id));
    Ok(images::register(&mut cx.db.write().await?, new).await?)
}

/// Says which image has the place of a new one.
fn taken(there: &Image) -> anyhow::Error {
    let (id, location) = (there.id, &there.location);
    anyhow!("{location} is registered already, as {id}; nova-manage image delete {id} makes room")
}

/// An image that could not be stored leaves no row that seems to be on its way.
async fn give_up(cx: &mut Context<'_, '_>, id: ImageId, refused: &StoreError) {
    let forget = async {
        let mut conn = cx.db.write().await?;
        images::failed(&mut conn, id, &refused.to_string()).await?;
        images::deregister(&mut conn, None, id).await?;
        anyhow::Ok(())
    };
    if let Err(error) = forget.await {
        cx.note(format_args!("{id} stays registered ({error:#}); run nova-manage image delete {id}"));
    }
}

async fn check(cx: &mut Context<'_, '_>, new: &NewImage) -> anyhow::Result<()> {
    let kinds = [(new.kernel, ImageKind::Kernel), (new.ramdisk, ImageKind::Ramdisk)];
    for (id, kind) in kinds.into_iter().filter_map(|(id, kind)| id.map(|id| (id, kind))) {
        if new.kind != ImageKind::Machine {
            bail!("only a machine image has a kernel and a ramdisk");
        }
        let found = images::get_any(&mut cx.db.read().await?, id).await?;
        if id.kind() != kind || found.is_none_or(|i| i.state != ImageState::Available) {
            bail!("no {} {id}; nova-manage image list shows all", kind.as_str());
        }
    }
    for (what, text) in [("name", &new.name), ("description", &new.description)] {
        if text.chars().any(char::is_control) || text.chars().count() > MOST_TEXT {
            bail!("the {what} of an image has at most {MOST_TEXT} characters, and no control characters");
        }
    }
    if !matches!(new.architecture.as_str(), "x86_64" | "i386" | "arm64") {
        bail!("no architecture {}: expected x86_64, i386 or arm64", new.architecture);
    }
    let owner: &ProjectId = &new.owner;
    if owner.as_str() == SYSTEM && !new.is_public {
        bail!("nobody could launch it: give --public, or --owner with a project");
    }
    if owner.as_str() != SYSTEM && !new.is_public {
        project::existing(cx, owner).await?;
    }
    Ok(())
}

async fn list(cx: &mut Context<'_, '_>, output: Output) -> anyhow::Result<()> {
    let images = images::list(&mut cx.db.read().await?, None).await?;
    let row = |i: Image| {
        let (kernel, ramdisk, size) = (shown(i.kernel), shown(i.ramdisk), i.size_bytes.into());
        let (id, kind, state) = (shown(Some(i.id)), i.id.kind().as_str().into(), i.state.as_str().into());
        let (owner, format) = (shown(Some(i.owner)), i.format.as_str().into());
        [id, i.name.into(), kind, state, owner, i.is_public.into(), format, size, kernel, ramdisk]
    };
    let columns = ["id", "name", "kind", "state", "owner", "public", "format", "size", "kernel", "ramdisk"];
    let list = List { columns, rows: images.into_iter().map(row).collect() };
    Ok(output.or_table().write(cx, list, None, |_| String::new())?)
}

async fn delete(cx: &mut Context<'_, '_>, id: ImageId) -> anyhow::Result<()> {
    images::deregister(&mut cx.db.write().await?, None, id).await?;
    ImageStore::new(&cx.config.images.images_path).remove(id)?;
    Ok(())
}
