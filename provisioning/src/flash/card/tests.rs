use std::collections::VecDeque;

use proptest::prelude::*;

use super::super::testing::{Fake, Lie};
use super::*;

const MIB: u64 = 1024 * 1024;
const DRIVE: u64 = 24 * MIB;

/// An image that boots: a table, a FAT in its partition, and noise.
fn image() -> Vec<u8> {
    let mut image = gpt::image(12 * MIB, MIB);
    let mut fat = std::io::Cursor::new(vec![0; 4 << 20]);
    let options = fatfs::FormatVolumeOptions::new().fat_type(fatfs::FatType::Fat16).bytes_per_cluster(512);
    fatfs::format_volume(&mut fat, options).expect("formats");
    image[MIB as usize..5 * MIB as usize].copy_from_slice(&fat.into_inner());
    let noise = &mut image[6 * MIB as usize..9 * MIB as usize];
    noise.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at / 777) as u8);
    image
}

fn feeds(image: &[u8], pieces: u64) -> VecDeque<Feed> {
    let piece = |(number, bytes): (usize, &[u8])| {
        let piece = Piece { at: number as u64 * PIECE_BYTES, bytes: Aligned::of(bytes), digest: Digest::of(bytes) };
        Feed::Piece(Arc::new(piece))
    };
    image.chunks(PIECE_BYTES as usize).enumerate().take(pieces as usize).map(piece).collect()
}

/// A drive that had something on it.
fn used(bytes: u64) -> Fake {
    let mut drive = Fake::new(bytes, Lie::None);
    drive.write_at(0, &vec![0xaa; bytes as usize]).expect("writes");
    (drive.written, drive.log) = (0, Vec::new());
    drive
}

fn flash(drive: &mut Fake, job: &Job, stop: &Stop) -> Result<Flashed, (CardError, Left)> {
    let mut feeds = feeds(&image(), u64::MAX);
    feeds.push_back(Feed::End);
    write(drive, job, || feeds.pop_front(), stop, |_, _| {})
}

fn claim() -> Job {
    let file = BootFile { path: "muster/enrol.txt".to_owned(), bytes: b"claim=x\n".to_vec() };
    Job { files: vec![file], ..Job::default() }
}

#[test]
fn a_drive_has_the_image_its_table_at_its_own_end_and_its_file() {
    let mut drive = used(DRIVE);
    let done = flash(&mut drive, &claim(), &Stop::default()).expect("flashes");
    assert_eq!(done, Flashed { bytes: 12 * MIB, verified: true });
    let all = drive.contents(DRIVE);
    // The image, but for its table and the FAT.
    assert!(
        all[5 * MIB as usize..12 * MIB as usize - 512 * 33] == image()[5 * MIB as usize..12 * MIB as usize - 512 * 33]
    );
    let disk = ::gpt::GptConfig::new().only_valid_headers(true).open_from_device(std::io::Cursor::new(all.clone()));
    assert_eq!(disk.expect("both tables are right").partitions().len(), 1);
    let fat = std::io::Cursor::new(all[MIB as usize..5 * MIB as usize].to_vec());
    let fat = fatfs::FileSystem::new(fat, fatfs::FsOptions::new()).expect("a FAT");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut fat.root_dir().open_file("muster/enrol.txt").expect("is there"), &mut text)
        .expect("reads");
    assert_eq!(text, "claim=x\n");
    // The head came last.
    assert_eq!(drive.log.last(), Some(&(0, MIB as usize)));
}

#[test]
fn the_same_image_leaves_the_same_bytes_whatever_chance_the_marks_had() {
    let flashed = |seed: u8| {
        let mut drive = used(DRIVE);
        flash(&mut drive, &Job { seed: [seed; 16], ..claim() }, &Stop::default()).expect("flashes");
        drive.contents(DRIVE)
    };
    assert!(flashed(1) == flashed(2));
}

/// Flashes a drive that makes trouble: how it ends, and what is left on it.
fn trouble(mut drive: Fake, job: &Job) -> (String, Fake) {
    let stop = drive.stop_after.as_ref().map(|(_, stop)| stop.clone()).unwrap_or_default();
    let (error, left) = flash(&mut drive, job, &stop).expect_err("trouble");
    assert!(!error.next_move().is_empty());
    (format!("{error}; {left}"), drive)
}

#[test]
fn whatever_goes_wrong_ends_clearly_with_a_drive_that_starts_nothing() {
    let erased = "; it is erased and starts nothing";
    let stop_after = |bytes: u64| Some((bytes, Stop::default()));
    let cases = [
        (Fake { bad_write: Some(7 * MIB + 5), ..used(DRIVE) }, "cannot write at byte 7340032"),
        (
            Fake { bad_read: Some(8 * MIB + 5_000), ..used(DRIVE) },
            "what was read back at byte 8388608 is not what was written",
        ),
        (Fake { stop_after: stop_after(3 * MIB), ..used(DRIVE) }, "stopped"),
        (Fake { stop_after: stop_after(13 * MIB), ..used(DRIVE) }, "stopped"),
        (used(11 * MIB), "the image is larger than the drive, which holds 11534336 bytes"),
        (
            Fake { sector: 4096, ..used(DRIVE) },
            "the image has its partition table for sectors of 512 bytes, and this drive has sectors of 4096",
        ),
        (
            Fake::new(DRIVE, Lie::Wraps(16 * MIB)),
            "the drive is a counterfeit, or broken: it says that it holds 25165824 bytes, and holds about 16777216",
        ),
        (
            Fake::new(DRIVE, Lie::Drops(13 * MIB)),
            "the drive is a counterfeit, or broken: it says that it holds 25165824 bytes, and holds about 16777216",
        ),
    ];
    for (drive, expected) in cases {
        let (told, mut drive) = trouble(drive, &claim());
        assert_eq!(told, format!("{expected}{erased}"));
        assert!(drive.contents(MIB)[4096..].iter().all(|byte| *byte == 0), "{expected}: its head is empty");
        assert!(!drive.contents(MIB)[510..].starts_with(&[0x55, 0xaa]), "{expected}: it starts nothing");
    }
}

#[test]
fn a_fault_in_the_last_step_is_not_called_safe() {
    let job = Job { skip_counterfeit_check: true, ..claim() };
    let (told, _) = trouble(Fake { bad_read: Some(600), ..used(DRIVE) }, &job);
    assert_eq!(
        told,
        "what was read back at byte 0 is not what was written; \
         do not start it: what is on it is not known to be right"
    );
}

/// Whether the bytes of the claim lie anywhere on a drive.
fn holds_the_claim(drive: &mut Fake) -> bool {
    drive.contents(DRIVE).windows(8).any(|bytes| bytes == b"claim=x\n")
}

#[test]
fn a_claim_that_reached_the_medium_before_the_head_failed_is_not_called_absent() {
    let job = Job { skip_counterfeit_check: true, ..claim() };
    // Where it lies, from a drive that has it.
    let mut drive = used(DRIVE);
    flash(&mut drive, &job, &Stop::default()).expect("flashes");
    let all = drive.contents(DRIVE);
    let at = all.windows(8).position(|bytes| bytes == b"claim=x\n").expect("is there") as u64;
    let last = drive.log.iter().rposition(|(place, _)| *place == 0).expect("a head");
    assert!(drive.log[..last].iter().any(|(place, length)| (*place..place + *length as u64).contains(&at)));
    // Each block of the files' writes fails, is read back as something else, or the head after them fails.
    let body = drive.log.iter().position(|(place, length)| *place > 0 && *length < MIB as usize).expect("files");
    let mut held = 0;
    for (place, length) in &drive.log[body..last] {
        for bad in [*place, place + *length as u64 - 1] {
            for reads in [true, false] {
                let (bad_read, bad_write) = if reads { (Some(bad), None) } else { (None, Some(bad)) };
                let mut drive = Fake { bad_read, bad_write, ..used(DRIVE) };
                let (_, left) = flash(&mut drive, &job, &Stop::default()).expect_err("trouble");
                let holds = holds_the_claim(&mut drive);
                assert!(left.may_hold_files() || !holds, "{bad} {reads}: {left:?}");
                held += usize::from(holds);
            }
        }
    }
    assert!(held > 0, "none of these cases is the one that matters");
    let (told, mut drive) = trouble(Fake { bad_write: Some(600), ..used(DRIVE) }, &Job::default());
    assert!(told.ends_with("it is erased and starts nothing") && !holds_the_claim(&mut drive), "{told}");
}

#[test]
fn who_stops_before_it_begins_finds_nothing_touched() {
    let stop = Stop::default();
    stop.ask();
    let mut drive = used(DRIVE);
    let stopped = flash(&mut drive, &claim(), &stop);
    assert!(matches!(stopped, Err((CardError::Stopped, Left::Untouched))));
    assert!(drive.log.is_empty());
}

#[test]
fn a_claim_without_a_boot_partition_is_an_error_before_the_head_is_written() {
    let mut drive = used(DRIVE);
    let mut feeds = feeds(&vec![1; 3 * MIB as usize], u64::MAX);
    feeds.push_back(Feed::End);
    let refused = write(&mut drive, &claim(), || feeds.pop_front(), &Stop::default(), |_, _| {});
    assert!(matches!(refused, Err((CardError::BootFile(_), Left::Erased))), "{refused:?}");
}

#[test]
fn a_counterfeit_that_keeps_its_marks_in_a_memory_is_found_by_its_image() {
    // The check is skipped, as if the marks had been believed; the image itself wraps.
    let job = Job { skip_counterfeit_check: true, ..Job::default() };
    let (told, _) = trouble(Fake::new(DRIVE, Lie::Wraps(8 * MIB)), &job);
    assert!(told.starts_with("what was read back at byte 1048576 is not what was written"), "{told}");
}

#[test]
fn a_piece_that_ends_within_a_sector_is_not_filled_up_in_the_midst_of_an_image() {
    let piece = |at: u64, length: usize| {
        let bytes = vec![7; length];
        Feed::Piece(Arc::new(Piece { at, bytes: Aligned::of(&bytes), digest: Digest::of(&bytes) }))
    };
    let written = |sector: u32, pieces: &[(u64, usize)]| {
        let mut feeds: VecDeque<Feed> = pieces.iter().map(|(at, length)| piece(*at, *length)).collect();
        feeds.push_back(Feed::End);
        let mut drive = Fake { sector, ..used(DRIVE) };
        let job = Job { skip_counterfeit_check: true, ..Job::default() };
        let done = write(&mut drive, &job, || feeds.pop_front(), &Stop::default(), |_, _| {});
        done.map(|done| done.bytes).map_err(|(error, left)| format!("{error}; {left}"))
    };
    let gap =
        |at: u64| Err(format!("the image has a gap within the sector at byte {at}; it is erased and starts nothing"));
    let at = 2 * MIB;
    assert_eq!(written(4096, &[(at, 4096), (at + 4096, 100)]), Ok(4196));
    assert_eq!(written(4096, &[(at, 512), (at + 1024, 512)]), gap(at + 1024));
    assert_eq!(written(4096, &[(at, 512), (at + 4096, 512)]), gap(at + 4096));
    assert_eq!(written(512, &[(at, 512), (at + 1024, 512)]), Ok(1024));
    assert_eq!(written(512, &[(at + 1, 511)]), gap(at + 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn cut_off_anywhere_it_starts_nothing(pieces in 0_u64..12, verify in any::<bool>()) {
        let mut drive = used(DRIVE);
        let mut feeds = feeds(&image(), pieces);
        let job = Job { skip_verification: !verify, skip_counterfeit_check: true, ..claim() };
        let cut = write(&mut drive, &job, || feeds.pop_front(), &Stop::default(), |_, _| {});
        prop_assert!(matches!(cut, Err((CardError::NoImage, Left::Erased))));
        prop_assert!(drive.contents(MIB).iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_bad_place_anywhere_in_the_image_is_found(at in MIB..12 * MIB, reads in any::<bool>()) {
        let bad = Some(at);
        let drive = if reads { Fake { bad_read: bad, ..used(DRIVE) } } else { Fake { bad_write: bad, ..used(DRIVE) } };
        let (told, _) = trouble(drive, &Job::default());
        let place = at / MIB * MIB;
        // A mark may stand on the bad place and find it first.
        let found = told.contains(&place.to_string()) || told.starts_with("the drive is a counterfeit, or broken");
        prop_assert!(found, "{} {}", at, told);
    }
}
