//! Everything in this crate that reads bytes from outside, on inputs that are nearly good: see [`muster_fuzz`].

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::{Cursor, Write as _};
use std::ops::ControlFlow;

use muster_fuzz::{PeakAlloc, alone};
use muster_provisioning::bulk;
use muster_provisioning::enrolment::Enrolment;
use muster_provisioning::flash::Stop;
use muster_provisioning::flash::bmap::Bmap;
use muster_provisioning::flash::boot_files::BootFile;
use muster_provisioning::flash::card::{CardError, Job};
use muster_provisioning::flash::drives::{self, Machine};
use muster_provisioning::flash::many::{self, Card};
use muster_provisioning::flash::medium::DiskFile;
use muster_provisioning::flash::source::Image;
use muster_shared::Digest;

#[global_allocator]
static COUNTED: PeakAlloc = PeakAlloc;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// A block map with its own checksum put right, whatever else was changed.
fn sealed(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let own = Digest::of(&text).to_string();
    text.replacen(&"0".repeat(64), &own, 1)
}

#[test]
fn texts_of_people_and_other_programs_are_read_or_refused() {
    let alone = alone();
    let map = format!(
        "<bmap version=\"2.0\"><ImageSize>10000</ImageSize><BlockSize>4096</BlockSize><ChecksumType>sha256\
         </ChecksumType><BmapFileChecksum>{}</BmapFileChecksum><BlockMap><Range chksum=\"{}\">0-1</Range>\
         <Range chksum=\"{}\">2</Range></BlockMap></bmap>",
        "0".repeat(64),
        "a".repeat(64),
        "b".repeat(64)
    );
    alone.parser("block maps", [map]).memory(512, 256 * KIB).run(|bytes| Bmap::parse(&sealed(bytes)).is_ok());
    let tables = ["name,site,rack\nedge-1,north,7\n# a word\nedge-2,\"south\",\n", "name;site\r\nedge-1;north\r\n"];
    alone.parser("tables of devices", tables).run(|bytes| bulk::read(&String::from_utf8_lossy(bytes)).is_ok());
    let digest = "a".repeat(64);
    let file = format!("url=https://plane:8443\nroot-digest={digest}\nca-digest={digest}\nname=edge-1\nlabel=a=b\n");
    alone.parser("enrolment files", [file]).run(|bytes| Enrolment::parse(&String::from_utf8_lossy(bytes)).is_ok());
}

#[test]
fn what_the_kernel_tells_of_drives_is_read_or_left_out() {
    let alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path);
    for path in ["sys/block", "sys/class/block", "sys/devices/usb1/sdb/queue", "proc/self", "dev"] {
        fs::create_dir_all(at(path)).unwrap();
    }
    std::os::unix::fs::symlink(at("sys/devices/usb1/sdb"), at("sys/block/sdb")).unwrap();
    let good = "8:16\n#4096\n#1\n#0\n#512\n#22 1 8:17 / /media/my\\040card rw - vfat /dev/sdb1 rw\n\
                #Filename\n/dev/zram0 p 1 0 1\n";
    let names = [
        "sys/devices/usb1/sdb/dev",
        "sys/devices/usb1/sdb/size",
        "sys/devices/usb1/sdb/removable",
        "sys/devices/usb1/sdb/ro",
        "sys/devices/usb1/sdb/queue/logical_block_size",
        "proc/self/mountinfo",
        "proc/swaps",
    ];
    let machine = Machine::under(folder.path());
    alone.parser("drives", [good]).inputs(600).long_inputs(100_000).memory(64, 512 * KIB).run(|bytes| {
        let mut parts = bytes.split(|byte| *byte == b'#');
        for name in names {
            fs::write(at(name), parts.next().unwrap_or_default()).unwrap();
        }
        drives::list(&machine).is_ok_and(|drives| !drives.is_empty())
    });
}

fn noise(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * at / 7) as u8).collect()
}

#[test]
fn packed_images_are_unpacked_or_refused() {
    let alone = alone();
    let raw = noise(3_000);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&raw).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
    xz.write_all(&raw).unwrap();
    let seeds = [gz.finish().unwrap(), xz.finish().unwrap(), zstd::encode_all(&raw[..], 1).unwrap(), raw];
    let file = tempfile::NamedTempFile::new().unwrap();
    let image = Image { path: file.path().to_owned(), bmap: None };
    // Windows of unpackers.
    alone.parser("packed images", seeds).inputs(2_000).long_inputs(200_000).memory(256, 16 * MIB).run(|bytes| {
        fs::write(file.path(), bytes).unwrap();
        let looked = image.look(MIB as u64, |_| ControlFlow::Continue(()));
        let Ok(mut pieces) = image.pieces(&Stop::default()) else { return false };
        while let Ok(Some(piece)) = pieces.read() {
            assert!(piece.bytes.len() <= MIB);
            if piece.at > 4 * MIB as u64 {
                break;
            }
        }
        looked.is_ok()
    });
}

#[test]
fn an_image_with_any_table_and_file_system_becomes_a_card_or_is_refused() {
    let alone = alone();
    let mut fat = Cursor::new(vec![0; 3 * MIB]);
    let options = fatfs::FormatVolumeOptions::new().fat_type(fatfs::FatType::Fat16).bytes_per_cluster(512);
    fatfs::format_volume(&mut fat, options).unwrap();
    let fat = fat.into_inner();
    // As a whole drive, and in a partition of the old table; what is changed is the first sectors.
    let mut table = vec![0; MIB];
    table[446 + 4] = 0x0c;
    table[446 + 8..446 + 12].copy_from_slice(&2048_u32.to_le_bytes());
    table[446 + 12..446 + 16].copy_from_slice(&(6 * KIB as u32).to_le_bytes());
    table[510..512].copy_from_slice(&[0x55, 0xaa]);
    let wholes = [fat.clone(), [table, fat].concat()];
    let seeds: Vec<Vec<u8>> = wholes.iter().map(|whole| whole[..2 * KIB].to_vec()).collect();
    let (source, target) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let image = Image { path: source.path().to_owned(), bmap: None };
    let mut turn = 0;
    let parser = alone.parser("images", seeds).inputs(200).long_inputs(20_000);
    parser.memory(0, 64 * MIB).past_permille_min(1).run(|bytes| {
        turn += 1;
        // The samples come first, each with its own rest.
        let mut whole = wholes[if turn <= 2 { turn - 1 } else { turn % 2 }].clone();
        let count = bytes.len().min(whole.len());
        whole[..count].copy_from_slice(&bytes[..count]);
        fs::write(source.path(), &whole).unwrap();
        fs::write(target.path(), vec![0xaa; 5 * MIB]).unwrap();
        let open = File::options().read(true).write(true).open(target.path()).unwrap();
        let medium = Box::new(DiskFile::plain(open, 5 * MIB as u64, false));
        let files = vec![BootFile { path: "muster/enrol".to_owned(), bytes: b"x".to_vec() }];
        let card = Card { medium, job: Job { files, ..Job::default() } };
        let outcome = many::flash(&image, vec![card], &Stop::default(), &|_, _, _| {});
        assert!(!matches!(outcome.cards[0], Err((CardError::Fault, _))), "a writer panicked");
        outcome.cards[0].is_ok()
    });
}
