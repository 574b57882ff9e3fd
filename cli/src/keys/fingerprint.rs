//! Fingerprints as two people compare them on the telephone: in groups of four.

use muster_shared::Digest;
use muster_shared::signing::key::PublicKey;

/// `d75a 9801 82b1 …`, all 16 groups: an attacker can make a key whose first groups agree.
pub fn groups(digest: Digest) -> String {
    let text = digest.to_string();
    let letters: Vec<char> = text.chars().collect();
    letters.chunks(4).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join(" ")
}

/// A key's fingerprint in groups.
pub fn of(key: &PublicKey) -> String {
    groups(key.id().0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_has_sixteen_groups_and_loses_nothing() {
        let text = groups(Digest::of("key"));
        assert_eq!(text.split(' ').count(), 16);
        assert_eq!(text.replace(' ', ""), Digest::of("key").to_string());
    }
}
