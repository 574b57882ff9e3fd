//! The other side of the wire: a control plane on loopback, an image made by the command line, disks.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use muster_provisioning::disk::table::{self, Partition};
use muster_provisioning::disk::{Window, fat};
use muster_provisioning::enrolment;
use muster_world::{World, output, until};
use serde_json::Value;
use tempfile::TempDir;

use super::machine::{HOST, Machine};
use super::{DEADLINE, programs};
use crate::cross::Target;
use crate::release::{self, Options as Release};

/// The device's disk: larger than the image, so that it has to grow.
const DISK_BYTES: u64 = 1 << 30;
const DISK_SIZE: &str = "1Gi";

/// A control plane, and an image for its devices.
pub struct Fleet {
    /// The control plane's side.
    pub world: World,
    /// The release that the agent for devices is from, signed by the first fleet's release key.
    pub release: PathBuf,
    image: Rc<Image>,
    told: Vec<(String, f64)>,
}

/// An image that no fleet's claim is in.
struct Image {
    file: PathBuf,
    _folder: TempDir,
}

impl Fleet {
    /// Starts the control plane, makes and signs a release of the agent, and builds the image, twice: the bytes must
    /// be the same.
    pub fn start(agent: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("muster-boot-").tempdir()?;
        let image = Rc::new(Image { file: folder.path().join("muster.img"), _folder: folder });
        let world = world()?;
        let release = world.folder().join("release");
        let target = Target::Aarch64Gnu.triple().parse()?;
        release::make(&Release::one(target, Some(agent.to_owned()), release.clone()))?;
        world.muster(&["release", "sign", release.to_str().context("a path that is text")?])?;
        let mut fleet = Self { world, release, image, told: vec![] };
        let began = Instant::now();
        let first = fleet.build(&fleet.image.file)?;
        fleet.told.push(("image built".to_owned(), began.elapsed().as_secs_f64()));
        let again = fleet.world.folder().join("again.img");
        let second = fleet.build(&again)?;
        fs::remove_file(again)?;
        ensure!(first == second, "built twice from the same inputs, the image has the digests {first} and {second}");
        Ok(fleet)
    }

    /// Another control plane, with the same image.
    pub fn another(&self) -> anyhow::Result<Self> {
        Ok(Self { world: world()?, release: self.release.clone(), image: self.image.clone(), told: vec![] })
    }

    /// Steps so far, and how long they took.
    pub fn told(&self) -> Vec<(String, f64)> {
        self.told.clone()
    }

    /// `muster image build`; the image's digest.
    fn build(&self, to: &Path) -> anyhow::Result<String> {
        let mut build = self.muster(&["image", "build", "--json", "--release"]);
        let told: Value = serde_json::from_str(&output(build.arg(&self.release).arg("--output").arg(to))?)?;
        Ok(told["sha256"].as_str().context("the command line says no digest")?.to_owned())
    }

    /// The command line of the fleet's operator.
    pub fn muster(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.world.programs().muster);
        command.args(arguments).env("MUSTER_HOME", self.world.home());
        command
    }

    /// The enrolment file for a device: a claim of its own.
    pub fn enrolment(&self, device: &str) -> anyhow::Result<String> {
        let claim = self.world.muster(&["claim", "new"])?;
        Ok(format!("url={}\nclaim={}\nname={device}\n", self.url()?, claim.trim()))
    }

    /// The control plane, as a machine reaches it.
    pub fn url(&self) -> anyhow::Result<String> {
        let (_, port) = self.world.plane().http.rsplit_once(':').context("the API has no port")?;
        Ok(format!("https://{HOST}:{port}"))
    }

    /// A new disk: `muster flash` writes the image, and what lets this device in, onto a file.
    pub fn new_disk(&self, device: &str) -> anyhow::Result<PathBuf> {
        let disk = self.world.folder().join(format!("{device}.disk"));
        let enrol = self.world.folder().join(format!("{device}.enrol"));
        fs::write(&enrol, self.enrolment(device)?)?;
        let mut flash = self.muster(&["flash", "--yes", "--size", DISK_SIZE, "--enrol"]);
        output(flash.arg(&enrol).arg(&self.image.file).arg(&disk))?;
        fs::remove_file(enrol)?;
        Ok(disk)
    }

    /// Where a machine's words go.
    pub fn log(&self, name: &str) -> PathBuf {
        self.world.folder().join(format!("{name}.console"))
    }

    /// Waits until the control plane hears a device.
    pub fn until_connected(&mut self, device: &str, machine: &mut Machine) -> anyhow::Result<()> {
        self.until(&format!("{device} to be connected"), machine, |world| {
            // Before it has enrolled there is no such device.
            let told = world.devices()?;
            Ok(told.iter().any(|told| told["id"] == device && told["connected"] == true).then_some(()))
        })
    }

    /// Waits until a connected device serves a version.
    pub fn until_serves(&mut self, device: &str, model: &str, version: u64, on: &mut Machine) -> anyhow::Result<()> {
        self.until(&format!("{device} to serve {model} {version}"), on, |world| {
            let told = world.device(device)?;
            let slots = told["slots"].as_array().into_iter().flatten();
            let serves = |slot: &&Value| {
                let phase = matches!(slot["phase"].as_str(), Some("serving" | "probation"));
                slot["deployment"] == model && phase && slot["running"]["version"] == version
            };
            Ok((told["connected"] == true && slots.filter(serves).count() == 1).then_some(()))
        })
    }

    /// Waits until the control plane knows that a device is gone: what it says afterwards is new.
    pub fn until_gone(&mut self, device: &str) -> anyhow::Result<()> {
        until(&format!("{device} to be gone"), DEADLINE, || {
            self.world.check_plane()?;
            Ok((self.world.device(device)?["connected"] == false).then_some(()))
        })
    }

    /// Waits for something that the control plane knows, as long as the machine is on.
    pub fn until<T>(
        &mut self,
        what: &str,
        machine: &mut Machine,
        mut look: impl FnMut(&World) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let found = until(what, DEADLINE, || {
            machine.check()?;
            self.world.check_plane()?;
            look(&self.world)
        });
        found.with_context(|| format!("the machine said:\n{}", machine.console().unwrap_or_default()))
    }

    /// Whether what a power cut left behind is in order: the partition that the firmware reads can be read, and
    /// the data's file system has at most a journal to replay.
    pub fn check_disk(&self, disk: &Path) -> anyhow::Result<()> {
        let mut file = File::options().read(true).write(true).open(disk)?;
        let (_, partitions) = table::read(&mut file)?;
        let data = partitions.iter().find(|partition| partition.name == "muster-data").context("no muster-data")?;
        let end = data.start + data.bytes;
        ensure!(DISK_BYTES - end < 16 << 20, "the partition for data did not grow: it ends at {end}");
        let esp = esp(&mut file)?;
        let system = fat::open(Window::new(&file, esp.start, esp.bytes)?)?;
        let entries = fat::names(&system, "loader/entries")?;
        ensure!(entries == ["muster-a.conf"], "the boot menu has {entries:?}");
        ensure!(fat::get(&system, enrolment::PATH)?.is_none(), "the spent claim still lies on the disk");
        // A copy of the partition alone: the check replays the journal first, as the device would.
        let copied = disk.with_extension("checked");
        let mut dd = Command::new("dd");
        dd.arg(format!("if={}", disk.display())).arg(format!("of={}", copied.display()));
        dd.args([&format!("skip={}", data.start), &format!("count={}", data.bytes)]);
        output(dd.args(["bs=1M", "iflag=skip_bytes,count_bytes", "conv=sparse", "status=none"]))?;
        let check = |arguments: &[&str]| output(Command::new("/usr/sbin/e2fsck").args(arguments).arg(&copied));
        check(&["-p", "-E", "journal_only"])
            .and_then(|_| check(&["-f", "-n"]))
            .context("the file system for data is damaged")?;
        Ok(fs::remove_file(copied)?)
    }
}

fn world() -> anyhow::Result<World> {
    World::start_with(programs()?, &["--name", HOST], &|text| eprintln!("{text}"))
}

/// The partition that the firmware reads.
pub fn esp(disk: &mut File) -> anyhow::Result<Partition> {
    let (_, partitions) = table::read(disk)?;
    partitions.into_iter().find(|partition| partition.name == "muster-esp").context("the disk has no muster-esp")
}
