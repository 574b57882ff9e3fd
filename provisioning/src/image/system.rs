//! What runs on a device: the agent, the few programs around it with their libraries, the kernel's modules, and
//! the scripts that hold them together. Pure: packages in, a kernel and its initrd out.

use std::io::Write as _;
use std::sync::Arc;

use super::modules::{self, ModuleError};
use super::package::{Package, PackageError};
use super::{Architecture, elf};
use crate::disk::cpio::{Node, Tree};

/// What a system is made of.
#[derive(Debug)]
pub struct Ingredients<'a> {
    /// The device's processor.
    pub architecture: Architecture,
    /// Debian's packages.
    pub packages: &'a [Package],
    /// The agent's program.
    pub agent: &'a [u8],
    /// A time that has surely passed, in seconds since 1970.
    pub made_s: u64,
}

/// A system, ready for a slot.
#[derive(Debug)]
pub struct System {
    /// The kernel.
    pub linux: Arc<[u8]>,
    /// Everything else, packed.
    pub initrd: Vec<u8>,
    /// The boot loader.
    pub loader: Arc<[u8]>,
    /// The kernel's version.
    pub kernel: String,
    /// How much memory the unpacked system takes, in bytes.
    pub unpacked: u64,
}

/// Why there is no system.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SystemError {
    #[error(transparent)]
    Package(#[from] PackageError),
    #[error(transparent)]
    Module(#[from] ModuleError),
    #[error("the packages have no {0}; `muster image build` without --packages fetches what it needs")]
    Missing(String),
    #[error("the agent is no program for {0}; build it with `cargo xtask cross`, or take it from a release")]
    Agent(Architecture),
    #[error("the program {program} needs the library {library}, which no package brings")]
    Library { program: String, library: String },
    #[error("cannot pack the initrd")]
    Pack(#[source] std::io::Error),
}

/// Programs of packages that the scripts call.
const PROGRAMS: [&str; 6] = [
    "usr/bin/busybox",
    "usr/sbin/e2fsck",
    "usr/sbin/mke2fs",
    "usr/sbin/resize2fs",
    "usr/sbin/sfdisk",
    "usr/sbin/tune2fs",
];
const AGENT: &str = "usr/bin/muster-agent";
/// What the scripts call of busybox.
const APPLETS: [&str; 62] = [
    "ash",
    "basename",
    "cat",
    "chmod",
    "chown",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "dirname",
    "dmesg",
    "echo",
    "env",
    "find",
    "free",
    "grep",
    "halt",
    "head",
    "hostname",
    "id",
    "init",
    "insmod",
    "ip",
    "kill",
    "killall",
    "ln",
    "logger",
    "logread",
    "ls",
    "lsmod",
    "mkdir",
    "modprobe",
    "mount",
    "mv",
    "partprobe",
    "poweroff",
    "printf",
    "ps",
    "readlink",
    "reboot",
    "rm",
    "rmmod",
    "sed",
    "sh",
    "sleep",
    "sort",
    "start-stop-daemon",
    "stat",
    "switch_root",
    "sync",
    "syslogd",
    "tail",
    "touch",
    "tr",
    "udhcpc",
    "uevent",
    "umount",
    "uname",
    "uptime",
    "watchdog",
    "xargs",
];
/// The scripts, by their names in `/usr/lib/muster`.
const SCRIPTS: [(&str, &str); 9] = [
    ("agent", include_str!("../../device/agent")),
    ("common", include_str!("../../device/common")),
    ("dhcp", include_str!("../../device/dhcp")),
    ("disk", include_str!("../../device/disk")),
    ("hardware", include_str!("../../device/hardware")),
    ("network", include_str!("../../device/network")),
    ("start", include_str!("../../device/start")),
    ("stop", include_str!("../../device/stop")),
    ("watch", include_str!("../../device/watch")),
];
/// The number of the user that the agent runs as.
const USER: u32 = 990;
/// zstd's: what is slower gains little.
const PACKED: i32 = 12;

/// Puts a system together.
pub fn assemble(from: &Ingredients) -> Result<System, SystemError> {
    if elf::needs(from.agent).is_none_or(|needs| needs.machine != from.architecture.machine()) {
        return Err(SystemError::Agent(from.architecture));
    }
    let all = unpacked(from.packages)?;
    let mut system = Tree::new();
    lay_out(&mut system, from.made_s);
    system.put(AGENT, Node::File(from.agent.into(), true));
    for program in PROGRAMS {
        let (_, bytes) = all.file(program).ok_or_else(|| SystemError::Missing(program.to_owned()))?;
        system.put(program, Node::File(bytes, true));
    }
    system.put("usr/sbin/e2label", Node::Link("tune2fs".to_owned()));
    if let Some((_, settings)) = all.file("etc/mke2fs.conf") {
        system.put("etc/mke2fs.conf", Node::File(settings, false));
    }
    for program in PROGRAMS.iter().chain([&AGENT]) {
        bring_libraries(program, from.architecture, &all, &mut system)?;
    }
    finish(&all, system, from.architecture)
}

/// A kernel with an initrd of nothing but busybox, the modules and one script: what starts a system that lies on
/// a disk.
pub fn boot_only(packages: &[Package], architecture: Architecture, init: &str) -> Result<System, SystemError> {
    let all = unpacked(packages)?;
    let mut system = Tree::new();
    lay_out(&mut system, 0);
    let busybox = "usr/bin/busybox";
    let (_, bytes) = all.file(busybox).ok_or_else(|| SystemError::Missing(busybox.to_owned()))?;
    system.put(busybox, Node::File(bytes, true));
    system.script("init", init);
    finish(&all, system, architecture)
}

fn unpacked(packages: &[Package]) -> Result<Tree, SystemError> {
    let mut all = Tree::new();
    for package in packages {
        package.unpack(&mut all, &|path| !path.starts_with("usr/share/"))?;
    }
    Ok(all)
}

/// Adds the modules, and packs what there is.
fn finish(all: &Tree, mut system: Tree, architecture: Architecture) -> Result<System, SystemError> {
    modules::take(all, &mut system)?;
    let kernel = modules::version(all)?;
    let find = |path: &str| all.file(path).map(|(_, bytes)| bytes).ok_or_else(|| SystemError::Missing(path.to_owned()));
    let linux = find(&format!("boot/vmlinuz-{kernel}"))?;
    let loader = find(architecture.loader().0)?;
    let mut archive = vec![];
    system.archive(&mut archive).map_err(SystemError::Pack)?;
    let unpacked = archive.len() as u64;
    let initrd = pack(&archive).map_err(SystemError::Pack)?;
    Ok(System { linux, initrd, loader, kernel, unpacked })
}

/// One thread, so that the same bytes come out on every machine.
fn pack(archive: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut packer = zstd::stream::write::Encoder::new(vec![], PACKED)?;
    packer.include_checksum(true)?;
    packer.write_all(archive)?;
    packer.finish()
}

/// Everything that is no package's.
fn lay_out(system: &mut Tree, made_s: u64) {
    for folder in ["boot", "data", "dev", "proc", "root", "run", "sys", "tmp", "usr/bin", "usr/sbin", "usr/lib"] {
        system.put(folder, Node::Folder);
    }
    let links = [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64"), ("var", "run")];
    for (link, target) in
        links.into_iter().chain([("init", "usr/bin/busybox"), ("etc/resolv.conf", "/run/resolv.conf")])
    {
        system.put(link, Node::Link(target.to_owned()));
    }
    for applet in APPLETS {
        system.put(&format!("usr/bin/{applet}"), Node::Link("busybox".to_owned()));
    }
    // The kernel calls it by this name.
    system.put("usr/sbin/modprobe", Node::Link("../bin/busybox".to_owned()));
    for (name, script) in SCRIPTS {
        system.script(&format!("usr/lib/muster/{name}"), script);
    }
    system.text("etc/inittab", include_str!("../../device/inittab"));
    system
        .text("etc/passwd", &format!("root:x:0:0::/root:/bin/false\nmuster:x:{USER}:{USER}::/data/agent:/bin/false\n"));
    system.text("etc/group", &format!("root:x:0:\nmuster:x:{USER}:\n"));
    system.text("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n");
    system.text("etc/nsswitch.conf", "hosts: files dns\n");
    system.text("etc/os-release", "ID=muster\nNAME=Muster\nPRETTY_NAME=\"Muster appliance\"\n");
    system.text("etc/muster/built", &format!("{made_s}\n"));
}

/// Puts a program's libraries, and theirs, where it looks for them.
fn bring_libraries(
    program: &str,
    architecture: Architecture,
    all: &Tree,
    system: &mut Tree,
) -> Result<(), SystemError> {
    let mut open = vec![program.to_owned()];
    while let Some(path) = open.pop() {
        let Some((_, bytes)) = system.file(&path) else { continue };
        let Some(needs) = elf::needs(&bytes) else { continue };
        let starter = needs.interpreter.iter().map(|path| path.trim_start_matches('/').to_owned());
        // Where a system of today has it.
        let starter = starter.map(|path| if path.starts_with("usr/") { path } else { format!("usr/{path}") });
        let wanted = needs.libraries.iter().map(|name| format!("{}/{name}", architecture.libraries())).chain(starter);
        for wanted in wanted {
            if system.file(&wanted).is_some() {
                continue;
            }
            let missing = || SystemError::Library { program: program.to_owned(), library: wanted.clone() };
            let (_, bytes) = all.file(&wanted).ok_or_else(missing)?;
            system.put(&wanted, Node::File(bytes, true));
            open.push(wanted);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_scripts_call_is_there() {
        let all: String = SCRIPTS.iter().map(|(_, script)| *script).collect::<Vec<_>>().join("\n");
        // Words that stand where a command does; those below are the shell's own, or programs of packages.
        let known = ["e2fsck", "mke2fs", "resize2fs", "sfdisk", "exec", "exit", "cd", "set", "shift", "export"];
        for applet in ["partprobe", "uevent", "udhcpc", "watchdog", "syslogd", "logger", "start-stop-daemon", "xargs"] {
            assert!(all.contains(applet), "{applet} is in the list and in no script");
            assert!(APPLETS.contains(&applet) || known.contains(&applet));
        }
        assert!(APPLETS.is_sorted());
    }

    #[test]
    fn scripts_are_scripts() {
        for (name, script) in SCRIPTS {
            let checked = std::process::Command::new("sh").args(["-n", "-c", script]).output().expect("a shell");
            assert!(checked.status.success(), "{name}: {}", String::from_utf8_lossy(&checked.stderr));
        }
    }

    #[test]
    fn an_agent_for_another_processor_is_refused() {
        let agent = std::fs::read("/proc/self/exe").expect("this program");
        let other = if cfg!(target_arch = "x86_64") { Architecture::Arm64 } else { Architecture::Amd64 };
        let from = Ingredients { architecture: other, packages: &[], agent: &agent, made_s: 0 };
        assert!(matches!(assemble(&from), Err(SystemError::Agent(_))));
    }
}
