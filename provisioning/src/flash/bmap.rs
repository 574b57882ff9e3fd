//! Block maps (`.bmap`): which blocks of an image hold anything, and their checksums. Files of version 2.0, with
//! SHA-256; the file's own checksum is verified, too.
//!
//! The crates that read them panic on numbers that are none, or skip the file's own checksum.

use std::ops::Range;

use muster_shared::Digest;

/// The longest map that is read.
pub const BMAP_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What of an image must be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bmap {
    /// The length of the whole image.
    pub image_bytes: u64,
    /// What ranges begin and end at multiples of; the image may end within a block.
    pub block_bytes: u64,
    /// In ascending order, apart from each other.
    pub ranges: Vec<Mapped>,
}

/// A range of the image that holds something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    /// Where, in bytes.
    pub bytes: Range<u64>,
    /// Its SHA-256.
    pub digest: Digest,
}

/// A text that is no block map.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BmapError {
    /// Not XML.
    #[error("it is not XML: {0}")]
    Xml(String),
    /// Something is not there.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// Something is not as it should be.
    #[error("its {what} is {text:?}")]
    Bad {
        /// Which element or attribute.
        what: &'static str,
        /// What it says.
        text: String,
    },
    /// Another version or checksum.
    #[error("it has {0}, and only maps of version 2 with sha256 are read")]
    Old(String),
    /// Its own checksum is another.
    #[error("its own checksum does not match: it was changed or cut off")]
    Changed,
    /// Ranges in no order, or beyond the end.
    #[error("its ranges do not follow each other inside of the image (at {0:?})")]
    Order(String),
}

impl Bmap {
    /// How many bytes are to be written.
    pub fn mapped_bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.bytes.end - range.bytes.start).sum()
    }

    /// Reads a map.
    pub fn parse(text: &str) -> Result<Self, BmapError> {
        let document = roxmltree::Document::parse(text).map_err(|error| BmapError::Xml(error.to_string()))?;
        let root = document.root_element();
        let element = |name: &'static str| {
            let found = root.children().find(|child| child.has_tag_name(name));
            found.ok_or(BmapError::Missing(name))
        };
        let words = |name| Ok(element(name)?.text().unwrap_or_default().trim().to_owned());
        let version = root.attribute("version").unwrap_or_default().to_owned();
        if !version.starts_with("2.") {
            return Err(BmapError::Old(format!("version {version:?}")));
        }
        let kind = words("ChecksumType")?;
        if kind != "sha256" {
            return Err(BmapError::Old(format!("checksums of type {kind:?}")));
        }
        let own = words("BmapFileChecksum")?;
        // The checksum is that of the file with zeros in its place.
        if own.len() != 64 || Digest::of(text.replacen(&own, &"0".repeat(64), 1)).to_string() != own {
            return Err(BmapError::Changed);
        }
        let number = |name| {
            let text = words(name)?;
            text.parse::<u64>().map_err(|_| BmapError::Bad { what: name, text })
        };
        let image_bytes = number("ImageSize")?;
        let block_bytes = number("BlockSize")?;
        if !block_bytes.is_power_of_two() || block_bytes > 1024 * 1024 {
            return Err(BmapError::Bad { what: "BlockSize", text: block_bytes.to_string() });
        }
        let blocks = element("BlockMap")?.children().filter(|child| child.has_tag_name("Range"));
        let mut ranges: Vec<Mapped> = Vec::new();
        for range in blocks {
            let text = range.text().unwrap_or_default().trim();
            let end_before = ranges.last().map_or(0, |last| last.bytes.end);
            let bytes = blocks_of(text, block_bytes, image_bytes)
                .filter(|bytes| bytes.start >= end_before && bytes.start < bytes.end)
                .ok_or_else(|| BmapError::Order(text.to_owned()))?;
            let sum = range.attribute("chksum").ok_or(BmapError::Missing("chksum"))?;
            let digest = sum.parse().map_err(|_| BmapError::Bad { what: "chksum", text: sum.to_owned() })?;
            ranges.push(Mapped { bytes, digest });
        }
        Ok(Self { image_bytes, block_bytes, ranges })
    }
}

/// "3-7" or "3", in blocks; the last block of an image may be cut off.
fn blocks_of(text: &str, block_bytes: u64, image_bytes: u64) -> Option<Range<u64>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let start = first.checked_mul(block_bytes)?;
    let end = last.checked_add(1)?.checked_mul(block_bytes)?;
    // Beyond the end only by what rounding up to whole blocks adds.
    (end < image_bytes.checked_add(block_bytes)?).then_some(start..end.min(image_bytes))
}

/// A map of an image in blocks of 4 KiB, as tests need it.
#[cfg(test)]
pub(crate) fn describe(image: &[u8], ranges: &[Range<u64>]) -> String {
    describe_blocks(image, 4096, ranges)
}

/// A map of an image, as tests need it.
#[cfg(test)]
pub(crate) fn describe_blocks(image: &[u8], block_bytes: u64, ranges: &[Range<u64>]) -> String {
    let line = |range: &Range<u64>| {
        let end = usize::try_from((range.end * block_bytes).min(image.len() as u64)).expect("small");
        let start = usize::try_from(range.start * block_bytes).expect("small");
        let digest = Digest::of(&image[start..end]);
        format!("<Range chksum=\"{digest}\"> {}-{} </Range>\n", range.start, range.end - 1)
    };
    let zeros = "0".repeat(64);
    let text = format!(
        "<?xml version=\"1.0\" ?>\n<bmap version=\"2.0\">\n<ImageSize> {} </ImageSize>\n<BlockSize> {block_bytes} </BlockSize>\n\
         <ChecksumType> sha256 </ChecksumType>\n<BmapFileChecksum> {zeros} </BmapFileChecksum>\n\
         <BlockMap>\n{}</BlockMap>\n</bmap>\n",
        image.len(),
        ranges.iter().map(line).collect::<String>()
    );
    let own = Digest::of(&text).to_string();
    text.replacen(&zeros, &own, 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sealed(text: &str) -> String {
        let own = Digest::of(text).to_string();
        text.replacen(&"0".repeat(64), &own, 1)
    }

    fn map(inside: &str) -> String {
        let zeros = "0".repeat(64);
        sealed(&format!(
            "<bmap version=\"2.0\"><ImageSize>10000</ImageSize><BlockSize>4096</BlockSize>\
             <ChecksumType>sha256</ChecksumType><BmapFileChecksum>{zeros}</BmapFileChecksum>\
             <BlockMap>{inside}</BlockMap></bmap>"
        ))
    }

    fn range(text: &str) -> String {
        format!("<Range chksum=\"{}\">{text}</Range>", Digest::of(text))
    }

    #[test]
    fn maps_are_read() {
        let image = vec![1; 10_000];
        let bmap = Bmap::parse(&describe(&image, &[0..1, 2..3])).expect("reads");
        let ranges: Vec<_> = bmap.ranges.iter().map(|range| range.bytes.clone()).collect();
        assert_eq!((bmap.image_bytes, ranges, bmap.mapped_bytes()), (10_000, vec![0..4096, 8192..10_000], 5904));
        assert_eq!(bmap.ranges[1].digest, Digest::of(&image[8192..]));
    }

    #[test]
    fn what_is_wrong_with_a_map_is_said() {
        let check = |text: &str, expected: &str| {
            assert_eq!(Bmap::parse(text).map_err(|error| error.to_string()), Err(expected.to_owned()), "{text}");
        };
        let order = |text: &str| format!("its ranges do not follow each other inside of the image (at {text:?})");
        for text in ["0-3", "3", "2-1", "-", "", "a-b", "18446744073709551615", "0-18446744073709551615"] {
            check(&map(&range(text)), &order(text));
        }
        check(&map(&format!("{}{}", range("1"), range("0-1"))), &order("0-1"));
        check(&map("<Range>0</Range>"), "it has no chksum");
        check(&map("<Range chksum=\"x\">0</Range>"), "its chksum is \"x\"");
        check("<bmap version=\"1.4\"/>", "it has version \"1.4\", and only maps of version 2 with sha256 are read");
        check(
            "<bmap version=\"2.0\"><ChecksumType>sha1</ChecksumType></bmap>",
            "it has checksums of type \"sha1\", and only maps of version 2 with sha256 are read",
        );
        check("<bmap version=\"2.0\"/>", "it has no ChecksumType");
        check(
            &map(&range("0")).replace("10000", "20000"),
            "its own checksum does not match: it was changed or cut off",
        );
        assert!(matches!(Bmap::parse("no"), Err(BmapError::Xml(_))));
    }

    proptest! {
        #[test]
        fn no_text_ends_the_program(text in ".{0,200}", inside in "(<Range chksum=\"[0-9a-f]{0,64}\">[-0-9 ]{0,24}</Range>){0,3}") {
            let _ = Bmap::parse(&text);
            if let Ok(bmap) = Bmap::parse(&map(&inside)) {
                prop_assert!(bmap.mapped_bytes() <= bmap.image_bytes);
            }
        }
    }
}
