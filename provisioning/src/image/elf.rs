//! Which libraries a program needs, read from the program itself.

/// What a program says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// What starts it: a path. A static program has none.
    pub interpreter: Option<String>,
    /// Its libraries, by name.
    pub libraries: Vec<String>,
    /// The number of its processor's architecture.
    pub machine: u16,
}

/// As ELF numbers them.
pub const ARM64: u16 = 183;
/// The PC's.
pub const X86_64: u16 = 62;

const DYNAMIC: u32 = 2;
const INTERPRETER: u32 = 3;
const LOADED: u32 = 1;
const TAG_NEEDED: u64 = 1;
const TAG_STRINGS: u64 = 5;
/// A program has a handful of parts, and some tens of libraries.
const PARTS_MAX: usize = 128;
const TAGS_MAX: usize = 4096;
const TEXT_BYTES_MAX: usize = 4096;

/// Reads a 64-bit little-endian ELF file; none: it is none.
pub fn needs(bytes: &[u8]) -> Option<Needs> {
    if bytes.get(..6)? != [0x7f, b'E', b'L', b'F', 2, 1] {
        return None;
    }
    let (table, size, count) = (long(bytes, 32)?, usize::from(short(bytes, 54)?), usize::from(short(bytes, 56)?));
    let table = usize::try_from(table).ok()?;
    let parts: Vec<usize> = (0..count.min(PARTS_MAX)).map_while(|n| table.checked_add(n.checked_mul(size)?)).collect();
    let of_kind = |kind: u32| parts.iter().copied().filter(move |at| word(bytes, *at) == Some(kind));
    let mut needs = Needs { machine: short(bytes, 18)?, ..Needs::default() };
    for at in of_kind(INTERPRETER) {
        needs.interpreter = Some(text(bytes, long(bytes, at + 8)?)?);
    }
    for at in of_kind(DYNAMIC) {
        let start = usize::try_from(long(bytes, at + 8)?).ok()?;
        let tags: Vec<(u64, u64)> = (0..TAGS_MAX)
            .map_while(|n| {
                Some((long(bytes, start.checked_add(n * 16)?)?, long(bytes, start.checked_add(n * 16 + 8)?)?))
            })
            .take_while(|(tag, _)| *tag != 0)
            .collect();
        let strings = tags.iter().find(|(tag, _)| *tag == TAG_STRINGS)?.1;
        // The table's address, as a place in the file.
        let strings = of_kind(LOADED).find_map(|at| {
            let (offset, address, length) = (long(bytes, at + 8)?, long(bytes, at + 16)?, long(bytes, at + 32)?);
            let inside = strings.checked_sub(address).filter(|inside| *inside < length)?;
            offset.checked_add(inside)
        })?;
        for (_, name) in tags.iter().filter(|(tag, _)| *tag == TAG_NEEDED) {
            needs.libraries.push(text(bytes, strings.checked_add(*name)?)?);
        }
    }
    Some(needs)
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn text(bytes: &[u8], at: u64) -> Option<String> {
    let rest = bytes.get(usize::try_from(at).ok()?..)?;
    let end = rest.iter().take(TEXT_BYTES_MAX).position(|byte| *byte == 0)?;
    String::from_utf8(rest[..end].to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_program_needs_a_c_library() {
        let own = std::fs::read("/proc/self/exe").expect("this program");
        let needs = needs(&own).expect("an ELF file");
        assert!(needs.libraries.iter().any(|name| name.starts_with("libc.so")), "{needs:?}");
        assert!(needs.interpreter.is_some_and(|path| path.contains("ld-linux")));
    }

    #[test]
    fn anything_else_needs_nothing_and_ends_nothing() {
        assert_eq!(needs(b"#!/bin/sh"), None);
        let own = std::fs::read("/proc/self/exe").expect("this program");
        let head = &own[..4096];
        for at in 0..head.len() {
            let mut changed = head.to_vec();
            changed[at] ^= 0xff;
            let _ = needs(&changed);
            let _ = needs(&head[..at]);
        }
    }
}
