//! `muster image build`.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use muster_provisioning::image::apt::{self, Wanted};
use muster_provisioning::image::build::Image;
use muster_provisioning::image::package::Package;
use muster_provisioning::image::system::{Ingredients, assemble};
use muster_provisioning::image::{self, Architecture, Kernel};
use muster_provisioning::network::Network;
use muster_provisioning::patch::source;
use muster_shared::Digest;
use muster_shared::digest::Hasher;
use muster_shared::id::Target;
use muster_shared::release::ReleaseVersion;
use serde::Serialize;

use super::inputs::{self, Entry};
use crate::context::Session;
use crate::error::{Attempt as _, Failure, Result, next_move};
use crate::output::{self, Facts};

/// Arguments of `muster image build`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    agent: inputs::Source,
    /// Which of Debian's kernels: generic for boards and PCs, cloud for virtual machines
    #[arg(long, value_enum, default_value = "generic")]
    kernel: KernelName,
    #[command(flatten)]
    entry: Entry,
    /// A fixed address in place of DHCP: a file with address=192.168.7.20/24, gateway= and dns=
    #[arg(long, value_name = "FILE")]
    network: Option<PathBuf>,
    /// A further option for the device's kernel; may be repeated
    #[arg(long = "option", value_name = "WORD")]
    options: Vec<String>,
    /// A mirror of Debian in place of this machine's own sources
    #[arg(long, value_name = "URL", requires = "suite")]
    mirror: Option<String>,
    /// That mirror's suite, as bookworm
    #[arg(long, value_name = "NAME", requires = "mirror")]
    suite: Option<String>,
    /// Take exactly these packages: a folder with .deb files
    #[arg(long, value_name = "DIR", conflicts_with_all = ["mirror", "suite"])]
    packages: Option<PathBuf>,
    /// Where packages are kept for the next time
    #[arg(long, value_name = "DIR", env = "MUSTER_PACKAGES")]
    cache: Option<PathBuf>,
    /// Where the image goes; packed if the name ends with .xz, .gz or .zst
    #[arg(short, long, value_name = "FILE.img")]
    output: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum KernelName {
    Generic,
    Cloud,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    file: &'a Path,
    architecture: Architecture,
    bytes: u64,
    sha256: Digest,
    kernel: &'a str,
    agent: Digest,
    release: &'a ReleaseVersion,
    target: &'a Target,
    packages: &'a [Package],
}

pub fn run(args: Args, session: &Session) -> Result<()> {
    let agent = args.agent.agent(session)?;
    let architecture = image::architecture(&agent.bytes).ok_or_else(|| {
        Failure::new(format!("an appliance is arm64 or amd64, and the agent is for {}", agent.target))
            .hint("name another --target; a 32-bit board's own system takes the agent by `muster image patch`")
    })?;
    let enrolment = args.entry.read(session)?;
    let network = args.network.as_deref().map(network).transpose()?;
    let packages = packages(&args, architecture)?;
    // The newest package's date: a time that has surely passed, and the same whenever this is built again.
    let made_s = packages.iter().map(|package| package.made_s).max().unwrap_or_default();
    let attempt = || format!("cannot make {}", args.output.display());
    eprintln!("putting the system together");
    let from = Ingredients { architecture, packages: &packages, agent: &agent.bytes, made_s };
    let system = assemble(&from).attempt(attempt)?;
    let image = Image {
        architecture,
        system: &system,
        enrolment: enrolment.as_ref(),
        network: network.as_ref(),
        options: &args.options,
    };
    let (bytes, sha256) = write(&image, &args.output)?;
    if args.json {
        output::print_json(&View {
            file: &args.output,
            architecture,
            bytes,
            sha256,
            kernel: &system.kernel,
            agent: Digest::of(&agent.bytes),
            release: &agent.release,
            target: &agent.target,
            packages: &packages,
        })?;
    } else {
        let mut facts = Facts::default();
        facts.add("image", args.output.display());
        facts.add("for", format_args!("{architecture}, started by UEFI"));
        facts.add("agent", format_args!("release {}, {}", agent.release, agent.target));
        facts.add("size", output::bytes(bytes));
        facts.add("sha-256", sha256);
        facts.add("kernel", &system.kernel);
        facts.add("in memory", output::bytes(system.unpacked));
        facts.add("packages", packages.len());
        output::print(&facts.render())?;
    }
    if enrolment.is_none() {
        next_move("nothing lets the device in yet: put the file muster/enrol onto the partition MUSTER after flashing");
    } else {
        next_move(format_args!("`muster flash {} DEVICE` writes it onto a card or a stick", args.output.display()));
    }
    Ok(())
}

fn network(path: &Path) -> Result<Network> {
    let text = inputs::text(path)?;
    Network::parse(&text).attempt(|| format!("cannot use {}", path.display()))
}

fn packages(args: &Args, architecture: Architecture) -> Result<Vec<Package>> {
    let files = match &args.packages {
        Some(folder) => in_folder(folder)?,
        None => {
            let kernel = match args.kernel {
                KernelName::Generic => Kernel::Generic,
                KernelName::Cloud => Kernel::Cloud,
            };
            let mirror = args.mirror.clone().zip(args.suite.clone());
            let cache = cache(args)?;
            let tell = |text: &str| eprintln!("{text}");
            apt::fetch(&Wanted { architecture, kernel, mirror }, &cache, &tell).attempt(|| "cannot fetch packages")?
        }
    };
    files.iter().map(|file| Package::read(file).attempt(|| "cannot make an image")).collect()
}

fn in_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let attempt = || format!("cannot read the folder {}", folder.display());
    let mut files = vec![];
    for entry in std::fs::read_dir(folder).attempt(attempt)? {
        let path = entry.attempt(attempt)?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(Failure::new(format!("{} has no .deb files", folder.display()))
            .hint("without --packages they are fetched from this machine's sources"));
    }
    files.sort();
    Ok(files)
}

fn cache(args: &Args) -> Result<PathBuf> {
    if let Some(cache) = &args.cache {
        return std::path::absolute(cache).attempt(|| "cannot use the folder for packages");
    }
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    base.map(|base| base.join("muster/packages")).ok_or_else(|| {
        Failure::new("there is no place to keep packages: HOME is not set").hint("name one with --cache DIR")
    })
}

/// Writes the image beside its place, then gives it its name. Its length unpacked, and the digest of that.
fn write(image: &Image, output: &Path) -> Result<(u64, Digest)> {
    let attempt = || format!("cannot make {}", output.display());
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut staged = tempfile::Builder::new().prefix(".muster-image-").tempfile_in(folder).attempt(attempt)?;
    let bytes = image.write(staged.as_file_mut()).attempt(attempt)?;
    let sha256 = digest(staged.path()).attempt(attempt)?;
    put(staged, output)?;
    Ok((bytes, sha256))
}

/// Gives a raw image its name, packed where that asks for it.
pub fn put(mut staged: tempfile::NamedTempFile, output: &Path) -> Result<()> {
    let attempt = || format!("cannot make {}", output.display());
    if source::is_packed(output) {
        source::pack(staged.as_file_mut(), output).attempt(attempt)?;
    } else {
        source::keep(staged, output).attempt(attempt)?;
    }
    Ok(())
}

fn digest(path: &Path) -> std::io::Result<Digest> {
    let mut file = File::open(path)?;
    let (mut hasher, mut piece) = (Hasher::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&piece[..read]),
        }
    }
}
