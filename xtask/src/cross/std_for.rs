//! A standard library for a target, for the compiler that builds everything else: an rlib of another
//! compiler is refused. The toolchain may have it; rustup may bring it, into a home of its own, so that
//! nobody's toolchain is changed; else it is built from the sources that Debian has of this compiler.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail};
use muster_world::output;

use super::debian;
use super::target::Target;
use crate::shell;

/// How long rustup may try, in seconds: where it reaches nothing it says so much later.
const RUSTUP_SECONDS: &str = "300";
/// Where it failed for one target, it is not waited for with each of the others.
static RUSTUP_FAILED: AtomicBool = AtomicBool::new(false);

/// Where a target's standard library lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Std {
    /// In the toolchain that is used anyway.
    Toolchain,
    /// In a toolchain that rustup installed for this.
    Rustup(PathBuf),
    /// In a folder of this command, built from source.
    Built(PathBuf),
}

impl Std {
    /// What the compiler has to be told to find it, and to link.
    pub fn flags(&self, target: Target) -> Vec<String> {
        let mut flags = match self {
            Self::Toolchain => vec![],
            Self::Rustup(sysroot) | Self::Built(sysroot) => vec![format!("--sysroot={}", sysroot.display())],
        };
        if target.is_musl() {
            // zig knows no `-static-pie`, which the compiler says; without this, code would lie at the same
            // address in each process.
            flags.push("-Clink-arg=-pie".to_owned());
            if matches!(self, Self::Built(_)) {
                // The objects that begin a program come with the linker instead.
                flags.push("-Clink-self-contained=no".to_owned());
            }
        }
        flags
    }

    fn is_for(&self, compiler: &Compiler) -> bool {
        let Self::Rustup(sysroot) = self else { return true };
        let told = output(Command::new(sysroot.join("bin/rustc")).arg("-vV"));
        told.is_ok_and(|told| told.contains(&format!("commit-hash: {}", compiler.commit)))
    }

    /// Where it came from, in words.
    pub fn origin(&self) -> &'static str {
        match self {
            Self::Toolchain => "the toolchain's",
            Self::Rustup(_) => "rustup's",
            Self::Built(_) => "built from Debian's sources",
        }
    }
}

/// The compiler that this project is built with.
#[derive(Debug)]
pub struct Compiler {
    release: String,
    commit: String,
    host: String,
    sysroot: PathBuf,
}

impl Compiler {
    /// Asks it.
    pub fn ask() -> anyhow::Result<Self> {
        let rustc = |arguments: &[&str]| output(Command::new("rustc").args(arguments).current_dir(shell::project()));
        let told = rustc(&["-vV"])?;
        let field = |name: &str| {
            let found = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            found.map(str::to_owned).with_context(|| format!("`rustc -vV` tells no {name}"))
        };
        let sysroot = PathBuf::from(rustc(&["--print", "sysroot"])?.trim());
        Ok(Self { release: field("release")?, commit: field("commit-hash")?, host: field("host")?, sysroot })
    }

    /// A name for what fits this compiler only.
    pub fn key(&self) -> String {
        format!("{}-{}", self.release, self.commit.get(..9).unwrap_or(&self.commit))
    }
}

/// Finds a target's standard library, or makes it, in `cache`.
pub fn of(target: Target, compiler: &Compiler, cache: &Path) -> anyhow::Result<Std> {
    let home = cache.join("rustup");
    let places = Places {
        toolchain: compiler.sysroot.clone(),
        rustup: home.join("toolchains").join(format!("{}-{}", compiler.release, compiler.host)),
        built: cache.join(format!("sysroot-{}", compiler.key())),
    };
    // A toolchain of the same name may be of another day.
    if let Some(std) = places.look(target).filter(|std| std.is_for(compiler)) {
        return Ok(std);
    }
    if !RUSTUP_FAILED.load(Ordering::Relaxed) {
        match by_rustup(target, compiler, &home) {
            Ok(()) => {
                if let Some(std) = places.look(target).filter(|std| std.is_for(compiler)) {
                    return Ok(std);
                }
            }
            Err(error) => {
                eprintln!("rustup brings no standard library for {}: {error:#}", target.triple());
                RUSTUP_FAILED.store(true, Ordering::Relaxed);
            }
        }
    }
    build(target, compiler, cache, &places.built)?;
    Ok(Std::Built(places.built))
}

/// Where standard libraries may lie.
struct Places {
    toolchain: PathBuf,
    rustup: PathBuf,
    built: PathBuf,
}

impl Places {
    /// What lies there already, official ones first.
    fn look(&self, target: Target) -> Option<Std> {
        if holds(&self.toolchain, target) {
            return Some(Std::Toolchain);
        }
        if holds(&self.rustup, target) {
            return Some(Std::Rustup(self.rustup.clone()));
        }
        holds(&self.built, target).then(|| Std::Built(self.built.clone()))
    }
}

fn holds(sysroot: &Path, target: Target) -> bool {
    let folder = sysroot.join("lib/rustlib").join(target.triple()).join("lib");
    let Ok(entries) = fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
}

fn by_rustup(target: Target, compiler: &Compiler, home: &Path) -> anyhow::Result<()> {
    if !shell::exists("rustup") {
        bail!("there is no rustup");
    }
    eprintln!("asking rustup for a standard library for {}", target.triple());
    let mut rustup = Command::new("timeout");
    rustup.args([RUSTUP_SECONDS, "rustup", "toolchain", "install", &compiler.release]);
    rustup.args(["--profile", "minimal", "--no-self-update", "--target", target.triple()]);
    output(rustup.env("RUSTUP_HOME", home)).map(drop)
}

/// Builds the standard library as a dependency of an empty library: that takes neither a linker nor a C
/// compiler. One compiler builds it for all targets of a processor, whatever links them.
fn build(target: Target, compiler: &Compiler, cache: &Path, sysroot: &Path) -> anyhow::Result<()> {
    let sources = cache.join(format!("rust-src-{}", compiler.release));
    debian::unpack_rust_src(&compiler.release, cache, &sources)?;
    let library = sources.join("library");
    eprintln!("building a standard library for {} (two minutes of one core, once)", target.triple());
    let seed = cache.join("std-seed");
    fs::create_dir_all(seed.join("src"))?;
    fs::write(seed.join("src/lib.rs"), "#![no_std]\n")?;
    fs::write(seed.join("Cargo.toml"), SEED)?;
    let output_folder = seed.join("target");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(&seed).args(["build", "--quiet", "--release", "--target", target.triple()]);
    cargo.arg("-Zbuild-std=std,panic_unwind");
    let vendored = library.join("vendor");
    if vendored.is_dir() {
        // Debian has beside it what it depends on.
        cargo.args(["--config", "source.crates-io.replace-with='vendored-std'"]);
        cargo.args(["--config", &format!("source.vendored-std.directory='{}'", vendored.display())]);
    }
    // Another build's flags are not for this one, and `cargo xtask` leaves its own variables.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.contains("RUSTFLAGS") || name.starts_with("CARGO_BUILD_") || name.starts_with("CARGO_TARGET_") {
            cargo.env_remove(&*name);
        }
    }
    // The toolchain's own cargo, so that it stays this compiler in a folder without a rust-toolchain.toml.
    cargo.env("RUSTUP_TOOLCHAIN", &compiler.sysroot).env("RUSTC", compiler.sysroot.join("bin/rustc"));
    // `-Zbuild-std` is for nightly compilers, but for this; and it looks for the sources in the toolchain,
    // but for that.
    cargo.env("RUSTC_BOOTSTRAP", "1").env("__CARGO_TESTS_ONLY_SRC_ROOT", &library);
    shell::run(cargo.env("CARGO_TARGET_DIR", &output_folder))
        .with_context(|| format!("cannot build a standard library for {}", target.triple()))?;
    let made = output_folder.join(target.triple()).join("release/deps");
    let place = sysroot.join("lib/rustlib").join(target.triple());
    // Complete or not there.
    let part = place.with_added_extension("part");
    let _ = fs::remove_dir_all(&part);
    fs::create_dir_all(part.join("lib"))?;
    for entry in fs::read_dir(&made)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".rlib") && !name.starts_with("libstd_seed") {
            fs::copy(entry.path(), part.join("lib").join(name))?;
        }
    }
    let _ = fs::remove_dir_all(&place);
    fs::rename(&part, &place)?;
    let _ = fs::remove_dir_all(&output_folder);
    Ok(())
}

/// With `lto` set each rlib has its bitcode beside its code, which the agent's thin LTO needs.
const SEED: &str = r#"[workspace]

[package]
name = "std-seed"
version = "0.0.0"
edition = "2024"

[profile.release]
codegen-units = 1
debug = false
lto = "thin"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target = Target::Aarch64Musl;

    fn put(sysroot: &Path, target: Target) {
        let folder = sysroot.join("lib/rustlib").join(target.triple()).join("lib");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("libstd-0123456789abcdef.rlib"), "").expect("a file");
    }

    #[test]
    fn the_most_official_standard_library_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = |name: &str| folder.path().join(name);
        let places = Places { toolchain: place("toolchain"), rustup: place("rustup"), built: place("built") };
        // Of another target, or half there.
        put(&places.toolchain, Target::X86Gnu);
        fs::create_dir_all(places.rustup.join("lib/rustlib").join(TARGET.triple()).join("lib")).expect("a folder");
        assert_eq!(places.look(TARGET), None);
        put(&places.built, TARGET);
        assert_eq!(places.look(TARGET), Some(Std::Built(place("built"))));
        put(&places.rustup, TARGET);
        assert_eq!(places.look(TARGET), Some(Std::Rustup(place("rustup"))));
        put(&places.toolchain, TARGET);
        assert_eq!(places.look(TARGET), Some(Std::Toolchain));
    }

    #[test]
    fn the_compiler_is_told_where_it_lies() {
        let built = Std::Built("/s".into());
        assert_eq!(built.flags(Target::Armv7Gnu), ["--sysroot=/s"]);
        assert_eq!(built.flags(TARGET), ["--sysroot=/s", "-Clink-arg=-pie", "-Clink-self-contained=no"]);
        assert_eq!(Std::Rustup("/r".into()).flags(TARGET), ["--sysroot=/r", "-Clink-arg=-pie"]);
        assert!(Std::Toolchain.flags(Target::X86Gnu).is_empty());
    }
}
