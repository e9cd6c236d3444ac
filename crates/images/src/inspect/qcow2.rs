//! The qcow2 header, versions 2 and 3 (docs/interop/qcow2 of QEMU).

use std::io::{Read, Seek};

use super::{InspectError, read_start, refused};

/// Other compression (bit 3) and subclusters (bit 4) only say how this file is laid out. Dirty (0), corrupt (1)
/// and external data (2) are refused, and so is what was invented later.
const ALLOWED_INCOMPATIBLE: u64 = 1 << 3 | 1 << 4;
const EXTERNAL_DATA: u64 = 1 << 2;
const V2_HEADER: usize = 72;
const V3_HEADER: usize = 104;

const END_OF_EXTENSIONS: u32 = 0;
const BACKING_FORMAT: u32 = 0xe279_2aca;
const DATA_FILE_NAME: u32 = 0x4441_5441;
const ENCRYPTION: u32 = 0x0537_be77;

/// Returns the virtual size in bytes.
pub(super) fn inspect<R: Read + Seek>(image: &mut R) -> Result<u64, InspectError> {
    let start = read_start(image, 512)?;
    let header = Fields(&start);
    let version = header.u32(4)?;
    if !matches!(version, 2 | 3) {
        return Err(no(format!("has the unknown version {version}")));
    }
    if header.u64(8)? != 0 || header.u32(16)? != 0 {
        return Err(no("has a backing file; flatten it with qemu-img convert"));
    }
    let cluster_bits = header.u32(20)?;
    if !(9..=21).contains(&cluster_bits) {
        return Err(no(format!("has clusters of 2^{cluster_bits} bytes")));
    }
    let size = header.u64(24)?;
    if size == 0 {
        return Err(no("holds a disk of no bytes"));
    }
    if header.u32(32)? != 0 {
        return Err(no("is encrypted"));
    }
    check_tables(&header, cluster_bits, size)?;
    let header_length = if version == 3 { check_features(&header)? } else { V2_HEADER };
    let cluster = read_start(image, 1 << cluster_bits)?;
    check_extensions(&cluster, header_length)?;
    Ok(size)
}

fn check_tables(header: &Fields<'_>, cluster_bits: u32, size: u64) -> Result<(), InspectError> {
    let (l1_entries, l1_offset) = (u64::from(header.u32(36)?), header.u64(40)?);
    let (refcount_offset, refcount_clusters) = (header.u64(48)?, header.u32(56)?);
    // Each L1 entry covers one cluster full of 8-byte entries, each of which covers a cluster.
    let covered = 1_u128 << (2 * cluster_bits - 3);
    if u128::from(l1_entries) * covered < u128::from(size) || l1_entries > (32 << 20) / 8 {
        return Err(no("has a table that does not fit its size"));
    }
    let aligned = |offset: u64| offset != 0 && offset.trailing_zeros() >= cluster_bits;
    if !aligned(l1_offset) || !aligned(refcount_offset) || refcount_clusters == 0 || refcount_clusters > 1 << 13 {
        return Err(no("has a table where none can be"));
    }
    if header.u32(60)? != 0 {
        return Err(no("has internal snapshots; flatten it with qemu-img convert"));
    }
    Ok(())
}

/// Returns the header's length.
fn check_features(header: &Fields<'_>) -> Result<usize, InspectError> {
    let incompatible = header.u64(72)?;
    if incompatible & EXTERNAL_DATA != 0 {
        return Err(no("has an external data file"));
    }
    if incompatible & !ALLOWED_INCOMPATIBLE != 0 {
        return Err(no(format!(
            "has incompatible features that we do not open ({incompatible:#x}); run qemu-img convert on it"
        )));
    }
    // Autoclear bit 1: raw external data.
    if header.u64(88)? & 0b10 != 0 {
        return Err(no("has an external data file"));
    }
    if header.u32(96)? > 6 {
        return Err(no("has reference counts wider than 64 bits"));
    }
    let length = header.u32(100)?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if !(V3_HEADER..=512).contains(&length) || !length.is_multiple_of(8) {
        return Err(no(format!("has a header of {length} bytes")));
    }
    Ok(length)
}

/// Walks the extensions that follow the header, within the first cluster.
fn check_extensions(cluster: &[u8], header_length: usize) -> Result<(), InspectError> {
    let fields = Fields(cluster);
    let mut at = header_length;
    // A file without extensions may end, or go on with its first table, right here.
    while at + 8 <= cluster.len() {
        let (kind, length) = (fields.u32(at)?, usize::try_from(fields.u32(at + 4)?).unwrap_or(usize::MAX));
        match kind {
            END_OF_EXTENSIONS => return Ok(()),
            BACKING_FORMAT => return Err(no("names the format of a backing file")),
            DATA_FILE_NAME => return Err(no("has an external data file")),
            ENCRYPTION => return Err(no("is encrypted")),
            _ if length > cluster.len() - at - 8 => return Err(no("has a header extension that does not end")),
            _ => at += 8 + length.next_multiple_of(8),
        }
    }
    Ok(())
}

fn no(what: impl Into<String>) -> InspectError {
    refused("qcow2", what)
}

/// Big-endian numbers by their offset.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u32(&self, at: usize) -> Result<u32, InspectError> {
        self.0.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes).ok_or_else(|| no("is cut short"))
    }

    fn u64(&self, at: usize) -> Result<u64, InspectError> {
        self.0.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes).ok_or_else(|| no("is cut short"))
    }
}
