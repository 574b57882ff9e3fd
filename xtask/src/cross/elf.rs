//! What a binary says of itself: which versions of the C library it needs, and what takes the room in it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use object::elf::{FileHeader32, FileHeader64, SHT_GNU_VERNEED};
use object::read::elf::{FileHeader, SectionHeader as _};
use object::{
    Endianness, FileKind, Object as _, ObjectKind, ObjectSection as _, ObjectSymbol as _, SectionKind, SymbolKind,
};

/// The newest version of glibc that a binary asks for; none: it asks for no C library.
pub fn needed_glibc(path: &Path) -> anyhow::Result<Option<(u32, u32)>> {
    let bytes = read(path)?;
    let names = match FileKind::parse(&*bytes)? {
        FileKind::Elf32 => needed_versions::<FileHeader32<Endianness>>(&bytes),
        FileKind::Elf64 => needed_versions::<FileHeader64<Endianness>>(&bytes),
        other => bail!("{} is no program for Linux but {other:?}", path.display()),
    };
    let names = names.with_context(|| format!("cannot read {}", path.display()))?;
    Ok(names.iter().filter_map(|name| glibc_version(name)).max())
}

fn needed_versions<Elf: FileHeader<Endian = Endianness>>(bytes: &[u8]) -> anyhow::Result<Vec<String>> {
    let header = Elf::parse(bytes)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, bytes)?;
    let mut names = vec![];
    let Some((mut needs, strings)) = sections.gnu_verneed(endian, bytes)? else {
        // A binary that asks for a library says of which version; a static one has no such section.
        let asks = sections.iter().any(|section| section.sh_type(endian) == SHT_GNU_VERNEED);
        return if asks { bail!("its needed versions cannot be read") } else { Ok(names) };
    };
    let strings = sections.strings(endian, bytes, strings)?;
    while let Some((_, mut versions)) = needs.next()? {
        while let Some(version) = versions.next()? {
            names.push(String::from_utf8_lossy(version.name(endian, strings)?).into_owned());
        }
    }
    Ok(names)
}

/// `GLIBC_2.28` is (2, 28); `GLIBC_2.3.4` counts as 2.3.
fn glibc_version(name: &str) -> Option<(u32, u32)> {
    let mut parts = name.strip_prefix("GLIBC_")?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Whether its code may lie at any address, another one in each process.
pub fn is_movable(path: &Path) -> anyhow::Result<bool> {
    let bytes = read(path)?;
    let file = object::File::parse(&*bytes).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(file.kind() == ObjectKind::Dynamic)
}

/// What takes the room in a binary that was not stripped.
#[derive(Debug, Default)]
pub struct Anatomy {
    /// Bytes in the file by kind of section: code, tables for unwinding, constants, relocations.
    pub sections: BTreeMap<&'static str, u64>,
    /// Bytes of code by the crate that it comes from.
    pub crates: BTreeMap<String, u64>,
}

/// Looks into a binary that was not stripped.
pub fn anatomy(path: &Path) -> anyhow::Result<Anatomy> {
    let bytes = read(path)?;
    let file = object::File::parse(&*bytes).with_context(|| format!("cannot read {}", path.display()))?;
    let mut anatomy = Anatomy::default();
    for section in file.sections() {
        let (name, size) = (section.name()?, section.size());
        let kind = match (name, section.kind()) {
            (".eh_frame" | ".eh_frame_hdr" | ".gcc_except_table" | ".ARM.exidx" | ".ARM.extab", _) => "unwinding",
            (".rela.dyn" | ".rel.dyn" | ".relr.dyn", _) => "relocations",
            (_, SectionKind::Text) => "code",
            (_, SectionKind::ReadOnlyData | SectionKind::ReadOnlyString) => "constants",
            (".data.rel.ro", _) | (_, SectionKind::Data) => "tables of functions and data",
            (_, SectionKind::UninitializedData | SectionKind::Tls | SectionKind::UninitializedTls) => continue,
            // Symbols and their names: what is stripped.
            _ if name.starts_with(".sym") || name.starts_with(".str") || name.starts_with(".debug") => continue,
            _ => "other",
        };
        *anatomy.sections.entry(kind).or_default() += size;
    }
    // Functions that are the same have one address and several names.
    let mut seen: BTreeMap<u64, (u64, &str)> = BTreeMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
        seen.entry(symbol.address()).or_insert((symbol.size(), symbol.name().unwrap_or_default()));
    }
    for (size, name) in seen.into_values() {
        *anatomy.crates.entry(crate_of(&format!("{:#}", rustc_demangle::demangle(name)))).or_default() += size;
    }
    Ok(anatomy)
}

/// The crate that a function is there for: the first in its name that is no part of what everything is made
/// of. `drop_in_place::<tract_core::…>` is there for tract_core.
fn crate_of(demangled: &str) -> String {
    const EVERYWHERE: [&str; 6] = ["alloc", "core", "std", "hashbrown", "smallvec", "once_cell"];
    if !demangled.contains("::") {
        // A name of C's or of an assembler's.
        return if demangled.starts_with("ring_core") { "ring".into() } else { "C and assembler".into() };
    }
    let mut first = None;
    let bytes = demangled.as_bytes();
    for (at, _) in demangled.match_indices("::") {
        let begin =
            demangled[..at].rfind(|letter: char| !(letter.is_alphanumeric() || letter == '_')).map_or(0, |at| at + 1);
        let word = &demangled[begin..at];
        // The middle of a path names a module, not a crate.
        let is_inner = begin >= 2 && &bytes[begin - 2..begin] == b"::";
        if is_inner
            || word.is_empty()
            || word.starts_with(|letter: char| letter.is_ascii_digit() || letter.is_uppercase())
        {
            continue;
        }
        if !EVERYWHERE.contains(&word) {
            return word.to_owned();
        }
        first.get_or_insert(word);
    }
    first.map_or_else(|| "unknown".to_owned(), |_| "std".to_owned())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_glibc_are_ordered_as_numbers() {
        let newest = |names: &[&str]| names.iter().filter_map(|name| glibc_version(name)).max();
        assert_eq!(newest(&["GLIBC_2.4", "GLIBC_2.28", "GLIBC_2.3.4"]), Some((2, 28)));
        assert_eq!(newest(&["GCC_3.0", "GLIBC_PRIVATE"]), None);
    }

    #[test]
    fn code_counts_for_the_crate_that_it_is_there_for() {
        let check = |name: &str, expected: &str| assert_eq!(crate_of(name), expected, "{name}");
        check("tract_core::ops::cnn::conv::eval", "tract_core");
        check("<tract_core::model::Graph<F, O> as core::clone::Clone>::clone", "tract_core");
        check("core::ptr::drop_in_place::<tract_data::tensor::Tensor>", "tract_data");
        check("<alloc::vec::Vec<u8> as core::clone::Clone>::clone", "std");
        check(
            "<core::iter::Map<I, F> as Iterator>::fold::<(), muster_agent::driver::run::{closure#0}>",
            "muster_agent",
        );
        check("ring_core_0_17_14__gfp_p256_scalar_mul_mont", "ring");
        check("memcpy", "C and assembler");
    }

    /// This program, which was built for glibc or for no C library.
    #[test]
    fn a_program_tells_what_it_needs_and_what_is_in_it() {
        let this = std::env::current_exe().expect("this program");
        let needed = needed_glibc(&this).expect("it can be read");
        assert!(needed.is_none_or(|version| version >= (2, 2)), "{needed:?}");
        assert!(is_movable(&this).expect("it can be read"));
        let anatomy = anatomy(&this).expect("it can be read");
        assert!(anatomy.crates.contains_key("xtask"), "{anatomy:?}");
        assert!(anatomy.sections["code"] > 100_000, "{anatomy:?}");
    }
}
