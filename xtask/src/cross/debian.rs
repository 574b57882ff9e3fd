//! Sources from Debian, without root: a package client's state of this command's own, the machine's left
//! alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use muster_world::output;

use crate::shell;

/// Where a compiler's sources may be: backports keep older ones.
const SUITES: [&str; 4] = ["trixie-backports", "forky", "sid", "trixie"];
/// Signs what Debian publishes.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Puts `library/` of a release of the compiler into `folder`, unless it is there.
pub fn unpack_rust_src(release: &str, cache: &Path, folder: &Path) -> anyhow::Result<()> {
    if folder.join("library/Cargo.lock").exists() {
        return Ok(());
    }
    let package = download(&format!("{release}+"), cache).with_context(|| {
        format!(
            "no standard library's sources of release {release}; where rustup works, `rustup target add` brings \
             one, and MUSTER_RUST_SRC names a package rust-src of exactly this release"
        )
    })?;
    let part = folder.with_added_extension("part");
    let _ = fs::remove_dir_all(&part);
    fs::create_dir_all(&part)?;
    shell::run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&part))?;
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder)?;
    let library = part.join("usr/src").join(format!("rustc-{release}")).join("library");
    fs::rename(&library, folder.join("library")).with_context(|| format!("{} holds no library/", package.display()))?;
    let _ = fs::remove_dir_all(&part);
    Ok(())
}

/// The package `rust-src` of a version that begins so.
fn download(version: &str, cache: &Path) -> anyhow::Result<PathBuf> {
    if let Some(given) = std::env::var_os("MUSTER_RUST_SRC") {
        return Ok(given.into());
    }
    let apt = Apt::new(&cache.join("apt"))?;
    for suite in SUITES {
        // One at a time: a mirror that lacks one must not spoil the others.
        if let Err(error) = apt.update(suite) {
            eprintln!("{suite} cannot be used: {error:#}");
            continue;
        }
        let Some(found) = apt.version(version)? else { continue };
        eprintln!("fetching rust-src {found} from Debian's {suite}");
        return apt.download(&found);
    }
    bail!("Debian has no rust-src {version} in {}", SUITES.join(", "))
}

/// A package client with a configuration, lists and a cache of its own.
struct Apt {
    folder: PathBuf,
    mirror: String,
}

impl Apt {
    fn new(folder: &Path) -> anyhow::Result<Self> {
        if !shell::exists("apt-get") {
            bail!("this machine has no apt-get");
        }
        for name in ["etc/apt.conf.d", "etc/preferences.d", "state/lists/partial", "cache/archives/partial", "debs"] {
            fs::create_dir_all(folder.join(name))?;
        }
        // Nothing is installed, as far as it knows.
        fs::write(folder.join("state/status"), "")?;
        let place = folder.display();
        let configuration = format!(
            "Dir::Etc \"{place}/etc\";\nDir::State \"{place}/state\";\nDir::State::status \"{place}/state/status\";\n\
             Dir::Cache \"{place}/cache\";\nAPT::Architecture \"amd64\";\nAPT::Architectures {{\"amd64\";}};\n\
             Acquire::Languages \"none\";\nAcquire::Retries \"3\";\nAPT::Sandbox::User \"\";\n"
        );
        fs::write(folder.join("apt.conf"), configuration)?;
        Ok(Self { folder: folder.to_owned(), mirror: mirror()? })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.folder.join("apt.conf")).current_dir(self.folder.join("debs"));
        command
    }

    fn update(&self, suite: &str) -> anyhow::Result<()> {
        let source = format!("deb [arch=amd64 signed-by={KEYRING}] {} {suite} main\n", self.mirror);
        fs::write(self.folder.join("etc/sources.list"), source)?;
        output(self.command("apt-get").args(["--quiet", "--error-on=any", "update"])).map(drop)
    }

    fn version(&self, beginning: &str) -> anyhow::Result<Option<String>> {
        let told = output(self.command("apt-cache").args(["madison", "rust-src"]))?;
        Ok(find_version(&told, beginning))
    }

    fn download(&self, version: &str) -> anyhow::Result<PathBuf> {
        output(self.command("apt-get").args(["--quiet", "download", &format!("rust-src={version}")]))?;
        let mut found: Vec<PathBuf> =
            fs::read_dir(self.folder.join("debs"))?.flatten().map(|file| file.path()).collect();
        // A colon is spelled otherwise in a file's name; the newest file is the one.
        found.sort_by_key(|path| path.metadata().and_then(|data| data.modified()).ok());
        found.pop().context("nothing was fetched")
    }
}

/// A line is `package | version | source`.
fn find_version(madison: &str, beginning: &str) -> Option<String> {
    let versions = madison.lines().filter_map(|line| line.split('|').nth(1)).map(str::trim);
    versions.filter(|version| version.starts_with(beginning)).map(str::to_owned).next()
}

/// The mirror that this machine uses, or the one that it is told.
pub fn mirror() -> anyhow::Result<String> {
    if let Ok(mirror) = std::env::var("MUSTER_DEBIAN_MIRROR") {
        return Ok(mirror);
    }
    let folder = Path::new("/etc/apt");
    let more = fs::read_dir(folder.join("sources.list.d")).into_iter().flatten().flatten().map(|entry| entry.path());
    let texts =
        std::iter::once(folder.join("sources.list")).chain(more).filter_map(|path| fs::read_to_string(path).ok());
    let found = texts.collect::<Vec<_>>().iter().find_map(|text| find_mirror(text));
    found.context("this machine's package sources name no mirror of Debian; MUSTER_DEBIAN_MIRROR=URL does")
}

/// The first address of a Debian archive in a list of sources, in the old form or the new.
fn find_mirror(sources: &str) -> Option<String> {
    let lines = sources.lines().filter(|line| line.starts_with("deb ") || line.starts_with("URIs:"));
    let words = lines.flat_map(str::split_whitespace);
    let of_debian = |word: &&str| {
        (word.starts_with("http://") || word.starts_with("https://")) && word.trim_end_matches('/').ends_with("/debian")
    };
    words.filter(of_debian).map(str::to_owned).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_found_in_both_forms() {
        let check = |text: &str, found: Option<&str>| assert_eq!(find_mirror(text).as_deref(), found, "{text}");
        check("Types: deb\nURIs: http://mirror.example/debian\nSuites: x", Some("http://mirror.example/debian"));
        check("deb [arch=amd64] https://m.example/debian/ x main", Some("https://m.example/debian/"));
        check("# deb http://m.example/debian x main", None);
        check("deb http://m.example/debian-security x main\ndeb http://m.example/ubuntu x main", None);
    }

    #[test]
    fn the_sources_of_exactly_one_release_will_do() {
        let told = " rust-src | 1.96.0+dfsg1-1 | m\n rust-src | 1.95.0+dfsg1-2~bpo13+1 | m\n";
        assert_eq!(find_version(told, "1.95.0+").as_deref(), Some("1.95.0+dfsg1-2~bpo13+1"));
        assert_eq!(find_version(told, "1.9+"), None);
    }
}
