//! The checks that keep attacks out, each by its name.
//!
//! `cargo xtask attacks` shows that each one is needed: in a build with the feature `attacks` a check can
//! be taken out at run time, and the attack must then succeed. Without that feature, which no release
//! has, [`on`] is constant and nothing can be taken out.

macro_rules! checks {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One check.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Check { $($(#[$doc])* $name,)* }

        impl Check {
            /// Every check.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

checks! {
    /// A document's signatures: enough good ones, by keys of its role.
    Signature,
    /// One key counts once towards a threshold.
    DistinctKeys,
    /// Keys that the root names as compromised count for nothing.
    Compromised,
    /// A publisher that is limited to models signs for those only.
    PublisherModels,
    /// A root is followed by the next version only.
    RootVersion,
    /// The next root is signed by the one before it, not only by itself.
    RootChain,
    /// A root's epoch never goes back.
    RootEpoch,
    /// A loss of state brings no older root back.
    RootKept,
    /// A document is of this fleet.
    Fleet,
    /// A document is for this device and its key.
    Device,
    /// A desired state is of the root's epoch.
    Epoch,
    /// A desired state is not older than the one held.
    Order,
    /// Its number is not too far ahead.
    Jump,
    /// A document has not expired.
    Expiry,
    /// Nothing new begins under an expired root.
    RootExpiry,
    /// What a device without state takes answers its own hello.
    Nonce,
    /// A desired state was not signed under a root that the device has yet to get.
    RootKnown,
    /// A desired state's slots keep their bounds.
    Slots,
    /// The manifest is the one that the desired state names, by digest.
    ManifestDigest,
    /// The manifest is of the model and the version that the slot says.
    ManifestIdentity,
    /// The model may run on this device at all: engine, format, ports.
    Software,
    /// Nothing below a model's version floor runs.
    Floor,
    /// Nothing new runs before the floor that the director knows is known here.
    FloorKnown,
    /// A floor counts only up to the highest version seen signed.
    FloorBound,
    /// A blob's declared length is within its bound.
    DeclaredLength,
    /// What is sent of a blob is as long as what was asked for.
    SentLength,
    /// A chunk's digest is the one that its index names.
    ChunkDigest,
    /// A file as a whole has the digest by which it is named.
    FileDigest,
    /// A chunk index is the one that the manifest names, of the right length.
    IndexDigest,
    /// What the device's owner allows.
    OwnerLimits,
    /// A repeated call is answered once.
    CallOnce,
    /// A loopback door knows who asks: only loopback names as Host, no Origin of elsewhere.
    Origin,
    /// A claim's secret is right.
    ClaimSecret,
    /// A claim is spent by a key: its uses are counted.
    ClaimUses,
    /// A claim has not expired.
    ClaimExpiry,
    /// A claim allows the labels that a device asks for.
    ClaimLabels,
    /// A device's certificate is of its enrolled key, which is not revoked.
    EnrolledKey,
    /// A device publishes and reads its own topics only.
    Topics,
    /// A device is served only what its desired state names.
    ChunkRights,
    /// A report, a batch, a renewal is signed by the device's key.
    DeviceSignature,
    /// A certificate is checked at a time that is not before the device's lower bound.
    TimeBound,
    /// The server's certificate comes from the pinned authority.
    PinnedCa,
    /// The root is the one that the claim pins.
    PinnedRoot,
    /// A release is signed by release keys, not by those of another role.
    ReleaseRole,
    /// A release is not older than the agent that is installed.
    ReleaseOrder,
    /// A release's file has the length and the digest that the release gives it.
    ReleaseDigest,
    /// A release's file is for this kind of machine.
    ReleaseTarget,
}

impl std::str::FromStr for Check {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .iter()
            .copied()
            .find(|check| check.name() == name)
            .ok_or_else(|| format!("there is no check {name:?}"))
    }
}

/// Whether a check is made.
#[cfg(not(feature = "attacks"))]
pub const fn on(_: Check) -> bool {
    true
}

#[cfg(feature = "attacks")]
mod switched {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Check;

    static OUT: AtomicU64 = AtomicU64::new(0);

    /// Whether a check is made.
    pub fn on(check: Check) -> bool {
        OUT.load(Ordering::Relaxed) & (1 << check as u64) == 0
    }

    /// Makes every check but these, from now on in this process: names with commas between them, as
    /// [`VARIABLE`] has them.
    pub fn take_out(names: &str) -> Result<(), String> {
        let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
        let checks = names.map(str::parse).collect::<Result<Vec<Check>, _>>()?;
        OUT.store(checks.iter().fold(0, |bits, check| bits | 1 << *check as u64), Ordering::Relaxed);
        Ok(())
    }

    /// The environment variable that programs of such a build read at their start.
    pub const VARIABLE: &str = "MUSTER_CHECKS_OUT";
}

#[cfg(feature = "attacks")]
pub use switched::{VARIABLE, on, take_out};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_has_a_place_among_64_bits_and_reads_as_it_prints() {
        assert!(Check::ALL.len() <= 64);
        for check in Check::ALL {
            assert_eq!(check.name().parse(), Ok(*check));
            assert!(on(*check));
        }
        assert!("Sgnature".parse::<Check>().is_err());
    }
}
