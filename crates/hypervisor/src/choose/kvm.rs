//! Tries KVM. That `/dev/kvm` exists proves nothing: inside other clouds it often is there and hangs, or executes
//! code slower than emulation does.

use std::path::Path;
use std::time::Duration;

use nova_run::{Command, RunError, Runner};

/// Emulation does it in 0.2 s. What takes KVM longer than this is not worth having.
const DEADLINE: Duration = Duration::from_secs(3);
/// `mov dx,0xf4; mov al,0x31; out dx,al; hlt`: ends QEMU with status 2 · 0x31 + 1.
const CODE: [u8; 9] = [0xba, 0xf4, 0x00, 0xb0, 0x31, 0xee, 0xf4, 0xeb, 0xfd];
const STATUS: i32 = 99;
const SECTOR_BYTES: usize = 512;

/// Boots a machine that only tells that it was executed; `folder` holds its disk meanwhile.
pub(super) async fn try_it(runner: &dyn Runner, folder: &Path) -> Result<(), String> {
    let disk = folder.join(format!(".kvm-probe-{}", std::process::id()));
    std::fs::write(&disk, boot_sector()).map_err(|error| format!("{} cannot be written: {error}", disk.display()))?;
    let tried = runner.run(command(&disk)).await;
    // A leftover is overwritten next time.
    let _ = std::fs::remove_file(&disk);
    match tried {
        Err(RunError::Failed { status: Some(STATUS), .. }) => Ok(()),
        Err(RunError::Deadline { .. }) => Err(format!("KVM did not run a boot sector within {} s", DEADLINE.as_secs())),
        Err(RunError::Failed { first_line, .. }) => Err(format!("KVM does not work here ({first_line})")),
        Err(error) => Err(error.to_string()),
        Ok(_) => Err("KVM ran no code".to_owned()),
    }
}

pub(super) fn boot_sector() -> Vec<u8> {
    let mut sector = CODE.to_vec();
    sector.resize(SECTOR_BYTES - 2, 0);
    sector.extend([0x55, 0xaa]);
    sector
}

pub(super) fn command(disk: &Path) -> Command {
    Command::new("qemu-system-x86_64")
        .args([
            "-nodefaults",
            "-no-user-config",
            "-machine",
            "pc,accel=kvm",
            "-m",
            "16",
            "-display",
            "none",
            "-no-reboot",
        ])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .arg("-drive")
        // A comma in a value of QEMU's options is written twice.
        .arg(format!("format=raw,if=floppy,readonly=on,file={}", disk.display().to_string().replace(',', ",,")))
        .deadline(DEADLINE)
}
