//! What takes the room in a binary, as a table for people.

use super::elf::Anatomy;

/// Crates with less code than this are told together, in bytes.
const SMALL: u64 = 100 * 1024;

/// In KiB: kinds of sections, then crates.
pub fn spelled(anatomy: &Anatomy) -> String {
    let line = |(name, bytes): (&str, u64)| format!("{:>8}  {name}\n", bytes / 1024);
    let sections = by_size(anatomy.sections.iter().map(|(name, bytes)| (*name, *bytes)).collect());
    let (large, small): (Vec<_>, Vec<_>) =
        anatomy.crates.iter().map(|(name, bytes)| (name.as_str(), *bytes)).partition(|(_, bytes)| *bytes >= SMALL);
    let rest = format!("{} others", small.len());
    let rest = (rest.as_str(), small.iter().map(|(_, bytes)| bytes).sum());
    let sections: String = sections.into_iter().map(line).collect();
    let crates: String = by_size(large).into_iter().chain([rest]).map(line).collect();
    format!("{sections}of the code:\n{crates}")
}

fn by_size(mut all: Vec<(&str, u64)>) -> Vec<(&str, u64)> {
    all.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    all
}
