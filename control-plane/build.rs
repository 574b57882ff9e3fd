//! Embeds the dashboard's files from `web/dist`, as `cargo xtask web` left them there. Without Node
//! the folder is empty, and so is the list: the plane then says how to build the page.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let dist = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("../web/dist");
    // The folder is always there: git keeps it.
    println!("cargo::rerun-if-changed={}", dist.display());
    println!("cargo::rerun-if-changed=build.rs");
    let mut files = vec![];
    for folder in [dist.clone(), dist.join("assets")] {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        let found = entries.collect::<io::Result<Vec<_>>>()?.into_iter().map(|entry| entry.path());
        files.extend(found.filter(|path| path.is_file() && kind(path).is_some()));
    }
    files.sort();
    let mut table = String::from("static FILES: &[File] = &[\n");
    for file in &files {
        let path = file.strip_prefix(&dist).map_err(io::Error::other)?.display();
        let packed = |ending: &str| {
            let packed = PathBuf::from(format!("{}.{ending}", file.display()));
            if packed.is_file() { format!("Some(include_bytes!({packed:?}))") } else { "None".to_owned() }
        };
        let (kind, gzip, brotli) = (kind(file).unwrap_or_default(), packed("gz"), packed("br"));
        let _ = writeln!(
            table,
            "    File {{ path: \"/{path}\", kind: {kind:?}, plain: include_bytes!({file:?}), gzip: {gzip}, brotli: {brotli} }},"
        );
    }
    table.push_str("];\n");
    fs::write(PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("page.rs"), table)
}

/// The media type; what has none is no file of the page.
fn kind(path: &Path) -> Option<&'static str> {
    match path.extension()?.to_str()? {
        "html" => Some("text/html; charset=utf-8"),
        "js" => Some("text/javascript; charset=utf-8"),
        "css" => Some("text/css; charset=utf-8"),
        "svg" => Some("image/svg+xml"),
        "woff2" => Some("font/woff2"),
        _ => None,
    }
}
