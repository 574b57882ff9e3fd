//! Signatures as strict verification wants them: Wycheproof's vectors for Ed25519 and for ECDSA P-256, the
//! twelve cases of "Taming the Many EdDSAs" (Chalkias, Garillot, Nikolaenko, 2020), and every encoding of
//! a point that is not the canonical one.

#![allow(clippy::unwrap_used)]

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use muster_shared::signing::device::DevicePublicKey;
use muster_shared::signing::key::{PublicKey, SecretKey};
use sha2::{Digest as _, Sha512};
use wycheproof::{TestResult, ecdsa, eddsa};

/// A vector that Wycheproof calls acceptable may go either way; there must be none, or we would have to
/// say which way we go.
fn expected(result: TestResult, case: usize) -> bool {
    match result {
        TestResult::Valid => true,
        TestResult::Invalid => false,
        TestResult::Acceptable => panic!("vector {case} is neither right nor wrong: decide what we do with it"),
    }
}

#[test]
fn ed25519_answers_every_wycheproof_vector_as_it_should() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let (mut seen, mut valid) = (0, 0);
    for group in &set.test_groups {
        let key: [u8; 32] = group.key.pk[..].try_into().unwrap();
        let key = PublicKey::from_bytes(key);
        for test in &group.tests {
            let wanted = expected(test.result, test.tc_id);
            assert_eq!(key.verify(&test.msg, &test.sig), wanted, "{}: {}", test.tc_id, test.comment);
            seen += 1;
            valid += usize::from(wanted);
        }
    }
    assert_eq!(seen, set.number_of_tests);
    assert!(seen >= 150 && valid >= 50 && seen - valid >= 50, "{seen} vectors, {valid} of them valid");
}

#[test]
fn a_devices_key_answers_every_wycheproof_vector_for_p256_as_it_should() {
    let set = ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256).unwrap();
    let (mut seen, mut valid) = (0, 0);
    for group in &set.test_groups {
        let key = DevicePublicKey::from_spki(&group.der).expect("a P-256 key");
        for test in &group.tests {
            let wanted = expected(test.result, test.tc_id);
            assert_eq!(key.verify(&test.msg, &test.sig), wanted, "{}: {}", test.tc_id, test.comment);
            seen += 1;
            valid += usize::from(wanted);
        }
    }
    assert_eq!(seen, set.number_of_tests);
    assert!(seen >= 450 && valid >= 100 && seen - valid >= 200, "{seen} vectors, {valid} of them valid");
}

struct Case {
    what: &'static str,
    message: &'static str,
    key: &'static str,
    signature: &'static str,
    strict: bool,
}

const SMALL_KEY: &str = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa";
const MIXED_KEY: &str = "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43";
const OTHER_MIXED_KEY: &str = "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d";
const NONCANONICAL_KEY: &str = "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

/// The cases of the paper's table 5 in order (github.com/novifinancial/ed25519-speccheck, `cases.json`, Apache-2.0),
/// and behind them two of an earlier draft, whose R has y = p. Each passes some verifier in the world; only
/// the fourth, whose A and R have a part of small order but are not of small order, is what RFC 8032
/// without a cofactor takes: "strict" says nothing against it, and no other key or message fits it.
const CASES: [Case; 14] = [
    Case {
        what: "0: S is 0, A and R of small order",
        message: "8c93255d71dcab10e8f379c26200f3c7bd5f09d9bc3068d3ef4edeb4853022b6",
        key: SMALL_KEY,
        signature: "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a0000000000000000000000000000000000000000000000000000000000000000",
        strict: false,
    },
    Case {
        what: "1: A of small order",
        message: "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
        key: SMALL_KEY,
        signature: "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43a5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
        strict: false,
    },
    Case {
        what: "2: R of small order",
        message: "aebf3f2601a0c8c5d39cc7d8911642f740b78168218da8471772b35f9d35b9ab",
        key: MIXED_KEY,
        signature: "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa8c4bd45aecaca5b24fb97bc10ac27ac8751a7dfe1baff8b953ec9f5833ca260e",
        strict: false,
    },
    Case {
        what: "3: A and R of mixed order, and the equation holds without the cofactor",
        message: "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
        key: OTHER_MIXED_KEY,
        signature: "9046a64750444938de19f227bb80485e92b83fdb4b6506c160484c016cc1852f87909e14428a7a1d62e9f22f3d3ad7802db02eb2e688b6c52fcd6648a98bd009",
        strict: true,
    },
    Case {
        what: "4: A and R of mixed order, and the equation holds with the cofactor only",
        message: "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
        key: OTHER_MIXED_KEY,
        signature: "160a1cb0dc9c0258cd0a7d23e94d8fa878bcb1925f2c64246b2dee1796bed5125ec6bc982a269b723e0668e540911a9a6a58921d6925e434ab10aa7940551a09",
        strict: false,
    },
    Case {
        what: "5: A of mixed order, and the equation holds with the cofactor before the reduction only",
        message: "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
        key: OTHER_MIXED_KEY,
        signature: "21122a84e0b5fca4052f5b1235c80a537878b38f3142356b2c2384ebad4668b7e40bc836dac0f71076f9abe3a53f9c03c1ceeeddb658d0030494ace586687405",
        strict: false,
    },
    Case {
        what: "6: S is above the group's order",
        message: "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
        key: "442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623",
        signature: "e96f66be976d82e60150baecff9906684aebb1ef181f67a7189ac78ea23b6c0e547f7690a0e2ddcd04d87dbc3490dc19b3b3052f7ff0538cb68afb369ba3a514",
        strict: false,
    },
    Case {
        what: "7: S is far above the group's order",
        message: "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
        key: "442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623",
        signature: "8ce5b96c8f26d0ab6c47958c9e68b937104cd36e13c33566acd2fe8d38aa19427e71f98a473474f2f13f06f97c20d58cc3f54b8bd0d272f42b695dd7e89a8c22",
        strict: false,
    },
    Case {
        what: "8: R is not canonical, and is reduced before it is hashed",
        message: "9bedc267423725d473888631ebf45988bad3db83851ee85c85e241a07d148b41",
        key: MIXED_KEY,
        signature: "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff03be9678ac102edcd92b0210bb34d7428d12ffc5df5f37e359941266a4e35f0f",
        strict: false,
    },
    Case {
        what: "9: R is not canonical, and is hashed as it is",
        message: "9bedc267423725d473888631ebf45988bad3db83851ee85c85e241a07d148b41",
        key: MIXED_KEY,
        signature: "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffca8c5b64cd208982aa38d4936621a4775aa233aa0505711d8fdcfdaa943d4908",
        strict: false,
    },
    Case {
        what: "10: A is not canonical, and is reduced before it is hashed",
        message: "e96b7021eb39c1a163b6da4e3093dcd3f21387da4cc4572be588fafae23c155b",
        key: NONCANONICAL_KEY,
        signature: "a9d55260f765261eb9b84e106f665e00b867287a761990d7135963ee0a7d59dca5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
        strict: false,
    },
    Case {
        what: "11: A is not canonical, and is hashed as it is",
        message: "39a591f5321bbe07fd5a23dc2f39d025d74526615746727ceefd6e82ae65c06f",
        key: NONCANONICAL_KEY,
        signature: "a9d55260f765261eb9b84e106f665e00b867287a761990d7135963ee0a7d59dca5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
        strict: false,
    },
    Case {
        what: "draft 8: R has y = p, and is hashed as it is",
        message: "fdaebc429f4a735932a160da1301080c13280eea8bc280d1b392c6b9e6ba3a5a",
        key: MIXED_KEY,
        signature: "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f454d370c8d9fc323a41450f8d513eafeb5b0697390c1e505a0d4ddc71f566607",
        strict: false,
    },
    Case {
        what: "draft 9: R has y = p, and is reduced before it is hashed",
        message: "84b698d39be126ff55fe45079e6c8bf64a0d7db6994560b4e96b7021eb39c1a1",
        key: MIXED_KEY,
        signature: "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f084d5b99c2a9463d9c8bd5026916996984eeec87ddf1d3be329006ace1b37b09",
        strict: false,
    },
];

/// The most that any verifier takes: S of any size, points of any order and spelling, the cofactor, and
/// points hashed as they are or as they should be.
fn lax(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    let (r_bytes, s_bytes): ([u8; 32], [u8; 32]) =
        (signature[..32].try_into().unwrap(), signature[32..].try_into().unwrap());
    let read = |bytes: [u8; 32]| CompressedEdwardsY(bytes).decompress().expect("a point of the curve");
    let (a, r) = (read(*key), read(r_bytes));
    let s = Scalar::from_bytes_mod_order(s_bytes);
    let forms = |bytes: [u8; 32], point: &EdwardsPoint| [bytes, point.compress().to_bytes()];
    forms(r_bytes, &r).iter().any(|r_hashed| {
        forms(*key, &a).iter().any(|a_hashed| {
            let hash = Sha512::new().chain_update(r_hashed).chain_update(a_hashed).chain_update(message).finalize();
            let k = Scalar::from_bytes_mod_order_wide(&hash.into());
            (EdwardsPoint::mul_base(&s) - r - k * a).is_small_order()
        })
    })
}

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    hex::decode(hex).unwrap().try_into().unwrap()
}

#[test]
fn of_the_signatures_that_verifiers_disagree_about_only_the_strict_one_is_taken() {
    for Case { what, message, key, signature, strict } in CASES {
        let (key, message, signature) = (bytes::<32>(key), bytes::<32>(message), bytes::<64>(signature));
        // A figure that was copied wrong would be refused for nothing.
        assert!(lax(&key, &message, &signature), "{what}: no verifier takes it");
        // Where A is of small order it fits any message: that is the harm.
        let any_message = CompressedEdwardsY(key).decompress().unwrap().is_small_order();
        assert_eq!(lax(&key, b"another message", &signature), any_message, "{what}");
        assert_eq!(PublicKey::from_bytes(key).verify(&message, &signature), strict, "{what}");
    }
}

/// 2^255 - 19 + `above`, with the sign of x.
fn not_reduced(above: u8, sign: bool) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    bytes[0] = 0xed + above;
    bytes[31] = if sign { 0xff } else { 0x7f };
    bytes
}

#[test]
fn a_key_in_another_spelling_than_the_one_is_no_key() {
    let mut on_the_curve = 0;
    for above in 0..19 {
        for sign in [false, true] {
            let spelled = not_reduced(above, sign);
            let Some(point) = CompressedEdwardsY(spelled).decompress() else { continue };
            on_the_curve += 1;
            assert!(!PublicKey::from_bytes(spelled).is_strict(), "p + {above}, {sign}");
            // The same point in its one spelling is a key, unless it is of small order.
            let canonical = PublicKey::from_bytes(point.compress().to_bytes());
            assert_eq!(canonical.is_strict(), !point.is_small_order(), "p + {above}, {sign}");
        }
    }
    assert!(on_the_curve > 10, "{on_the_curve}");
}

#[test]
fn a_key_of_small_order_or_off_the_curve_is_no_key() {
    for point in curve25519_dalek::constants::EIGHT_TORSION {
        assert!(!PublicKey::from_bytes(point.compress().to_bytes()).is_strict());
    }
    assert!(!PublicKey::from_bytes([2; 32]).is_strict() || CompressedEdwardsY([2; 32]).decompress().is_some());
    assert!(SecretKey::from_seed([1; 32]).public().is_strict());
}

#[test]
fn a_signature_is_good_in_its_own_spelling_and_length_only() {
    let key = SecretKey::from_seed([7; 32]);
    let good = key.sign(b"text");
    assert!(key.public().verify(b"text", &good));
    // S plus the group's order is the same number to who reduces it.
    let order: [u8; 32] = bytes("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let (mut malleable, mut carry) = (good, 0u16);
    for (at, byte) in order.iter().enumerate() {
        let sum = u16::from(malleable[32 + at]) + u16::from(*byte) + carry;
        malleable[32 + at] = sum as u8;
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    let public: [u8; 32] = bytes(&key.public().to_string());
    assert!(lax(&public, b"text", &malleable), "the same number modulo the order");
    assert!(!key.public().verify(b"text", &malleable));
    for length in 0..good.len() {
        assert!(!key.public().verify(b"text", &good[..length]), "{length} bytes");
    }
    assert!(!key.public().verify(b"text", &[&good[..], &[0]].concat()));
}
