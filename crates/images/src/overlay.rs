//! A guest's own disk: an empty qcow2 on top of a base, written directly, without qemu-img.

use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::cache::Base;
use crate::files::{Draft, FileError};

const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Disk that one L1 entry covers: a cluster of 8-byte entries, each for a cluster.
const PER_L1_ENTRY: u64 = CLUSTER / 8 * CLUSTER;
const HEADER_LENGTH: u32 = 112;
const BACKING_FORMAT: u32 = 0xe279_2aca;
/// Longest name that qemu takes for a backing file.
const MAX_NAME: usize = 1023;
/// Guests address disks by sectors.
const SECTOR: u64 = 512;

/// Makes a guest's disk at `path` over `base`, of `size_bytes` or of the base's size if that is larger.
///
/// The name and format of the base are in the header, so qemu probes neither. A disk that is there is kept as it
/// is: it holds what the guest wrote.
///
/// # Errors
/// When the file cannot be written, or the base's path is relative or longer than qemu takes.
pub fn create_overlay(path: &Path, base: &Base, size_bytes: u64) -> Result<(), FileError> {
    if path.exists() {
        return Ok(());
    }
    let size = size_bytes.max(base.virtual_size_bytes).next_multiple_of(SECTOR);
    let name = base.path.as_os_str().as_bytes();
    if !base.path.is_absolute() || name.len() > MAX_NAME {
        let why = std::io::Error::other("a base's path must be absolute and of at most 1023 bytes");
        return Err(FileError::new("backing a disk by", &base.path, why));
    }
    let l1_entries = size.div_ceil(PER_L1_ENTRY);
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER);
    // Clusters: header, refcount table, refcount block, L1 table. One block counts 32,768 clusters.
    let used = 3 + l1_clusters;
    let header = header(size, l1_entries, base.format.as_str(), name);
    let refcounts: Vec<u8> = (0..used).flat_map(|_| 1_u16.to_be_bytes()).collect();

    let mut draft = Draft::start(path)?;
    let mut write = || {
        let file = draft.file();
        file.write_all(&header)?;
        file.seek(SeekFrom::Start(CLUSTER))?;
        file.write_all(&(2 * CLUSTER).to_be_bytes())?;
        file.seek(SeekFrom::Start(2 * CLUSTER))?;
        file.write_all(&refcounts)?;
        // The L1 table is all zeros: nothing is in the overlay yet.
        file.set_len(used * CLUSTER)
    };
    write().map_err(|e| FileError::new("writing", path, e))?;
    draft.keep(0o600)
}

/// Makes an empty raw disk of `size_bytes`, all of it a hole; one that is there is kept as it is.
///
/// # Errors
/// When the file cannot be written.
pub fn create_blank(path: &Path, size_bytes: u64) -> Result<(), FileError> {
    if path.exists() {
        return Ok(());
    }
    let mut draft = Draft::start(path)?;
    let sized = draft.file().set_len(size_bytes.next_multiple_of(SECTOR));
    sized.map_err(|e| FileError::new("writing", path, e))?;
    draft.keep(0o600)
}

fn header(size: u64, l1_entries: u64, format: &str, name: &[u8]) -> Vec<u8> {
    let extension = [BACKING_FORMAT.to_be_bytes(), length(format.len()).to_be_bytes()].concat();
    let padding = format.len().next_multiple_of(8) - format.len();
    let extensions = [&extension, format.as_bytes(), &vec![0; padding], &[0; 8]].concat();
    let name_at = u64::from(HEADER_LENGTH) + extensions.len() as u64;

    let mut h = Vec::with_capacity(256 + name.len());
    let mut field = |bytes: &[u8]| h.extend_from_slice(bytes);
    field(b"QFI\xfb");
    field(&3_u32.to_be_bytes()); // version
    field(&name_at.to_be_bytes());
    field(&length(name.len()).to_be_bytes());
    field(&CLUSTER_BITS.to_be_bytes());
    field(&size.to_be_bytes());
    field(&0_u32.to_be_bytes()); // not encrypted
    field(&u32::try_from(l1_entries).unwrap_or(u32::MAX).to_be_bytes());
    field(&(3 * CLUSTER).to_be_bytes()); // L1 table
    field(&CLUSTER.to_be_bytes()); // refcount table
    field(&1_u32.to_be_bytes()); // its clusters
    field(&0_u32.to_be_bytes()); // snapshots
    field(&[0; 8]); // their table
    field(&[0; 24]); // features: incompatible, compatible, autoclear
    field(&4_u32.to_be_bytes()); // refcounts of 2^4 bits
    field(&HEADER_LENGTH.to_be_bytes());
    field(&[0; 8]); // zlib; padding
    field(&extensions);
    field(name);
    h
}

/// Lengths here are of short texts.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use expect_test::expect;
    use nova_types::image::DiskFormat;

    use super::{create_blank, create_overlay};
    use crate::cache::Base;

    #[expect(
        clippy::disallowed_methods,
        reason = "a test asks qemu-img, which production code of this crate never runs"
    )]
    fn qemu_img(arguments: &[&str], folder: &Path) -> String {
        let out = std::process::Command::new("qemu-img").args(arguments).current_dir(folder).output().unwrap();
        assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    fn base(folder: &Path, format: DiskFormat) -> Base {
        let path = folder.join(format!("base.{}", format.as_str()));
        qemu_img(&["create", "-q", "-f", format.as_str(), path.to_str().unwrap(), "1M"], folder);
        Base { path, format, virtual_size_bytes: 1 << 20 }
    }

    #[test]
    fn qemu_finds_no_fault_in_an_overlay() {
        let folder = tempfile::tempdir().unwrap();
        for format in [DiskFormat::Raw, DiskFormat::Qcow2] {
            let base = base(folder.path(), format);
            for size in [0, 1 << 20, 512 << 20, (512 << 20) + 1, 10 << 30, 5 << 40] {
                let disk = folder.path().join(format!("disk-{}-{size}", format.as_str()));
                create_overlay(&disk, &base, size).unwrap();
                let name = disk.to_str().unwrap();
                expect!["No errors were found on the image.\n"].assert_eq(
                    qemu_img(&["check", "-f", "qcow2", name], folder.path()).split_inclusive('\n').next().unwrap(),
                );
                let info = qemu_img(&["info", "-f", "qcow2", "--output=json", name], folder.path());
                let wanted = size.max(1 << 20).next_multiple_of(512);
                assert!(info.contains(&format!("\"virtual-size\": {wanted},")), "{info}");
                assert!(info.contains(&format!("\"backing-filename-format\": \"{}\"", format.as_str())), "{info}");
            }
        }
    }

    #[test]
    fn a_guest_reads_its_base_and_writes_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let base = base(folder.path(), DiskFormat::Raw);
        std::fs::write(&base.path, vec![0xab; 1 << 20]).unwrap();
        let disk = folder.path().join("disk");
        create_overlay(&disk, &base, 4 << 20).unwrap();
        qemu_img(&["convert", "-f", "qcow2", "-O", "raw", "disk", "out"], folder.path());
        let seen = std::fs::read(folder.path().join("out")).unwrap();
        assert_eq!(seen.len(), 4 << 20);
        assert!(seen[..1 << 20].iter().all(|b| *b == 0xab) && seen[1 << 20..].iter().all(|b| *b == 0));
    }

    #[test]
    fn a_disk_that_is_there_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk");
        std::fs::write(&disk, "what the guest wrote").unwrap();
        create_overlay(&disk, &base(folder.path(), DiskFormat::Raw), 0).unwrap();
        create_blank(&disk, 1 << 20).unwrap();
        assert_eq!(std::fs::read(&disk).unwrap(), b"what the guest wrote");
        let local = folder.path().join("disk.local");
        create_blank(&local, 1 << 30).unwrap();
        assert_eq!(local.metadata().unwrap().len(), 1 << 30);
    }

    #[test]
    fn a_base_without_a_whole_path_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for path in [PathBuf::from("base"), Path::new("/").join("x".repeat(1023))] {
            let base = Base { path, format: DiskFormat::Raw, virtual_size_bytes: 512 };
            assert!(create_overlay(&folder.path().join("disk"), &base, 0).is_err());
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
