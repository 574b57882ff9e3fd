//! Where a kernel tells of its machine, and how little of it is read at a time.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use muster_shared::limits::HARDWARE_TEXT_BYTES_MAX;

/// One of the kernel's small files.
const FILE_BYTES_MAX: u64 = 4096;
/// One of its tables: mounts, processors.
const TABLE_BYTES_MAX: u64 = 1 << 20;
/// Entries of one folder that are looked at.
const ENTRIES_MAX: usize = 512;

/// The roots of `/proc`, `/sys` and `/dev`; tests give made-up ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
    /// `/dev`.
    pub dev: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self::below(Path::new("/"))
    }
}

impl Roots {
    /// The three below a folder.
    pub fn below(root: &Path) -> Self {
        Self { proc: root.join("proc"), sys: root.join("sys"), dev: root.join("dev") }
    }

    /// A node as processes know it: `/dev/…`.
    pub fn node(&self, path: &Path) -> Option<String> {
        let inside = path.strip_prefix(&self.dev).ok()?;
        Some(clean(&format!("/dev/{}", inside.display())))
    }
}

/// The beginning of a file.
fn begin(path: &Path, bytes_max: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![];
    File::open(path).ok()?.take(bytes_max).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The text of one of the kernel's tables.
pub fn table(path: &Path) -> Option<String> {
    Some(String::from_utf8_lossy(&begin(path, TABLE_BYTES_MAX)?).into_owned())
}

/// The text of a small file, cleaned; none where there is nothing in it.
pub fn text(path: &Path) -> Option<String> {
    let text = clean(&String::from_utf8_lossy(&begin(path, FILE_BYTES_MAX)?));
    Some(text).filter(|text| !text.is_empty())
}

/// The texts of a small file of the device tree, which ends each with a zero.
pub fn texts(path: &Path) -> Vec<String> {
    let bytes = begin(path, FILE_BYTES_MAX).unwrap_or_default();
    let texts = bytes.split(|byte| *byte == 0).map(|text| clean(&String::from_utf8_lossy(text)));
    texts.filter(|text| !text.is_empty()).collect()
}

/// The number in a small file.
pub fn number<T: std::str::FromStr>(path: &Path) -> Option<T> {
    text(path)?.parse().ok()
}

/// A text as it is reported: one line, of a bounded length.
pub fn clean(text: &str) -> String {
    let text = text.trim_matches(|letter: char| letter.is_control() || letter.is_whitespace());
    let mut clean = String::new();
    for letter in text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }) {
        if clean.len() + letter.len_utf8() > HARDWARE_TEXT_BYTES_MAX {
            break;
        }
        clean.push(letter);
    }
    clean
}

/// What is in a folder and begins with `prefix`, by name, numbers in their order.
pub fn entries(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(found) = fs::read_dir(folder) else { return vec![] };
    let names = found.take(ENTRIES_MAX).filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.to_owned()));
    let mut names: Vec<_> = names.filter(|name| name.starts_with(prefix)).map(|name| (order(&name), name)).collect();
    names.sort();
    names.into_iter().map(|(_, name)| folder.join(name)).collect()
}

/// `policy10` comes after `policy2`.
fn order(name: &str) -> (String, u64) {
    let stem = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
    (stem.to_owned(), name[stem.len()..].parse().unwrap_or(0))
}

/// The last part of a path.
pub fn name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| clean(&name.to_string_lossy()))
}

/// Numbers as the kernel lists them: `0-3,8`.
pub fn listed(text: &str) -> Vec<u32> {
    let mut numbers = vec![];
    for part in text.trim().split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (Ok(from), Ok(to)) = (from.trim().parse::<u32>(), to.trim().parse::<u32>()) else { continue };
        numbers.extend((from..=to).take(ENTRIES_MAX.saturating_sub(numbers.len())));
    }
    numbers
}

/// The lines `KEY=value` of a device's `uevent`.
pub fn uevent(device: &Path, key: &str) -> Option<String> {
    let text = table(&device.join("uevent"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(clean(value)).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_one_bounded_line() {
        assert_eq!(clean(" Pi\0\n"), "Pi");
        assert_eq!(clean("a\u{1b}[2Jb"), "a [2Jb");
        assert_eq!(clean(&"ä".repeat(100)).len(), HARDWARE_TEXT_BYTES_MAX);
    }

    #[test]
    fn lists_of_numbers_are_read_and_bounded() {
        assert_eq!(listed("0-2,8\n"), [0, 1, 2, 8]);
        assert_eq!(listed("3-1,x,-"), Vec::<u32>::new());
        assert_eq!(listed("0-4294967295,0-4294967295").len(), ENTRIES_MAX);
    }
}
