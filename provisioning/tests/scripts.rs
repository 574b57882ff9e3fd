//! The scripts that run on devices, with paths and programs of a test's own. What a program was asked is in a log.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const COMMON: &str = include_str!("../device/common");
const FIRST_BOOT: &str = include_str!("../device/stock/first-boot");
const SET_UP: &str = include_str!("../device/stock/set-up");
const AGENT: &str = include_str!("../device/agent");
const DISK: &str = include_str!("../device/disk");
const DHCP: &str = include_str!("../device/dhcp");
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A machine that is a folder.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new(programs: &[(&str, &str)]) -> Self {
        let machine = Self(tempfile::tempdir().expect("a folder"));
        for folder in
            ["bin", "run/muster", "sys/fs/cgroup/muster/agent", "etc/muster", "boot/muster", "data/agent", "dev"]
        {
            fs::create_dir_all(machine.path(folder)).expect("a folder");
        }
        machine.write("usr/lib/muster/common", &machine.moved(COMMON));
        for (name, script) in [("sleep", ""), ("logger", ""), ("sync", "")].iter().chain(programs) {
            machine.program(name, script);
        }
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// A program in place of the real one; `$R` is the machine.
    fn program(&self, name: &str, script: &str) {
        let root = self.0.path().display();
        self.write(&format!("bin/{name}"), &format!("#!/bin/sh\nR={root}\necho \"{name} $*\" >>$R/log\n{script}\n"));
        let path = self.path(&format!("bin/{name}"));
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a program");
    }

    /// A script with the machine's paths.
    fn moved(&self, script: &str) -> String {
        let root = self.0.path().display();
        let mut moved = script.replace(PATH, "@PATH").replace(">/dev/console", ">>/dev/console");
        for folder in ["/boot", "/data", "/dev/console", "/etc/", "/run/", "/sys/", "/usr/", "/var/lib/"] {
            for before in [" ", "=", "\"", ">", "("] {
                moved = moved.replace(&format!("{before}{folder}"), &format!("{before}{root}{folder}"));
            }
        }
        moved.replace("@PATH", &format!("{root}/bin:{PATH}"))
    }

    fn run(&self, script: &str, words: &[&str]) -> Output {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(self.moved(script)).arg("script").args(words);
        shell.env("PATH", format!("{}:{PATH}", self.path("bin").display())).env("interface", "eth0");
        shell.output().expect("a shell")
    }

    fn log(&self) -> String {
        self.read("log")
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

#[test]
fn a_cut_before_the_agent_is_enabled_lets_first_boot_run_again() {
    let enrols = "mkdir -p $R/var/lib/muster/identity; : >$R/var/lib/muster/identity/enrolment.json";
    let machine = Machine::new(&[("getent", ""), ("install", ""), ("setpriv", enrols), ("systemctl", "exit 1")]);
    machine.write("etc/muster/enrol", "url=https://x\nclaim=c\n");
    machine.write("boot/muster/enrol", "url=https://x\nclaim=c\n");
    assert!(!machine.run(FIRST_BOOT, &[]).status.success());
    assert!(machine.has("etc/muster/enrol"), "its unit asks for this file");

    machine.program("systemctl", "[ ! -e $R/etc/muster/enrol ] || echo \"$1 before the file went\" >>$R/log");
    let output = machine.run(FIRST_BOOT, &[]);
    assert!(output.status.success(), "{output:?}");
    assert!(!machine.has("etc/muster/enrol") && !machine.has("boot/muster/enrol"), "the claim is spent");
    let log = machine.log();
    assert!(log.contains("enable before the file went\nsync \nsystemctl disable muster-enrol.service\n"), "{log}");
    assert!(!log.contains("disable before the file went"), "{log}");
    assert_eq!(log.matches("setpriv").count(), 1, "it enrols once");
}

fn to_be_set_up() -> Machine {
    let machine = Machine::new(&[("systemctl", "")]);
    for name in ["muster-agent", "first-boot", "muster-agent.service", "muster-enrol.service", "agent.toml", "enrol"] {
        machine.write(&format!("boot/firmware/muster/{name}"), name);
    }
    fs::create_dir_all(machine.path("var/lib/cloud/instance")).expect("a folder");
    machine
}

#[test]
fn a_cut_during_set_up_is_made_good_at_the_next_boot() {
    let machine = to_be_set_up();
    machine.program("sync", "exit 1");
    assert!(!machine.run(SET_UP, &[]).status.success());
    let names = ["usr/bin/muster-agent", "usr/lib/muster/first-boot", "etc/muster/enrol"];
    assert!(!names.iter().any(|name| machine.has(name)), "no file has its name before it is on the disk");

    machine.program("sync", "[ ! -e $R/usr/bin/muster-agent ] || echo named >>$R/log");
    let output = machine.run(SET_UP, &[]);
    assert!(output.status.success(), "{output:?}");
    assert!(names.iter().all(|name| machine.has(name)));
    assert_eq!(machine.read("etc/muster/agent.toml"), "agent.toml");
    assert_eq!((mode(&machine.path(names[0])), mode(&machine.path(names[2]))), (0o755, 0o600));
    let log = machine.log();
    let end =
        "enable muster-enrol.service\nsync \nnamed\nsync \nnamed\nsystemctl start --no-block muster-enrol.service\n";
    assert!(log.ends_with(end), "all is on the disk before anything starts: {log}");

    assert!(machine.run(SET_UP, &[]).status.success());
    assert_eq!(machine.log(), log, "what is done is not done again");
}

#[test]
fn a_zero_length_agent_is_replaced_by_the_next_set_up() {
    let machine = to_be_set_up();
    machine.write("usr/bin/muster-agent", "");
    assert!(machine.run(SET_UP, &[]).status.success());
    assert_eq!(machine.read("usr/bin/muster-agent"), "muster-agent");
    assert!(!machine.has("usr/bin/muster-agent.muster-new"));
}

#[test]
fn a_leaving_that_was_cut_off_is_finished_before_anything_else() {
    let machine = Machine::new(&[("start-stop-daemon", "rm $R/data/agent/leaving; exit 3"), ("ip", "echo default")]);
    machine.write("data/agent/leaving", "key");
    assert!(machine.run(AGENT, &[]).status.success());
    let log = machine.log();
    assert!(log.contains("run --config"), "{log}");
    assert!(!machine.has("data/agent/leaving"));
    assert!(machine.read("dev/console").contains("no file muster/enrol"), "it goes on as one that is in no fleet");
}

#[test]
fn a_leaving_that_fails_is_tried_again_before_a_new_enrolment() {
    let machine = Machine::new(&[("start-stop-daemon", "echo no room; exit 1"), ("ip", "echo default")]);
    machine.write("data/agent/leaving", "key");
    machine.write("boot/muster/enrol", "url=https://x\n");
    assert!(machine.run(AGENT, &[]).status.success(), "init starts it again");
    assert!(machine.read("dev/console").contains("cannot finish leaving the fleet, trying again: no room"));
    assert_eq!(machine.log().matches("start-stop-daemon").count(), 1, "it does not enrol");
}

/// A disk of `total` sectors whose third partition has 90,000 for the kernel, and `table` in its table.
fn with_disk(total: u32, table: u32) -> Machine {
    let dump = format!("case $1 in -d) echo '/dev/sda3 : start=        2048, size=  {table}, type=X';; esac");
    let machine = Machine::new(&[("sfdisk", &dump), ("partprobe", "exit 1"), ("e2fsck", ""), ("resize2fs", "")]);
    let facts = [("size", total), ("sda3/partition", 3), ("sda3/start", 2048), ("sda3/size", 90_000)];
    for (name, fact) in facts {
        machine.write(&format!("sys/block/sda/{name}"), &format!("{fact}\n"));
    }
    fs::create_dir_all(machine.path("sys/class/block")).expect("a folder");
    symlink("../../block/sda/sda3", machine.path("sys/class/block/sda3")).expect("a link");
    machine
}

#[test]
fn a_cut_between_the_table_and_the_file_system_is_made_good_at_the_next_boot() {
    let machine = with_disk(92_048, 90_000);
    assert!(machine.run(DISK, &["/dev/sda3"]).status.success());
    let log = machine.log();
    assert!(log.contains("resize2fs -f /dev/sda3") && !log.contains("sfdisk"), "{log}");
}

#[test]
fn a_kernel_that_keeps_the_old_table_starts_again() {
    let machine = with_disk(200_000, 190_000);
    assert!(!machine.run(DISK, &["/dev/sda3"]).status.success());
    assert!(machine.read("dev/console").contains("the kernel has not taken the partition's new size"));
    assert!(!machine.log().contains("resize2fs"));
}

#[test]
fn a_partition_that_cannot_grow_is_used_as_it_is() {
    let machine = with_disk(200_000, 90_000);
    machine.program("sfdisk", "exit 1");
    assert!(machine.run(DISK, &["/dev/sda3"]).status.success());
    assert!(machine.read("dev/console").contains("the next boot tries again"));
}

#[test]
fn an_address_whose_lease_is_over_goes_with_its_name_servers() {
    let machine = Machine::new(&[("ip", "")]);
    machine.write("run/muster/dns.eth0", "nameserver 192.0.2.1\n");
    machine.write("run/muster/dns.eth1", "nameserver 198.51.100.1\n");
    assert!(machine.run(DHCP, &["deconfig"]).status.success());
    assert!(machine.log().contains("ip -4 addr flush dev eth0"));
    assert_eq!(machine.read("run/resolv.conf"), "nameserver 198.51.100.1\n");
}
