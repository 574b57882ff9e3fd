//! Lays a system out on a disk that is a file.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::Architecture;
use super::entry::{self, Entry, Name, Slot};
use super::system::System;
use crate::disk::table::{END_SECTORS, FIRST_SECTOR, Kind, Planned, TableError};
use crate::disk::{SECTOR, Window, fat, table};
use crate::enrolment::{self, Enrolment};
use crate::network::{self, Network};

/// The partition that the firmware reads, in MiB: two systems, and one on its way.
pub const ESP_MIB: u64 = 288;
/// What an image brings of the partition for data, in MiB: the device makes it as large as its disk.
const DATA_MIB: u64 = 16;
/// The first system's number.
const VERSION: u64 = 1;
/// The FAT partition's label, as a computer shows it.
pub const LABEL: &str = "MUSTER";
/// The partitions' names in the table; the second is `muster-data` once its file system is made.
pub const PARTITIONS: [&str; 2] = ["muster-esp", "muster-new"];

/// What is laid out.
#[derive(Debug)]
pub struct Image<'a> {
    /// The device's processor.
    pub architecture: Architecture,
    /// The first system.
    pub system: &'a System,
    /// What lets the device in; may be added later.
    pub enrolment: Option<&'a Enrolment>,
    /// How it gets its address; none: by DHCP.
    pub network: Option<&'a Network>,
    /// Further options for the kernel.
    pub options: &'a [String],
}

/// Why an image cannot be written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum BuildError {
    #[error("cannot write the image")]
    Write(#[source] io::Error),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("the system takes {needed} MiB, and two of them must fit into {ESP_MIB} MiB")]
    TooLarge { needed: u64 },
}

impl Image<'_> {
    /// Writes the image into an empty file; its length.
    pub fn write(&self, file: &mut File) -> Result<u64, BuildError> {
        let system = self.system.linux.len() as u64 + self.system.initrd.len() as u64;
        // Each in whole clusters, and some room for all the small files.
        if (system + (1 << 20)) * 2 > (ESP_MIB - 8) << 20 {
            return Err(BuildError::TooLarge { needed: system >> 20 });
        }
        let (esp, data) = ((ESP_MIB << 20) / SECTOR, (DATA_MIB << 20) / SECTOR);
        let sectors = (FIRST_SECTOR + esp + data + END_SECTORS).next_multiple_of(FIRST_SECTOR);
        file.set_len(sectors * SECTOR).map_err(BuildError::Write)?;
        let seed = self.seed();
        let [esp_name, data_name] = PARTITIONS;
        let partitions = [
            Planned { name: esp_name, kind: Kind::Efi, first: FIRST_SECTOR, sectors: esp, id: id(&seed, 1) },
            Planned { name: data_name, kind: Kind::Linux, first: FIRST_SECTOR + esp, sectors: data, id: id(&seed, 2) },
        ];
        table::write(file, sectors, id(&seed, 0), &partitions)?;
        self.write_esp(file, esp * SECTOR, &seed).map_err(BuildError::Write)?;
        // A computer that finds an old file system there would show it.
        file.seek(SeekFrom::Start((FIRST_SECTOR + esp) * SECTOR)).map_err(BuildError::Write)?;
        file.write_all(&[0; 64 * 1024]).and_then(|()| file.sync_all()).map_err(BuildError::Write)?;
        Ok(sectors * SECTOR)
    }

    fn write_esp(&self, file: &mut File, bytes: u64, seed: &[u8; 32]) -> io::Result<()> {
        let mut window = Window::new(file, FIRST_SECTOR * SECTOR, bytes)?;
        let serial = seed.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        fat::format(&mut window, LABEL, serial)?;
        fat::change(&mut window, |esp| self.files().iter().try_for_each(|(path, bytes)| fat::put(esp, path, bytes)))
    }

    /// What lies on the partition that the firmware reads.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let slot = Slot::A;
        let consoles = self.architecture.consoles().iter().map(|&console| console.to_owned());
        let options: Vec<String> = consoles.chain(self.options.iter().cloned()).collect();
        let entry = Entry { slot, version: VERSION, options: &options };
        let mut files = vec![
            (self.architecture.loader().1.to_owned(), self.system.loader.to_vec()),
            ("loader/loader.conf".to_owned(), b"timeout 0\neditor no\n".to_vec()),
            (format!("{}/{}", entry::FOLDER, Name::new(slot)), entry.to_string().into_bytes()),
            (format!("muster/{slot}/linux"), self.system.linux.to_vec()),
            (format!("muster/{slot}/initrd"), self.system.initrd.clone()),
            ("muster/README.txt".to_owned(), include_bytes!("../../device/README.txt").to_vec()),
        ];
        if let Some(enrolment) = self.enrolment {
            files.push((enrolment::PATH.to_owned(), enrolment.to_string().into_bytes()));
        }
        if let Some(network) = self.network {
            files.push((network::PATH.to_owned(), network.to_string().into_bytes()));
        }
        files
    }

    /// What ids are made from: the same contents give the same ids.
    fn seed(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for (path, bytes) in self.files() {
            for part in [path.as_bytes(), &bytes] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
        }
        hash.finalize().into()
    }
}

/// An id from a seed.
fn id(seed: &[u8; 32], number: u8) -> Uuid {
    let digest: [u8; 32] = Sha256::new().chain_update(seed).chain_update([number]).finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::Arc;

    use super::*;

    fn digest(image: &Image) -> String {
        let mut file = tempfile::tempfile().expect("a file");
        image.write(&mut file).expect("an image");
        let (mut hash, mut piece) = (Sha256::new(), vec![0; 1 << 20]);
        file.rewind().expect("rewinds");
        loop {
            match file.read(&mut piece).expect("reads") {
                0 => break hex::encode(hash.finalize()),
                read => hash.update(&piece[..read]),
            }
        }
    }

    #[test]
    fn the_same_inputs_give_the_same_bytes_and_others_give_others() {
        let system = |linux: &[u8]| System {
            linux: Arc::from(linux),
            initrd: vec![3; 5 << 20],
            loader: Arc::from(*b"loader"),
            kernel: "6.1".to_owned(),
            unpacked: 0,
        };
        let (one, other) = (system(b"linux"), system(b"linux, newer"));
        let enrolment = Enrolment::parse(&format!("url=https://x\nroot-digest={0}\nca-digest={0}", "5".repeat(64)));
        let enrolment = enrolment.expect("an enrolment");
        let image = |system, enrolment| Image {
            architecture: Architecture::Arm64,
            system,
            enrolment,
            network: None,
            options: &[],
        };
        let digests = [image(&one, None), image(&one, None), image(&one, Some(&enrolment)), image(&other, None)];
        let digests = digests.each_ref().map(digest);
        assert_eq!(digests[0], digests[1]);
        assert!(digests[0] != digests[2] && digests[0] != digests[3] && digests[2] != digests[3]);
    }

    #[test]
    fn a_system_that_fits_only_once_is_refused() {
        let initrd = vec![0; (ESP_MIB as usize / 2) << 20];
        let (linux, loader) = (Arc::from(*b"linux"), Arc::from(*b"loader"));
        let system = System { linux, initrd, loader, kernel: "6.1".to_owned(), unpacked: 0 };
        let image =
            Image { architecture: Architecture::Arm64, system: &system, enrolment: None, network: None, options: &[] };
        let mut file = tempfile::tempfile().expect("a file");
        assert!(matches!(image.write(&mut file), Err(BuildError::TooLarge { .. })));
    }
}
