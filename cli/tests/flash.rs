//! `muster flash` as a person meets it, with plain files for cards and a folder for a machine: what is refused,
//! what is left when it is cut off, and that nothing else is touched.

mod common;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::Desk;
use muster_shared::Digest;
use muster_shared::claim::ClaimToken;

const MIB: usize = 1024 * 1024;
/// Longer than anything here takes, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// An image without a partition table: a FAT of 16 MiB, with noise in its free room.
fn image() -> Vec<u8> {
    let mut fat = std::io::Cursor::new(vec![0; 16 * MIB]);
    let options = fatfs::FormatVolumeOptions::new().fat_type(fatfs::FatType::Fat16);
    fatfs::format_volume(&mut fat, options).expect("formats");
    let mut bytes = fat.into_inner();
    bytes[8 * MIB..12 * MIB].iter_mut().enumerate().for_each(|(at, byte)| *byte = (at / 999) as u8);
    bytes
}

/// A desk with an image, and a card that had something on it.
fn desk() -> (Desk, String, String) {
    let desk = Desk::new();
    let (image_path, card) = (desk.path("image.img"), desk.path("card"));
    std::fs::write(&image_path, image()).expect("writes");
    std::fs::write(&card, vec![0xaa; 24 * MIB]).expect("writes");
    (desk, image_path.display().to_string(), card.display().to_string())
}

/// A machine in a folder: `sda` is what it runs from, `sdb` a stick.
fn machine(desk: &Desk, mounts: &str) -> String {
    let root = desk.path("machine");
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, text).expect("writes");
    };
    for (name, number, way, removable) in [("sda", "8:0", "ata1", "0"), ("sdb", "8:16", "usb1", "1")] {
        let folder = format!("sys/devices/{way}/block/{name}");
        for (attribute, value) in
            [("dev", number), ("size", "49152"), ("ro", "0"), ("removable", removable), ("device/model", "Acme")]
        {
            write(&format!("{folder}/{attribute}"), value);
        }
        write(&format!("{folder}/{name}1/partition"), "1");
        write(&format!("{folder}/{name}1/dev"), number.replace(":", ":10").as_str());
        for class in ["sys/block", "sys/class/block"] {
            std::fs::create_dir_all(root.join(class)).expect("a folder");
            let _ = std::os::unix::fs::symlink(root.join(&folder), root.join(class).join(name));
        }
        if !root.join("dev").join(name).exists() {
            write(&format!("dev/{name}"), &"x".repeat(24 * MIB));
        }
    }
    let line = |line: &str| {
        let (source, at) = line.split_once(' ').expect("two words");
        format!("1 1 9:9 / {at} rw - ext4 {source} rw\n")
    };
    write("proc/self/mountinfo", &mounts.lines().map(line).collect::<String>());
    root.display().to_string()
}

fn read(path: impl AsRef<Path>) -> Vec<u8> {
    std::fs::read(path).expect("reads")
}

#[test]
fn an_image_comes_onto_a_file_whatever_it_is_packed_in() {
    let (desk, image_path, card) = desk();
    let said = desk.ok(&["flash", &image_path, &card, "--yes"]);
    assert_eq!(said, format!("{card}: 16.00 MiB written and read back\n"));
    assert!(read(&card)[..16 * MIB] == image());
    let packed = desk.path("image.img.gz");
    let mut encoder =
        flate2::write::GzEncoder::new(std::fs::File::create(&packed).expect("a file"), Default::default());
    encoder.write_all(&image()).expect("packs");
    encoder.finish().expect("packs");
    let new = desk.path("new").display().to_string();
    let told = desk.json(&["flash", &packed.display().to_string(), &new, "--size", "20Mi", "-o", "json"]);
    assert_eq!(told["bytes"], 16 * MIB);
    assert!(read(&new)[..16 * MIB] == image() && read(&new).len() == 20 * MIB);
}

#[test]
fn drives_are_listed_with_what_speaks_against_them() {
    let desk = Desk::new();
    let machine = machine(&desk, "/dev/sda1 /");
    let listed = desk.ok(&["flash", "--machine", &machine]);
    assert_eq!(
        listed,
        "NAME   SIZE        BUS    MODEL   STATE\n\
         sdb    24.00 MiB   USB    Acme    may be written\n\
         sda    24.00 MiB   disk   Acme    this machine runs from it (mounted at /)\n"
    );
    assert_eq!(desk.json(&["flash", "--machine", &machine, "-o", "json"])[1]["name"], "sda");
}

#[test]
fn what_must_not_be_written_is_refused_and_stays_as_it_was() {
    let (desk, image, card) = desk();
    let machine_path = machine(&desk, "/dev/sda1 /\n/dev/sdb1 /media/card");
    let dev = |name: &str| desk.path("machine/dev").join(name);
    let before: Vec<Vec<u8>> = [dev("sda"), dev("sdb"), card.clone().into()].iter().map(read).collect();
    let refused = |device: &str, error: &str, hint: &str| {
        desk.refused(&["flash", &image, device, "--yes", "--machine", &machine_path], error, hint);
    };
    refused("sda", "sda is not written to: this machine runs from it (mounted at /)", "name another drive");
    refused("sdb", "sdb is not written to: sdb1 is mounted at /media/card", "umount '/media/card'");
    refused("sdc", "there is no drive and no file sdc", "lists drives");
    refused(&image, "is the image itself", "name the drive");
    refused("/dev/null", "is neither a drive nor a plain file", "lists the drives");
    let small = desk.write("small", "x");
    refused(&small, "holds 1 bytes, and 16777216 are needed", "make it larger");
    let built_in = ["flash", &image, "sda", "--yes", "--built-in", "--machine", &machine_path];
    desk.refused(&built_in, "this machine runs from it", "never written");
    machine(&desk, "/dev/sda1 /");
    desk.refused(&["flash", &image, &card], "nothing was changed", "--yes");
    desk.refused(&["flash", &image, &card, &card, "--yes"], "is named twice", "once");
    desk.refused(&["flash", &image], "no drive is named", "`muster flash`");
    let zip = desk.write("image.zip", "PK\u{3}\u{4}");
    desk.refused(&["flash", &zip, &card, "--yes"], "is a zip archive", "get the image again");
    desk.refused(&["flash", "/no/such", &card, "--yes"], "cannot read /no/such", "check the path");
    let after: Vec<Vec<u8>> = [dev("sda"), dev("sdb"), card.into()].iter().map(read).collect();
    assert!(before == after, "nothing was touched");
    assert_eq!(read(&small), b"x");
}

#[test]
fn a_damaged_download_is_found_before_anything_is_erased() {
    let (desk, _, card) = desk();
    let packed = desk.path("image.xz");
    std::fs::write(&packed, [b"\xfd7zXZ\0".as_slice(), &[7; 5000]].concat()).expect("writes");
    let before = read(&card);
    desk.refused(&["flash", &packed.display().to_string(), &card, "--yes"], "is damaged", "get the image again");
    assert!(read(&card) == before);
}

/// An enrolment file of a device.
fn enrolment(number: u8) -> String {
    let claim = ClaimToken {
        id: [number; 8],
        secret: [number; 16],
        root: Digest::of("root"),
        ca: Digest::of("ca"),
        issued_ms: 1,
    };
    format!("url=https://plane:8443\nclaim={claim}\nname=edge-{number}\n")
}

fn on_card(path: impl AsRef<Path>) -> Option<String> {
    let fat = fatfs::FileSystem::new(std::io::Cursor::new(read(path)), fatfs::FsOptions::new()).expect("a FAT");
    let mut text = String::new();
    let root = fat.root_dir();
    std::io::Read::read_to_string(&mut root.open_file("muster/enrol").ok()?, &mut text).expect("reads");
    Some(text)
}

/// A folder of claims, and how many lie in each of its folders.
fn kit(desk: &Desk, claims: u8) -> (String, impl Fn() -> [usize; 3]) {
    let folders = ["cards", "taken", "flashed"].map(|folder| desk.path(&format!("kit/{folder}")));
    for folder in &folders {
        std::fs::create_dir_all(folder).expect("a folder");
    }
    for number in 1..=claims {
        desk.write(&format!("kit/cards/0000{number}-edge-{number}.enrol"), &enrolment(number));
    }
    let left = move || folders.each_ref().map(|folder| std::fs::read_dir(folder).expect("reads").count());
    (desk.path("kit").display().to_string(), left)
}

#[test]
fn an_output_that_takes_no_line_does_not_give_claims_to_a_second_card() {
    let (desk, image, _) = desk();
    let (kit, left) = kit(&desk, 3);
    let card = |number: usize| desk.path(&format!("card-{number}")).display().to_string();
    for number in 1..=2 {
        std::fs::write(card(number), vec![0xaa; 24 * MIB]).expect("writes");
    }
    let full = std::fs::File::options().write(true).open("/dev/full").expect("every system has it");
    let flash = Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(["flash", &image, &card(1), &card(2), "--yes", "--claims", &kit])
        .env_clear()
        .env("MUSTER_HOME", desk.path("home"))
        .stdout(full)
        .output()
        .expect("starts");
    assert_eq!(flash.status.code(), Some(1), "{}", String::from_utf8_lossy(&flash.stderr));
    assert_eq!([1, 2].map(|number| on_card(card(number))), [Some(enrolment(1)), Some(enrolment(2))]);
    assert_eq!(left(), [1, 0, 2]);
}

#[test]
fn many_cards_get_one_claim_each_and_a_failed_one_gives_its_back() {
    let (desk, image, _) = desk();
    let (kit, left) = kit(&desk, 4);
    let card = |number: usize| desk.path(&format!("card-{number}")).display().to_string();
    for number in 1..=3 {
        std::fs::write(card(number), vec![0xaa; 24 * MIB]).expect("writes");
    }
    let said = desk.ok(&["flash", &image, &card(1), &card(2), &card(3), "--yes", "--claims", &kit]);
    assert_eq!(said.lines().count(), 3);
    assert!(said.contains("with the claim 00002-edge-2"), "{said}");
    for number in 1..=3 {
        assert_eq!(on_card(card(number)), Some(enrolment(number as u8)));
    }
    assert_eq!(left(), [1, 0, 3]);
    let args = ["flash", &image, &card(1), &card(2), "--yes", "--claims", &kit];
    desk.refused(&args, "has claims for 1 more cards, and 2 are to be written", "write fewer cards");
    assert_eq!(left(), [1, 0, 3]);
    // An image that no file fits on: the claim goes back.
    let bare = desk.path("bare.img");
    std::fs::write(&bare, vec![1; 2 * MIB]).expect("writes");
    let args = ["flash", &bare.display().to_string(), &card(1), "--yes", "--claims", &kit];
    desk.refused(&args, "has no boot partition with a FAT file system", "boot partition");
    assert_eq!(left(), [1, 0, 3]);
}

#[test]
fn an_interrupt_halfway_leaves_a_card_that_starts_nothing_and_touches_nothing_else() {
    let (desk, _, card) = desk();
    let neighbour = desk.write("neighbour", "mine");
    let mut flash = Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(["flash", "-", &card, "--yes", "--no-counterfeit-check"])
        .env_clear()
        .env("MUSTER_HOME", desk.path("home"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut pipe = flash.stdin.take().expect("a pipe");
    // Half of it, and no more: it waits for the rest.
    pipe.write_all(&image()[..9 * MIB]).expect("writes");
    let began = Instant::now();
    // Its eighth MiB is there: so it is in the middle.
    while read(&card)[7 * MIB..8 * MIB] != image()[7 * MIB..8 * MIB] {
        assert!(began.elapsed() < PATIENCE, "it never came so far");
        std::thread::yield_now();
    }
    let id = rustix::process::Pid::from_child(&flash);
    rustix::process::kill_process(id, rustix::process::Signal::INT).expect("signals");
    let ended = flash.wait_with_output().expect("ends");
    drop(pipe);
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("error: stopped; ") && stderr.contains("it is erased and starts nothing"), "{stderr}");
    assert!(read(&card)[..MIB].iter().all(|byte| *byte == 0), "its head is empty");
    assert_eq!(read(&neighbour), b"mine");
    desk.ok(&["flash", &desk.write("again.img", "hello"), &card, "--yes"]);
}
