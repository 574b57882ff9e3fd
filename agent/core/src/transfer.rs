//! One blob on its way: frames are asked for in windows, gathered into pieces, and a piece is
//! handed out only once its digest is right. Lost and bad frames are asked for again.
//!
//! A piece is a chunk of a file, or the whole of a small blob (a manifest, a chunk index).

use std::collections::BTreeMap;

use muster_shared::Digest;
use muster_shared::checks::{self, Check};
use muster_shared::chunk::{ChunkIndex, frame_count, frame_range};
use muster_shared::id::UnixMs;
use muster_shared::limits::{FRAMES_PER_CHUNK, WINDOW_FRAMES_MAX};
use muster_shared::message::ChunkGet;

/// Frames in flight at first.
const WINDOW_FRAMES_START: u32 = 8;
/// Frames in flight at the least.
const WINDOW_FRAMES_MIN: u32 = 4;
/// A frame that has not come after this long is asked for again.
const FRAME_TIMEOUT_MS: u64 = 2_000;
/// The same after many losses in a row.
const FRAME_TIMEOUT_MS_MAX: u64 = 30_000;

/// A blob on its way.
#[derive(Debug, Clone)]
pub struct Transfer {
    blob: Digest,
    bytes: u64,
    frames_per_piece: u32,
    pieces: Vec<Piece>,
    /// Frames asked for and not here yet, with the time of asking.
    in_flight: BTreeMap<u32, UnixMs>,
    window: Window,
}

#[derive(Debug, Clone)]
struct Piece {
    digest: Digest,
    state: PieceState,
}

#[derive(Debug, Clone, PartialEq)]
enum PieceState {
    /// Frames that are here, by their place in the piece.
    Missing(BTreeMap<u32, Vec<u8>>),
    Done,
}

/// What a frame brought about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// Its piece still lacks frames, or nobody asked for it.
    Nothing,
    /// A piece is whole and right.
    Piece {
        /// Which.
        number: u32,
        /// Its bytes, verified.
        bytes: Vec<u8>,
    },
    /// A piece is whole and wrong: dropped, and asked for again.
    Discarded {
        /// Which.
        number: u32,
    },
}

/// How much may be in flight: at most what arrives in a second, at most a broker's channel.
#[derive(Debug, Clone)]
struct Window {
    frames: u32,
    timeout_ms: u64,
    second_began_ms: UnixMs,
    arrived_this_second: u32,
    arrived_since_growth: u32,
}

impl Transfer {
    /// A small blob as one piece.
    pub fn whole(blob: Digest, bytes: u64) -> Self {
        Self::new(blob, bytes, frame_count(bytes).max(1), vec![blob])
    }

    /// A file in chunks.
    pub fn chunked(blob: Digest, bytes: u64, index: &ChunkIndex) -> Self {
        let digests = (0..index.len() as u32).filter_map(|number| index.chunk(number)).collect();
        Self::new(blob, bytes, FRAMES_PER_CHUNK as u32, digests)
    }

    fn new(blob: Digest, bytes: u64, frames_per_piece: u32, digests: Vec<Digest>) -> Self {
        let missing = |digest| Piece { digest, state: PieceState::Missing(BTreeMap::new()) };
        Self {
            blob,
            bytes,
            frames_per_piece,
            pieces: digests.into_iter().map(missing).collect(),
            in_flight: BTreeMap::new(),
            window: Window {
                frames: WINDOW_FRAMES_START,
                timeout_ms: FRAME_TIMEOUT_MS,
                second_began_ms: 0,
                arrived_this_second: 0,
                arrived_since_growth: 0,
            },
        }
    }

    /// The blob.
    pub fn blob(&self) -> Digest {
        self.blob
    }

    /// Takes a piece as done: it is on disk and its digest was checked.
    pub fn mark_done(&mut self, piece: u32) {
        if let Some(piece) = self.pieces.get_mut(piece as usize) {
            piece.state = PieceState::Done;
        }
    }

    /// Whether every piece is done.
    pub fn is_done(&self) -> bool {
        self.pieces.iter().all(|piece| piece.state == PieceState::Done)
    }

    /// Pieces done, and all pieces.
    pub fn progress(&self) -> (u32, u32) {
        let done = self.pieces.iter().filter(|piece| piece.state == PieceState::Done).count();
        (done as u32, self.pieces.len() as u32)
    }

    /// Forgets what is in flight, after a new connection or a pause: all of it is asked for anew.
    pub fn restart(&mut self) {
        self.in_flight.clear();
        self.window.frames = WINDOW_FRAMES_START;
        self.window.timeout_ms = FRAME_TIMEOUT_MS;
    }

    /// The next request, if the window has room for one.
    pub fn ask(&mut self, now_ms: UnixMs) -> Option<ChunkGet> {
        self.give_up_on_late_frames(now_ms);
        let room = self.window.frames.saturating_sub(self.in_flight.len() as u32);
        // Asking in halves of a window keeps requests few and the line busy.
        if !self.in_flight.is_empty() && room < self.window.frames.div_ceil(2) {
            return None;
        }
        let first_frame = self.wanted_frames(0).next()?;
        let span = first_frame..first_frame.saturating_add(WINDOW_FRAMES_MAX as u32);
        let wanted: Vec<u32> =
            self.wanted_frames(first_frame).take_while(|frame| span.contains(frame)).take(room as usize).collect();
        let frames = wanted.iter().fold(0, |bits, frame| bits | 1u64 << (frame - first_frame));
        self.in_flight.extend(wanted.into_iter().map(|frame| (frame, now_ms)));
        (frames != 0).then_some(ChunkGet { blob: self.blob, first_frame, frames })
    }

    /// When [`Transfer::ask`] may have something to say again without a frame arriving.
    pub fn next_deadline_ms(&self) -> Option<UnixMs> {
        self.in_flight.values().min().map(|asked| asked + self.window.timeout_ms)
    }

    /// Takes a frame that arrived.
    pub fn arrive(&mut self, frame: u32, bytes: Vec<u8>, now_ms: UnixMs) -> Arrival {
        let sent_as_asked = |length| !checks::on(Check::SentLength) || length == bytes.len();
        let fits = frame_range(self.bytes, frame).is_some_and(|(_, length)| sent_as_asked(length));
        if !fits || self.in_flight.remove(&frame).is_none() {
            return Arrival::Nothing;
        }
        self.window.count_arrival(now_ms);
        let number = frame / self.frames_per_piece;
        let frames_of_piece = self.frames_of(number);
        let Some(piece) = self.pieces.get_mut(number as usize) else { return Arrival::Nothing };
        let PieceState::Missing(here) = &mut piece.state else { return Arrival::Nothing };
        here.insert(frame, bytes);
        if (here.len() as u32) < frames_of_piece {
            return Arrival::Nothing;
        }
        let whole: Vec<u8> = std::mem::take(here).into_values().flatten().collect();
        if checks::on(Check::ChunkDigest) && Digest::of(&whole) != piece.digest {
            return Arrival::Discarded { number };
        }
        piece.state = PieceState::Done;
        Arrival::Piece { number, bytes: whole }
    }

    fn frames_of(&self, piece: u32) -> u32 {
        let first = piece.saturating_mul(self.frames_per_piece);
        frame_count(self.bytes).saturating_sub(first).min(self.frames_per_piece)
    }

    /// Frames from `from` on that are neither here nor in flight, in order.
    fn wanted_frames(&self, from: u32) -> impl Iterator<Item = u32> + '_ {
        let first_piece = (from / self.frames_per_piece) as usize;
        let pieces = self.pieces.iter().enumerate().skip(first_piece);
        pieces
            .filter_map(|(number, piece)| match &piece.state {
                PieceState::Missing(here) => Some((number as u32, here)),
                PieceState::Done => None,
            })
            .flat_map(move |(number, here)| {
                let first = number * self.frames_per_piece;
                (first..first + self.frames_of(number))
                    .filter(move |frame| *frame >= from && !here.contains_key(frame))
                    .filter(|frame| !self.in_flight.contains_key(frame))
            })
    }

    fn give_up_on_late_frames(&mut self, now_ms: UnixMs) {
        let timeout_ms = self.window.timeout_ms;
        let before = self.in_flight.len();
        self.in_flight.retain(|_, asked| now_ms < *asked + timeout_ms);
        if self.in_flight.len() < before {
            self.window.shrink();
        }
    }
}

impl Window {
    fn count_arrival(&mut self, now_ms: UnixMs) {
        self.timeout_ms = FRAME_TIMEOUT_MS;
        if now_ms >= self.second_began_ms + 1_000 {
            // What a second brought bounds what may be in flight.
            if self.second_began_ms != 0 {
                self.frames = self.frames.min(self.arrived_this_second.max(WINDOW_FRAMES_MIN));
            }
            self.second_began_ms = now_ms;
            self.arrived_this_second = 0;
        }
        self.arrived_this_second += 1;
        self.arrived_since_growth += 1;
        if self.arrived_since_growth >= self.frames {
            self.arrived_since_growth = 0;
            self.frames = (self.frames * 2).min(WINDOW_FRAMES_MAX as u32);
        }
    }

    fn shrink(&mut self) {
        self.frames = (self.frames / 2).max(WINDOW_FRAMES_MIN);
        self.timeout_ms = (self.timeout_ms * 2).min(FRAME_TIMEOUT_MS_MAX);
        self.arrived_since_growth = 0;
    }
}

#[cfg(test)]
mod tests {
    use muster_shared::limits::{CHUNK_BYTES, FRAME_BYTES_MAX};
    use proptest::prelude::*;

    use super::*;

    fn file(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| (at / 1000 % 251) as u8).collect()
    }

    fn frame_of(file: &[u8], number: u32) -> Vec<u8> {
        let (offset, length) = frame_range(file.len() as u64, number).expect("a frame");
        file[offset as usize..offset as usize + length].to_vec()
    }

    fn transfer_of(file: &[u8]) -> Transfer {
        Transfer::chunked(Digest::of(file), file.len() as u64, &ChunkIndex::of(file))
    }

    #[test]
    fn a_bad_chunk_is_discarded_and_asked_for_again() {
        let file = file(CHUNK_BYTES);
        let mut transfer = transfer_of(&file);
        let get = transfer.ask(0).expect("a request");
        let frames: Vec<u32> = get.wanted().collect();
        assert_eq!(frames, [0, 1, 2, 3]);
        for frame in &frames[..3] {
            assert_eq!(transfer.arrive(*frame, frame_of(&file, *frame), 1), Arrival::Nothing);
        }
        let mut bad = frame_of(&file, 3);
        bad[0] ^= 1;
        assert_eq!(transfer.arrive(3, bad, 1), Arrival::Discarded { number: 0 });
        let again: Vec<u32> = transfer.ask(1).expect("a request").wanted().collect();
        assert_eq!(again, [0, 1, 2, 3]);
    }

    #[test]
    fn a_lost_frame_is_asked_for_again_after_its_timeout_only() {
        let file = file(CHUNK_BYTES);
        let mut transfer = transfer_of(&file);
        transfer.ask(0).expect("a request");
        for frame in 0..3 {
            transfer.arrive(frame, frame_of(&file, frame), 1);
        }
        assert_eq!(transfer.ask(FRAME_TIMEOUT_MS - 1), None);
        assert_eq!(transfer.next_deadline_ms(), Some(FRAME_TIMEOUT_MS));
        let again: Vec<u32> = transfer.ask(FRAME_TIMEOUT_MS).expect("a request").wanted().collect();
        assert_eq!(again, [3]);
    }

    #[test]
    fn frames_that_nobody_asked_for_change_nothing() {
        let file = file(3 * CHUNK_BYTES);
        let mut transfer = transfer_of(&file);
        assert_eq!(transfer.arrive(0, frame_of(&file, 0), 0), Arrival::Nothing);
        transfer.ask(0).expect("a request");
        assert_eq!(transfer.arrive(0, vec![0; FRAME_BYTES_MAX - 1], 0), Arrival::Nothing);
        assert_eq!(transfer.arrive(u32::MAX, vec![], 0), Arrival::Nothing);
        assert_eq!(transfer.progress(), (0, 3));
    }

    #[test]
    fn pieces_on_disk_are_not_asked_for() {
        let file = file(3 * CHUNK_BYTES);
        let mut transfer = transfer_of(&file);
        transfer.mark_done(0);
        transfer.mark_done(2);
        let frames: Vec<u32> = transfer.ask(0).expect("a request").wanted().collect();
        assert_eq!(frames, [4, 5, 6, 7]);
    }

    proptest! {
        /// Under loss, duplication and corruption the file arrives, and only right pieces are handed out.
        #[test]
        fn every_file_arrives_whole(bytes in 1usize..6 * CHUNK_BYTES, mut seed in any::<u64>()) {
            let file = file(bytes);
            let mut transfer = transfer_of(&file);
            let mut got = vec![0; bytes];
            let mut now_ms = 1;
            for _ in 0..20_000 {
                if transfer.is_done() {
                    break;
                }
                while let Some(get) = transfer.ask(now_ms) {
                    for frame in get.wanted() {
                        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                        let mut data = frame_of(&file, frame);
                        match seed >> 60 {
                            0 | 1 => continue,
                            2 => data[0] ^= 1,
                            _ => {}
                        }
                        for _ in 0..=(seed >> 59 & 1) {
                            if let Arrival::Piece { number, bytes } = transfer.arrive(frame, data.clone(), now_ms) {
                                let at = number as usize * CHUNK_BYTES;
                                got[at..at + bytes.len()].copy_from_slice(&bytes);
                            }
                        }
                    }
                }
                prop_assert!(transfer.in_flight.len() <= WINDOW_FRAMES_MAX);
                now_ms += 100;
            }
            prop_assert!(transfer.is_done());
            prop_assert_eq!(got, file);
        }
    }
}
