//! Reads the header of an image and refuses all that could make qemu open more than that one file.

mod qcow2;

use std::io::{self, Read, Seek, SeekFrom};

use nova_types::image::DiskFormat;

/// No disk is larger than this; a header that says so is an attack or an accident.
const MAX_VIRTUAL_BYTES: u64 = 16 << 40;
/// Formats by the bytes they begin with. Who declares `raw` must not mean one of these.
const MAGICS: &[(usize, &[u8], &str)] = &[
    (0, b"QFI\xfb", "qcow2"),
    (0, b"QED\0", "QED"),
    (0, b"KDMV", "VMDK"),
    (0, b"COWD", "VMDK"),
    (0, b"# Disk DescriptorFile", "a VMDK descriptor"),
    (0, b"conectix", "VHD"),
    (0, b"vhdxfile", "VHDX"),
    (64, &[0x7f, 0x10, 0xda, 0xbe], "VDI"),
    (0, b"LUKS\xba\xbe", "LUKS"),
    (0, b"WithoutFreeSpace", "Parallels"),
    (0, b"WithouFreSpacExt", "Parallels"),
    (0, b"Bochs Virtual HD Image", "Bochs"),
    (0, b"#!/bin/sh\n#V2.0 Format", "cloop"),
];

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// The format, found and declared alike.
    pub format: DiskFormat,
    /// Size of the disk that a guest would see.
    pub virtual_size_bytes: u64,
}

/// Why an image is refused. The text is for the one who sent it.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// There is nothing in it.
    #[error("the image is empty")]
    Empty,
    /// It is of another format than was said.
    #[error("the image was declared {} but looks like {found}", declared.as_str())]
    Format {
        /// What was said.
        declared: DiskFormat,
        /// What it looks like.
        found: &'static str,
    },
    /// The header is short, contradicts itself, or asks for something that we do not open.
    #[error("the {format} image {what}")]
    Refused {
        /// The format.
        format: &'static str,
        /// What is wrong, ready to follow "the image".
        what: String,
    },
    /// The bytes cannot be read.
    #[error("reading the image's header")]
    Read(#[from] io::Error),
}

/// Looks at the header of `image`, which must be of the format that was `declared`.
///
/// Reads the first cluster at most, so the cost does not grow with the image.
///
/// # Errors
/// When it is of another format, or a qcow2 that names another file, is encrypted, has snapshots, or uses
/// features that we do not know.
pub fn inspect<R: Read + Seek>(image: &mut R, declared: DiskFormat) -> Result<Inspected, InspectError> {
    let length = image.seek(SeekFrom::End(0))?;
    if length == 0 {
        return Err(InspectError::Empty);
    }
    let start = read_start(image, 512)?;
    let found = MAGICS.iter().find(|(at, magic, _)| start.get(*at..).is_some_and(|s| s.starts_with(magic)));
    let found = found.map_or("raw", |(_, _, name)| *name);
    if found != declared.as_str() {
        return Err(InspectError::Format { declared, found });
    }
    let virtual_size_bytes = match declared {
        DiskFormat::Raw => length,
        DiskFormat::Qcow2 => qcow2::inspect(image)?,
    };
    if virtual_size_bytes > MAX_VIRTUAL_BYTES {
        return Err(refused(declared.as_str(), "says it is larger than 16 TiB"));
    }
    Ok(Inspected { format: declared, virtual_size_bytes })
}

fn refused(format: &'static str, what: impl Into<String>) -> InspectError {
    InspectError::Refused { format, what: what.into() }
}

/// Reads up to `count` bytes from the start.
fn read_start<R: Read + Seek>(image: &mut R, count: u64) -> io::Result<Vec<u8>> {
    image.seek(SeekFrom::Start(0))?;
    let mut start = Vec::new();
    image.by_ref().take(count).read_to_end(&mut start)?;
    Ok(start)
}

#[cfg(test)]
mod tests;
