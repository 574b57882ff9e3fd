use std::io::Write as _;
use std::ops::ControlFlow;

use proptest::prelude::*;

use super::super::bmap::describe;
use super::*;

/// Bytes that do not repeat soon.
fn noise(length: usize, seed: u8) -> Vec<u8> {
    let mut state = u32::from(seed) | 0x1_0000;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn packed(bytes: &[u8], packing: Packing) -> Vec<u8> {
    match packing {
        Packing::Raw => bytes.to_vec(),
        Packing::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).expect("packs");
            encoder.finish().expect("packs")
        }
        Packing::Xz => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
            encoder.write_all(bytes).expect("packs");
            encoder.finish().expect("packs")
        }
        Packing::Zstd => zstd::encode_all(bytes, 1).expect("packs"),
    }
}

const PACKINGS: [Packing; 4] = [Packing::Raw, Packing::Gzip, Packing::Xz, Packing::Zstd];

struct Written {
    _folder: tempfile::TempDir,
    image: Image,
}

fn written(bytes: &[u8], bmap: Option<&str>) -> Written {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("some.img");
    std::fs::write(&path, bytes).expect("writes");
    let bmap = bmap.map(|text| Bmap::parse(text).expect("a map"));
    Written { _folder: folder, image: Image { path, bmap } }
}

fn all(image: &Image, length: usize) -> Result<Vec<u8>, SourceError> {
    let mut whole = vec![0; length];
    let mut pieces = image.pieces(&Stop::default())?;
    while let Some(piece) = pieces.read()? {
        assert_eq!(piece.digest, Digest::of(&*piece.bytes));
        assert!(piece.at / PIECE_BYTES == (piece.at + piece.bytes.len() as u64 - 1) / PIECE_BYTES);
        let at = usize::try_from(piece.at).expect("small");
        whole[at..at + piece.bytes.len()].copy_from_slice(&piece.bytes);
    }
    Ok(whole)
}

fn go_on(_: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn every_packing_gives_the_same_pieces_and_length() {
    // More than two pieces, and not a whole number of them.
    let bytes = noise(2_500_000, 1);
    for packing in PACKINGS {
        let file = written(&packed(&bytes, packing), None);
        let looked = file.image.look(u64::MAX, go_on).expect("reads");
        assert_eq!((looked.packing, looked.bytes, looked.written), (packing, Some(2_500_000), Some(2_500_000)));
        assert!(all(&file.image, bytes.len()).expect("reads") == bytes, "{packing}");
        // Two streams one after the other are one image: parallel packers write them.
        let twice = [packed(&bytes[..1_000_000], packing), packed(&bytes[1_000_000..], packing)].concat();
        assert!(all(&written(&twice, None).image, bytes.len()).expect("reads") == bytes, "{packing} twice");
    }
}

#[test]
fn a_damaged_or_cut_off_download_is_found_by_looking() {
    let bytes = noise(1_500_000, 2);
    for packing in [Packing::Gzip, Packing::Xz, Packing::Zstd] {
        let good = packed(&bytes, packing);
        let cut = &good[..good.len() / 2];
        let found = written(cut, None).image.look(u64::MAX, go_on);
        assert!(matches!(found, Err(SourceError::Damaged { .. })), "{packing} {found:?}");
        // zst has no checksum unless it was asked for; a changed block may unpack to something else.
        if packing != Packing::Zstd {
            let mut changed = good.clone();
            changed[good.len() / 2] ^= 0x40;
            let found = written(&changed, None).image.look(u64::MAX, go_on);
            assert!(matches!(found, Err(SourceError::Damaged { .. })), "{packing} {found:?}");
        }
    }
    assert!(matches!(written(b"", None).image.look(9, go_on), Err(SourceError::Empty(_))));
    let long = written(&packed(&bytes, Packing::Xz), None);
    assert!(long.image.look(1_000, go_on).expect("stops early").bytes.is_some_and(|bytes| bytes > 1_000));
    let stopped = long.image.look(u64::MAX, |_| ControlFlow::Break(())).expect("stops");
    assert!(stopped.bytes.is_some_and(|found| found < bytes.len() as u64));
    let missing = Image { path: "/no/such/image".into(), bmap: None };
    assert!(matches!(missing.look(9, go_on), Err(SourceError::Read { .. })));
}

#[test]
fn what_is_no_image_is_called_by_its_name() {
    let told = |bytes: &[u8]| match written(bytes, None).image.look(9, go_on) {
        Err(SourceError::NotAnImage { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(told(b"PK\x03\x04...."), "a zip archive: unpack it, and flash the image in it");
    assert_eq!(told(b"QFI\xfb...."), "a virtual machine's disk: make it raw with `qemu-img convert -O raw`");
    assert_eq!(told(b"<?xml version"), "a block map: name the image itself, the map beside it is found");
}

#[test]
fn a_map_leaves_out_what_it_does_not_name_and_holds_the_rest_to_its_sums() {
    let mut bytes = noise(3_000_000, 3);
    bytes[4096..8192].fill(0);
    bytes[1_000 * 1024..2_000 * 1024].fill(0);
    let map = describe(&bytes, &[0..1, 2..250, 500..733]);
    for packing in PACKINGS {
        let file = written(&packed(&bytes, packing), Some(&map));
        let looked = file.image.look(u64::MAX, go_on).expect("reads");
        let mapped = 4096 * (1 + 248) + 3_000_000 - 500 * 4096;
        assert_eq!((looked.bytes, looked.written), (Some(3_000_000), Some(mapped)));
        assert!(all(&file.image, bytes.len()).expect("reads") == bytes, "{packing}");
        let mut changed = bytes.clone();
        changed[2_900_000] ^= 1;
        let refused = all(&written(&packed(&changed, packing), Some(&map)).image, bytes.len());
        assert!(matches!(refused, Err(SourceError::NotAsMapped { start: 2_048_000, .. })), "{packing} {refused:?}");
        let short = all(&written(&packed(&bytes[..2_900_000], packing), Some(&map)).image, bytes.len());
        assert!(matches!(short, Err(SourceError::Length { .. })), "{packing} {short:?}");
        let shorter = all(&written(&packed(&bytes[..1_500_000], packing), Some(&map)).image, bytes.len());
        assert!(matches!(shorter, Err(SourceError::Length { .. })), "{packing} {shorter:?}");
    }
}

#[test]
fn a_map_of_an_image_with_another_length_is_found_by_looking() {
    let bytes = noise(10_000, 4);
    let map = describe(&bytes, std::slice::from_ref(&(0..1)));
    assert!(written(&bytes, Some(&map)).image.look(u64::MAX, go_on).is_ok());
    for other in [noise(8_000, 4), noise(12_000, 4)] {
        let told = written(&other, Some(&map)).image.look(u64::MAX, go_on).map_err(|error| error.to_string());
        let length = other.len();
        let expected = format!("the image ends at byte {length}, and its block map says that it has 10000");
        assert_eq!(told, Err(expected));
    }
}

#[test]
fn a_pipe_that_gives_nothing_does_not_keep_who_stops() {
    let (reader, mut writer) = io::pipe().expect("a pipe");
    writer.write_all(&[7; 100]).expect("writes");
    let stop = Stop::default();
    let mut pipe = Pipe { pipe: reader, stop: stop.clone() };
    let mut some = [0; 100];
    pipe.read_exact(&mut some).expect("reads");
    stop.ask();
    assert_eq!(pipe.read(&mut some).map_err(|error| error.to_string()), Err("stopped".to_owned()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn no_file_ends_the_program(bytes in prop::collection::vec(any::<u8>(), 0..400), magic in 0_usize..4, at in 0_usize..4000, to in any::<u8>()) {
        let magics: [&[u8]; 4] = [b"\xfd7zXZ\0", &[0x1f, 0x8b], &[0x28, 0xb5, 0x2f, 0xfd], b""];
        let mut broken = packed(&noise(3000, to), PACKINGS[magic]);
        let place = at % broken.len();
        broken[place] = to;
        for bytes in [broken, [magics[magic], &bytes].concat()] {
            let file = written(&bytes, None);
            let _ = file.image.look(1 << 20, go_on);
            if let Ok(mut pieces) = file.image.pieces(&Stop::default()) {
                for _ in 0..3 {
                    let _ = pieces.read();
                }
            }
        }
    }
}
