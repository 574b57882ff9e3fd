//! A 64-bit ARM machine that QEMU plays: UEFI, one disk, one network card, a watchdog. Cutting its power is a kill:
//! what it had not yet told the disk is lost.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use muster_world::{last_lines, until};

use super::DEADLINE;

/// UEFI for it, as Debian's package has it.
pub const FIRMWARE: &str = "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd";
/// How the machine sees this one's loopback.
pub const HOST: &str = "10.0.2.2";

/// A machine under power.
pub struct Machine {
    child: Child,
    log: PathBuf,
    began: Instant,
}

impl Machine {
    /// Switches it on. What it says on its serial line goes to `log`.
    pub fn start(disk: &Path, log: &Path) -> anyhow::Result<Self> {
        Self::start_with(disk, log, 512)
    }

    /// The same with more memory, in MiB.
    pub fn start_with(disk: &Path, log: &Path, memory: u32) -> anyhow::Result<Self> {
        let output = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
        let mut command = Command::new("qemu-system-aarch64");
        command.args(["-M", "virt", "-cpu", "cortex-a72", "-smp", "2", "-accel", "tcg,thread=multi"]);
        command.args(["-m", &memory.to_string(), "-bios", FIRMWARE]);
        // Without `cache=unsafe`: what the machine flushed is there after a kill.
        command.arg("-drive").arg(format!("file={},if=none,id=disk,format=raw", disk.display()));
        command.args(["-device", "virtio-blk-pci,drive=disk,bootindex=0"]);
        command.args(["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="]);
        command.args(["-device", "virtio-rng-pci", "-device", "i6300esb"]);
        command.args(["-display", "none", "-monitor", "none", "-serial", "stdio"]);
        let child = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn();
        let child = child.context("cannot start qemu-system-aarch64")?;
        Ok(Self { child, log: log.to_owned(), began: Instant::now() })
    }

    /// How long it is on.
    pub fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// What it has said so far.
    pub fn console(&self) -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.log)?).into_owned())
    }

    /// Waits for its words.
    pub fn until(&mut self, what: &str, said: impl Fn(&str) -> bool) -> anyhow::Result<()> {
        let found = until(what, DEADLINE, || {
            self.check()?;
            Ok(said(&self.console()?).then_some(()))
        });
        found.with_context(|| format!("the machine's last words:\n{}", last_lines(&self.log)))
    }

    /// Lets it run until a moment after power-on.
    pub fn run_until(&mut self, moment: Duration) -> anyhow::Result<()> {
        until("a moment", moment + DEADLINE, || {
            self.check()?;
            Ok((self.began.elapsed() >= moment).then_some(()))
        })
    }

    /// An error if it is off.
    pub fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the machine ended ({status}):\n{}", last_lines(&self.log));
        }
        Ok(())
    }

    /// Cuts its power.
    pub fn cut(mut self) -> anyhow::Result<()> {
        self.check()?;
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
