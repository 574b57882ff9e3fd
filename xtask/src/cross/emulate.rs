//! Another processor, played by QEMU for programs of this machine's kernel.
//!
//! The agent starts its workers from its own file, which this kernel cannot run. So it is told how, in a
//! namespace that only these programs are in (Linux 6.7 and later): the agent starts them as it does on a
//! device, and nothing in it knows. There, `/proc/cpuinfo` is that of the played machine, too.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use muster_world::output;

use super::target::Processor;
use crate::setup;

/// Makes a program that is `agent` on this processor, to whoever starts it; and tries it.
pub fn played(processor: &Processor, agent: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let (library, package) = processor.library;
    setup::program(processor.emulator, "qemu-user")?;
    setup::folder(Path::new(library), package)?;
    let name = processor.name.replace(' ', "-");
    fs::create_dir_all(folder)?;
    let folder = folder.canonicalize()?;
    let cpuinfo = folder.join(format!("{name}.cpuinfo"));
    fs::write(&cpuinfo, processor.cpuinfo)?;
    let interpreter = script(
        &folder.join(format!("{name}.qemu")),
        &format!("exec {} -cpu {} -L {library} \"$@\"\n", processor.emulator, processor.model),
    )?;
    let rule = folder.join(format!("{name}.rule"));
    fs::write(&rule, rule_for(processor, &interpreter))?;
    let inside = format!(
        "mount -t binfmt_misc none /proc/sys/fs/binfmt_misc\n\
         cat {} > /proc/sys/fs/binfmt_misc/register\n\
         mount --bind {} /proc/cpuinfo\n\
         exec \"$@\"\n",
        rule.display(),
        cpuinfo.display()
    );
    let inside = script(&folder.join(format!("{name}.inside")), &inside)?;
    let agent = agent.canonicalize()?;
    let outside =
        format!("exec unshare --user --map-root-user --mount -- {} {} \"$@\"\n", inside.display(), agent.display());
    let played = script(&folder.join(format!("{name}.agent")), &outside)?;
    let said = output(Command::new(&played).arg("--version")).context(
        "this kernel lets nobody but root say how programs of another processor are run: that takes Linux 6.7 or \
         later with user namespaces",
    )?;
    ensure!(said.starts_with("muster-agent "), "the agent says `{said}` of itself");
    Ok(played)
}

/// How the kernel knows such a program, by the beginning of its file, and what runs it.
fn rule_for(processor: &Processor, interpreter: &Path) -> String {
    let class = if processor.wide { 2 } else { 1 };
    let [low, high] = processor.machine.to_le_bytes();
    // Magic, class, byte order, version; the system's number does not matter; then the kind of file,
    // of which a program has either (2 or 3), and the processor.
    let head = [0x7f, b'E', b'L', b'F', class, 1, 1];
    let spelled = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    let magic = spelled(&[&head[..], &[0; 9], &[2, 0, low, high]].concat());
    let mask = spelled(&[&[0xff; 7][..], &[0; 9], &[0xfe, 0xff, 0xff, 0xff]].concat());
    format!(":muster:M::{magic}:{mask}:{}:", interpreter.display())
}

fn script(path: &Path, text: &str) -> anyhow::Result<PathBuf> {
    fs::write(path, format!("#!/bin/sh\nset -e\n{text}"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_knows_programs_of_its_processor() {
        let processor = super::super::target::Target::Armv7Gnu.processors()[0].machine;
        assert_eq!(processor, 40);
        let rule = rule_for(&super::super::target::Target::Aarch64Gnu.processors()[0], Path::new("/x/qemu"));
        let [magic, mask] = [4, 5].map(|field| rule.split(':').nth(field).expect("a field").to_owned());
        assert_eq!(magic.len(), mask.len());
        assert!(magic.starts_with("\\x7f\\x45\\x4c\\x46\\x02\\x01\\x01\\x00"), "{magic}");
        assert!(magic.ends_with("\\x02\\x00\\xb7\\x00"), "{magic}");
        // The kernel takes no longer rule.
        assert!(rule.len() < 1920);
    }
}
