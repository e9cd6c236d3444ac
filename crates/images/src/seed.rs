//! The seed disk: a small FAT volume labelled `CIDATA` that cloud-init's NoCloud source reads.

use std::io::{self, Cursor, Write};
use std::path::Path;

use fatfs::{Date, DateTime, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider};

use crate::files::{Draft, FileError};

const LABEL: [u8; 11] = *b"CIDATA     ";
const MIB: usize = 1 << 20;
/// Far above EC2's 16 KiB of user data; what is larger is a mistake.
const MAX_BYTES: usize = 8 * MIB;

/// What the guest finds on the disk.
#[derive(Clone, Copy, Debug)]
pub struct Seed<'a> {
    /// Content of `meta-data`, YAML or JSON.
    pub meta_data: &'a [u8],
    /// Content of `user-data`, as the user gave it.
    pub user_data: &'a [u8],
    /// Content of `network-config`, if the guest is told its addresses here.
    pub network_config: Option<&'a [u8]>,
}

/// Makes the seed disk at `path`, in place of what was there. The same seed makes the same bytes.
///
/// # Errors
/// [`SeedError::TooLarge`] above 8 MiB; else when the file cannot be written.
pub fn create_seed_disk(path: &Path, seed: &Seed<'_>) -> Result<(), SeedError> {
    let network_config = seed.network_config.map(|c| ("network-config", c));
    let files: Vec<_> =
        [("meta-data", seed.meta_data), ("user-data", seed.user_data)].into_iter().chain(network_config).collect();
    let content: usize = files.iter().map(|(_, c)| c.len()).sum();
    if content > MAX_BYTES {
        return Err(SeedError::TooLarge { bytes: content });
    }
    let volume = volume(&files, content).map_err(SeedError::Fat)?;
    let mut draft = Draft::start(path)?;
    draft.file().write_all(&volume).map_err(|e| FileError::new("writing", path, e))?;
    Ok(draft.keep(0o600)?)
}

fn volume(files: &[(&str, &[u8])], content: usize) -> io::Result<Vec<u8>> {
    // Half a MiB beside the content is ample for the tables.
    let mut disk = Cursor::new(vec![0; (content + MIB / 2).next_multiple_of(MIB)]);
    fatfs::format_volume(&mut disk, FormatVolumeOptions::new().volume_label(LABEL).volume_id(0x4e6f_7661))?;
    {
        let fs = FileSystem::new(&mut disk, FsOptions::new().time_provider(&FIXED))?;
        let root = fs.root_dir();
        for (name, content) in files {
            root.create_file(name)?.write_all(content)?;
        }
    }
    Ok(disk.into_inner())
}

/// Every file is of 1980, so that the volume depends on nothing but its content.
#[derive(Debug)]
struct FixedTime;

static FIXED: FixedTime = FixedTime;

impl TimeProvider for FixedTime {
    fn get_current_date(&self) -> Date {
        Date { year: 1980, month: 1, day: 1 }
    }

    fn get_current_date_time(&self) -> DateTime {
        DateTime { date: self.get_current_date(), time: Time { hour: 0, min: 0, sec: 0, millis: 0 } }
    }
}

/// Why there is no seed disk.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The content is too large to be meant.
    #[error("a seed disk of {bytes} bytes is too large")]
    TooLarge {
        /// Size of the content.
        bytes: usize,
    },
    /// The volume could not be laid out.
    #[error("laying out the seed disk")]
    Fat(#[source] io::Error),
    /// The file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use fatfs::{FileSystem, FsOptions};

    use super::{Seed, create_seed_disk};

    fn seed(user_data: &[u8]) -> Seed<'_> {
        Seed { meta_data: b"instance-id: i-0000000a\n", user_data, network_config: Some(b"version: 2\n") }
    }

    #[test]
    fn a_guest_finds_its_files_under_their_long_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seed");
        for size in [0, 1, 16 * 1024, 3 << 20] {
            let user_data = vec![0xfe; size];
            create_seed_disk(&path, &seed(&user_data)).unwrap();
            let fs =
                FileSystem::new(std::fs::File::options().read(true).write(true).open(&path).unwrap(), FsOptions::new())
                    .unwrap();
            assert_eq!(fs.read_volume_label_from_root_dir().unwrap().as_deref(), Some("CIDATA"));
            let root = fs.root_dir();
            let names: Vec<String> = root.iter().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(names, ["meta-data", "user-data", "network-config"]);
            let mut found = Vec::new();
            root.open_file("user-data").unwrap().read_to_end(&mut found).unwrap();
            assert!(found == user_data, "{size}");
        }
        assert!(create_seed_disk(&path, &seed(&vec![0; 9 << 20])).is_err());
    }

    #[test]
    fn the_same_seed_makes_the_same_disk() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        create_seed_disk(&one, &seed(b"#!/bin/sh\n")).unwrap();
        create_seed_disk(&two, &seed(b"#!/bin/sh\n")).unwrap();
        assert!(std::fs::read(one).unwrap() == std::fs::read(two).unwrap());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test asks blkid, as cloud-init does in the guest")]
    fn blkid_sees_the_label() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seed");
        create_seed_disk(&path, &seed(b"")).unwrap();
        let out =
            std::process::Command::new("/usr/sbin/blkid").args(["-p", "-o", "export"]).arg(&path).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(text.contains("LABEL=CIDATA\n") && text.contains("TYPE=vfat\n"), "{text}");
    }
}
