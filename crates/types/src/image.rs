//! Images: root disks, kernels and ramdisks.

use time::OffsetDateTime;

use crate::{ImageId, ProjectId};

/// How the bytes of an image are laid out. It is declared and checked at registration, and never guessed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFormat {
    /// The disk, byte for byte. Kernels and ramdisks are raw, too.
    Raw,
    /// QEMU's copy-on-write format, without a backing file.
    Qcow2,
}

impl DiskFormat {
    /// Returns the word used in the database, by qemu and by libvirt.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }

    /// Reads that word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Raw, Self::Qcow2].into_iter().find(|format| format.as_str() == word)
    }
}

/// How far the registration of an image has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageState {
    /// Its bytes are not all here yet.
    Pending,
    /// It can be launched.
    Available,
    /// Its registration failed; the row says why.
    Failed,
    /// It was deregistered; instances may still run from it.
    Deregistered,
}

impl ImageState {
    /// Returns EC2's word, as in `imageState`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Available => "available",
            Self::Failed => "failed",
            Self::Deregistered => "deregistered",
        }
    }

    /// Reads that word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Pending, Self::Available, Self::Failed, Self::Deregistered].into_iter().find(|s| s.as_str() == word)
    }
}

/// An image that is to be stored. Its id is made from its kind and the row's number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewImage {
    /// What it is for.
    pub kind: crate::ImageKind,
    /// Who registers it.
    pub owner: ProjectId,
    /// A name, unique for nobody.
    pub name: String,
    /// A description.
    pub description: String,
    /// Where it came from: a manifest, or a file's name.
    pub location: String,
    /// Whether every project may launch it.
    pub is_public: bool,
    /// `x86_64`, `i386` or `arm64`.
    pub architecture: String,
    /// How its bytes are laid out.
    pub format: DiskFormat,
    /// The kernel to boot it with, if it does not boot by itself.
    pub kernel: Option<ImageId>,
    /// The ramdisk that goes with the kernel.
    pub ramdisk: Option<ImageId>,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its id.
    pub id: ImageId,
    /// Who registered it.
    pub owner: ProjectId,
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: String,
    /// Where it came from.
    pub location: String,
    /// Whether every project may launch it.
    pub is_public: bool,
    /// Its architecture.
    pub architecture: String,
    /// How its bytes are laid out.
    pub format: DiskFormat,
    /// Its default kernel.
    pub kernel: Option<ImageId>,
    /// Its default ramdisk.
    pub ramdisk: Option<ImageId>,
    /// How far it is.
    pub state: ImageState,
    /// Why it failed, where it did.
    pub state_reason: Option<String>,
    /// The SHA-256 of its bytes in hexadecimal, once they are here.
    pub sha256: Option<String>,
    /// The length of the file, once it is here.
    pub size_bytes: Option<u64>,
    /// The size of the disk it holds, once it is here.
    pub virtual_size_bytes: Option<u64>,
    /// When it was registered.
    pub created_at: OffsetDateTime,
}
