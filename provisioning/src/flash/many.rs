//! One image to several cards at once: it is read and unpacked once, and every card takes the pieces at the pace
//! of the slowest. A card that fails drops out; the others go on.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::card::{self, CardError, Feed, Flashed, Job};
use super::medium::Medium;
use super::source::{Image, SourceError};
use super::{Left, Stage, Stop};

/// Pieces that wait for one card.
const PIECES_WAITING_MAX: usize = 4;

/// A card and what shall become of it.
pub struct Card {
    /// The drive.
    pub medium: Box<dyn Medium>,
    /// What to do.
    pub job: Job,
}

/// What became of all.
#[derive(Debug)]
pub struct Outcome {
    /// By card, in their order.
    pub cards: Vec<Result<Flashed, (CardError, Left)>>,
    /// Why the image could not be read, if that is why.
    pub source: Option<SourceError>,
}

/// Writes all cards. `told` is called from several threads: which card, how far, how many bytes.
pub fn flash(image: &Image, cards: Vec<Card>, stop: &Stop, told: &(dyn Fn(usize, Stage, u64) + Sync)) -> Outcome {
    let block_bytes = image.bmap.as_ref().map(|bmap| bmap.block_bytes);
    std::thread::scope(|scope| {
        let mut feeds = Vec::new();
        let mut writers = Vec::new();
        for (number, Card { mut medium, job }) in cards.into_iter().enumerate() {
            let (feed, fed): (SyncSender<Feed>, Receiver<Feed>) = sync_channel(PIECES_WAITING_MAX);
            feeds.push(feed);
            let blocks = block_bytes.filter(|block| !block.is_multiple_of(medium.sector_bytes().into()));
            writers.push(scope.spawn(move || {
                if let Some(block) = blocks {
                    let sector = medium.sector_bytes();
                    return Err((CardError::Blocks { block, sector }, Left::Untouched));
                }
                let next = || fed.recv().ok();
                card::write(&mut *medium, &job, next, stop, |stage, done| told(number, stage, done))
            }));
        }
        // Who stops it makes the reading fail, too.
        let source = hand_out(image, feeds, stop).err().filter(|_| !stop.is_asked());
        // Nobody knows how far it was.
        let fault = |_| Err((CardError::Fault, Left::Unsure));
        let cards = writers.into_iter().map(|writer| writer.join().unwrap_or_else(fault)).collect();
        Outcome { cards, source }
    })
}

/// Reads the image and gives every piece to every card that still takes it.
fn hand_out(image: &Image, mut feeds: Vec<SyncSender<Feed>>, stop: &Stop) -> Result<(), SourceError> {
    let (mut pieces, mut is_empty) = (image.pieces(stop)?, true);
    while !feeds.is_empty() && !stop.is_asked() {
        let next = pieces.read()?.map(Arc::new);
        let is_last = next.is_none();
        // As from a pipe whose other end failed.
        if is_last && is_empty {
            return Err(SourceError::Empty(image.path.clone()));
        }
        is_empty = false;
        let feed = next.map_or(Feed::End, Feed::Piece);
        feeds.retain(|card| card.send(feed.clone()).is_ok());
        if is_last {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::bmap::{Bmap, describe_blocks};
    use super::super::testing::{Fake, Lie};
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn card(drive: Fake) -> Card {
        Card { medium: Box::new(drive), job: Job::default() }
    }

    fn image(bytes: &[u8]) -> (tempfile::NamedTempFile, Image) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bytes).expect("writes");
        let image = Image { path: file.path().to_owned(), bmap: None };
        (file, image)
    }

    #[test]
    fn a_card_that_fails_does_not_hold_the_others_up() {
        let bytes: Vec<u8> = (0..12 * MIB).map(|at| (at / 4096) as u8).collect();
        let (_file, image) = image(&bytes);
        let bad = Fake { bad_write: Some(5 * MIB), ..Fake::new(16 * MIB, Lie::None) };
        let small = Fake::new(10 * MIB, Lie::None);
        let cards =
            vec![card(Fake::new(16 * MIB, Lie::None)), card(bad), card(small), card(Fake::new(64 * MIB, Lie::None))];
        let stages = Mutex::new(Vec::new());
        let told = |card: usize, stage: Stage, _: u64| {
            let mut stages = stages.lock().expect("no panic");
            if stages.last() != Some(&(card, stage)) {
                stages.push((card, stage));
            }
        };
        let outcome = flash(&image, cards, &Stop::default(), &told);
        assert!(outcome.source.is_none());
        let told: Vec<String> = outcome
            .cards
            .iter()
            .map(|card| match card {
                Ok(flashed) => format!("{} {}", flashed.bytes, flashed.verified),
                Err((error, left)) => format!("{error}; {left}"),
            })
            .collect();
        let expected = [
            "12582912 true",
            "cannot write at byte 5242880; it is erased and starts nothing",
            "the image is larger than the drive, which holds 10485760 bytes; it is erased and starts nothing",
            "12582912 true",
        ];
        assert_eq!(told, expected);
        assert!(stages.lock().expect("no panic").contains(&(3, Stage::Verifying)));
    }

    #[test]
    fn an_image_of_no_bytes_makes_no_card() {
        let (_file, image) = image(&[]);
        let outcome = flash(&image, vec![card(Fake::new(16 * MIB, Lie::None))], &Stop::default(), &|_, _, _| {});
        assert!(matches!(outcome.source, Some(SourceError::Empty(_))), "{:?}", outcome.source);
        assert!(outcome.cards[0].is_err());
    }

    /// A drive whose writer panics.
    struct Broken;

    impl Medium for Broken {
        fn bytes(&self) -> u64 {
            16 * MIB
        }

        fn sector_bytes(&self) -> u32 {
            512
        }

        fn is_blank(&self) -> bool {
            false
        }

        fn write_at(&mut self, _: u64, _: &[u8]) -> std::io::Result<()> {
            panic!("a fault of the writer")
        }

        fn read_at(&mut self, _: u64, _: &mut [u8]) -> std::io::Result<()> {
            Ok(())
        }

        fn settle(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_map_with_blocks_smaller_than_the_sectors_of_a_drive_leaves_that_drive_as_it_was() {
        let bytes: Vec<u8> = (0..2 * MIB).map(|at| (at / 512) as u8).collect();
        let (_file, plain) = image(&bytes);
        let cases = [(1, 512, false), (512, 512, true), (512, 4096, false), (4096, 4096, true), (4096, 512, true)];
        for (block, sector, is_fit) in cases {
            let map = describe_blocks(&bytes, block, &[0..1, 2 * MIB / block - 1..2 * MIB / block]);
            let image = Image { bmap: Some(Bmap::parse(&map).expect("a map")), ..plain.clone() };
            let drives = [sector, 4096].map(|sector| Fake { sector, ..Fake::new(16 * MIB, Lie::None) });
            let outcome = flash(&image, drives.map(card).into(), &Stop::default(), &|_, _, _| {});
            let told = match &outcome.cards[0] {
                Ok(_) => "done".to_owned(),
                Err((error, left)) => format!("{error}; {left}"),
            };
            let refused = format!(
                "the image's block map has blocks of {block} bytes, and this drive has sectors of {sector}; \
                 nothing was written to it"
            );
            assert_eq!(told, if is_fit { "done".to_owned() } else { refused });
            assert_eq!(outcome.cards[1].is_ok(), block == 4096);
        }
    }

    #[test]
    fn a_writer_that_panicked_is_not_known_to_have_written_nothing() {
        let (_file, image) = image(&[1; 4096]);
        let broken = Card { medium: Box::new(Broken), job: Job::default() };
        let outcome =
            flash(&image, vec![broken, card(Fake::new(16 * MIB, Lie::None))], &Stop::default(), &|_, _, _| {});
        assert!(matches!(outcome.cards[..], [Err((CardError::Fault, Left::Unsure)), Ok(_)]), "{:?}", outcome.cards);
    }

    #[test]
    fn an_image_that_breaks_off_is_told_once_and_every_card_knows() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        std::io::Write::write_all(&mut encoder, &vec![7; 6 * MIB as usize]).expect("packs");
        let packed = encoder.finish().expect("packs");
        let (_file, image) = image(&packed[..packed.len() / 2]);
        let cards = vec![card(Fake::new(16 * MIB, Lie::None)), card(Fake::new(16 * MIB, Lie::None))];
        let outcome = flash(&image, cards, &Stop::default(), &|_, _, _| {});
        assert!(matches!(outcome.source, Some(SourceError::Damaged { .. })), "{:?}", outcome.source);
        assert!(outcome.cards.iter().all(|card| matches!(card, Err((CardError::NoImage, Left::Erased)))));
    }
}
