//! Whether a drive may be overwritten. Everything speaks against it that could cost somebody data.

use std::fmt;

use super::{Bus, Drive, Use};

/// Where a machine keeps itself: what is mounted there is what it runs from.
const SYSTEM_FOLDERS: [&str; 6] = ["/", "/boot", "/usr", "/var", "/etc", "/home"];

/// What the person who asks has in mind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wish {
    /// The drive was named, not found in a list.
    pub named: bool,
    /// Drives that are built in are meant, too.
    pub built_in: bool,
    /// What shall go onto it; 0: not known.
    pub bytes: u64,
}

/// Why a drive is not to be overwritten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Objection {
    /// This machine runs from it.
    System {
        /// Mounted there, or swap.
        what: String,
    },
    /// A file system on it is mounted.
    Mounted {
        /// The partition.
        by: String,
        /// Where.
        at: String,
    },
    /// Another block device stands on it.
    Held {
        /// That device.
        by: String,
    },
    /// Its write protection is on.
    ReadOnly,
    /// No medium is in it.
    Empty,
    /// A part of eMMC that boots the machine it is soldered to.
    BootArea,
    /// Made by software, and nobody asked for it by name.
    Software,
    /// It cannot be taken out.
    BuiltIn,
    /// It holds less than what shall go onto it.
    TooSmall {
        /// What it holds.
        bytes: u64,
        /// What is needed.
        needs: u64,
    },
}

impl Objection {
    /// What a person can do about it.
    pub fn next_move(&self, drive: &str) -> String {
        match self {
            Self::System { .. } => {
                "name another drive: this one is never written, whatever is asked; `muster flash` lists the others"
                    .to_owned()
            }
            Self::Mounted { at, .. } => format!("look at what is on it, then `umount '{at}'` and try again"),
            Self::Held { by } => format!("take {by} apart first (LVM, RAID or encryption stands on {drive})"),
            Self::ReadOnly => "move the card's lock, or use another reader".to_owned(),
            Self::Empty => "put a card in".to_owned(),
            Self::BootArea => format!("name the whole {}", drive.split("boot").next().unwrap_or(drive)),
            Self::Software => format!("name it as /dev/{drive} if you mean it"),
            Self::BuiltIn => "say --built-in if you mean a drive that stays in this machine".to_owned(),
            Self::TooSmall { .. } => "use a larger one, or a smaller image".to_owned(),
        }
    }
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System { what } => write!(f, "this machine runs from it ({what})"),
            Self::Mounted { by, at } => write!(f, "{by} is mounted at {at}"),
            Self::Held { by } => write!(f, "{by} stands on it"),
            Self::ReadOnly => f.write_str("it can only be read"),
            Self::Empty => f.write_str("there is no medium in it"),
            Self::BootArea => f.write_str("it is a boot area of soldered memory"),
            Self::Software => f.write_str("it is made by software of this machine"),
            Self::BuiltIn => f.write_str("it cannot be taken out of this machine"),
            Self::TooSmall { bytes, needs } => write!(f, "it holds {bytes} bytes, and at least {needs} are needed"),
        }
    }
}

/// All that speaks against writing to a drive, the gravest first; nothing: it may be written.
pub fn objections(drive: &Drive, wish: Wish) -> Vec<Objection> {
    let mut found = Vec::new();
    for one in &drive.uses {
        match one {
            Use::Mounted { at, .. } if SYSTEM_FOLDERS.contains(&at.as_str()) || at.starts_with("/boot/") => {
                found.push(Objection::System { what: format!("mounted at {at}") });
            }
            Use::Swap { by } => found.push(Objection::System { what: format!("{by} is swap") }),
            _ => {}
        }
    }
    let is_system = !found.is_empty();
    if is_boot_area(&drive.name) {
        found.push(Objection::BootArea);
    }
    for one in &drive.uses {
        match one {
            Use::Mounted { by, at } if !is_system => {
                found.push(Objection::Mounted { by: by.clone(), at: at.clone() });
            }
            Use::Held { by } if !is_system => found.push(Objection::Held { by: by.clone() }),
            _ => {}
        }
    }
    if drive.bytes == 0 {
        found.push(Objection::Empty);
    }
    if drive.read_only {
        found.push(Objection::ReadOnly);
    }
    match drive.bus {
        Bus::Software if !wish.named => found.push(Objection::Software),
        Bus::Software | Bus::Usb | Bus::Sd => {}
        _ if drive.removable || wish.built_in => {}
        _ => found.push(Objection::BuiltIn),
    }
    if drive.bytes != 0 && drive.bytes < wish.bytes {
        found.push(Objection::TooSmall { bytes: drive.bytes, needs: wish.bytes });
    }
    found
}

/// `mmcblk0boot0`, `mmcblk0boot1`, `mmcblk0rpmb`.
pub(super) fn is_boot_area(name: &str) -> bool {
    name.strip_prefix("mmcblk")
        .map(|rest| rest.trim_start_matches(|letter: char| letter.is_ascii_digit()))
        .is_some_and(|rest| rest.starts_with("boot") || rest == "rpmb")
}

/// Whether two looks at one name saw the same medium. A kernel without sequences tells only what the drive says.
pub fn same_medium(before: &Drive, after: &Drive) -> bool {
    let identity = |drive: &Drive| {
        let said = (drive.bytes, drive.sector_bytes, drive.bus, drive.model.clone(), drive.serial.clone());
        (drive.number.clone(), drive.sequence, said)
    };
    identity(before) == identity(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stick() -> Drive {
        Drive {
            name: "sdb".to_owned(),
            number: "8:16".to_owned(),
            sequence: Some(9),
            bytes: 32_000_000_000,
            sector_bytes: 512,
            bus: Bus::Usb,
            removable: true,
            read_only: false,
            model: "Acme Stick".to_owned(),
            serial: "A7".to_owned(),
            uses: Vec::new(),
        }
    }

    fn mounted(at: &str) -> Vec<Use> {
        vec![Use::Mounted { by: "sdb1".to_owned(), at: at.to_owned() }]
    }

    fn check(drive: Drive, wish: Wish, expected: &[&str]) {
        let found: Vec<String> = objections(&drive, wish).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{drive:?} {wish:?}");
        assert!(objections(&drive, wish).iter().all(|objection| !objection.next_move(&drive.name).is_empty()));
    }

    #[test]
    fn what_could_cost_data_speaks_against_it() {
        let any = Wish::default();
        let named = Wish { named: true, ..any };
        let built_in = Wish { built_in: true, ..named };
        let run_from = |what: &str| format!("this machine runs from it ({what})");
        check(stick(), any, &[]);
        check(Drive { removable: false, ..stick() }, any, &[]);
        check(Drive { bus: Bus::Sd, removable: false, ..stick() }, any, &[]);
        check(Drive { bus: Bus::Disk, ..stick() }, any, &[]);
        let fixed = "it cannot be taken out of this machine";
        for bus in [Bus::Disk, Bus::Nvme, Bus::Emmc, Bus::Virtual] {
            check(Drive { bus, removable: false, ..stick() }, named, &[fixed]);
            check(Drive { bus, removable: false, ..stick() }, built_in, &[]);
        }
        let software = Drive { bus: Bus::Software, removable: false, ..stick() };
        check(software.clone(), any, &["it is made by software of this machine"]);
        check(software, named, &[]);
        for at in ["/", "/boot", "/boot/firmware", "/boot/efi", "/usr", "/home"] {
            let drive = Drive { uses: mounted(at), ..stick() };
            check(drive.clone(), any, &[&run_from(&format!("mounted at {at}"))]);
            check(drive, built_in, &[&run_from(&format!("mounted at {at}"))]);
        }
        let swap = Drive { uses: vec![Use::Swap { by: "sdb2".to_owned() }], ..stick() };
        check(swap, built_in, &[&run_from("sdb2 is swap")]);
        check(Drive { uses: mounted("/media/me/card"), ..stick() }, any, &["sdb1 is mounted at /media/me/card"]);
        check(Drive { uses: mounted("/bootstrap"), ..stick() }, any, &["sdb1 is mounted at /bootstrap"]);
        check(Drive { uses: vec![Use::Held { by: "dm-0".to_owned() }], ..stick() }, any, &["dm-0 stands on it"]);
        check(Drive { bytes: 0, ..stick() }, Wish { bytes: 5, ..any }, &["there is no medium in it"]);
        check(Drive { read_only: true, ..stick() }, any, &["it can only be read"]);
        let small = Drive { bytes: 100, ..stick() };
        check(small.clone(), Wish { bytes: 100, ..any }, &[]);
        check(small, Wish { bytes: 101, ..any }, &["it holds 100 bytes, and at least 101 are needed"]);
        let boot = Drive { name: "mmcblk0boot1".to_owned(), bus: Bus::Emmc, removable: false, ..stick() };
        check(boot, built_in, &["it is a boot area of soldered memory"]);
    }

    #[test]
    fn another_medium_under_the_same_name_is_another() {
        let one = stick();
        assert!(same_medium(&one, &Drive { uses: mounted("/x"), ..stick() }));
        assert!(!same_medium(&one, &Drive { sequence: Some(10), ..stick() }));
        assert!(!same_medium(&one, &Drive { number: "8:32".to_owned(), ..stick() }));
        assert!(!same_medium(&one, &Drive { bytes: 0, ..stick() }));
    }

    #[test]
    fn another_stick_of_the_same_size_is_another_where_the_kernel_has_no_sequences() {
        let old = || Drive { sequence: None, ..stick() };
        assert!(same_medium(&old(), &Drive { uses: mounted("/x"), ..old() }));
        let others = [
            Drive { model: "Other Stick".to_owned(), ..old() },
            Drive { serial: "A8".to_owned(), ..old() },
            Drive { bus: Bus::Sd, ..old() },
            Drive { sector_bytes: 4096, ..old() },
            Drive { bytes: old().bytes - 512, ..old() },
            stick(),
        ];
        for other in others {
            assert!(!same_medium(&old(), &other), "{other:?}");
        }
    }
}
