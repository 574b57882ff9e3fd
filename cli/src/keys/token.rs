//! Keys that stay in a token or an HSM: PKCS#11, Ed25519 by CKM_EDDSA.

use std::path::PathBuf;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use muster_shared::signing::key::PublicKey;

use super::passphrase;
use super::uri::Uri;
use crate::error::{Attempt as _, Failure, Result};

/// Names the module where the URI does not.
const MODULE_VARIABLE: &str = "MUSTER_PKCS11_MODULE";
/// The curve by its object identifier 1.3.101.112, as PKCS#11 3.0 wants it.
const ED25519_OID: [u8; 5] = [0x06, 0x03, 0x2b, 0x65, 0x70];
/// The curve by its name, as modules before that want it.
const ED25519_NAME: &[u8] = b"\x13\x0cedwards25519";
/// Bytes of an Ed25519 public key.
const PUBLIC_BYTES: usize = 32;

/// A secret key in a token, for as long as this is held.
pub struct TokenKey {
    session: Session,
    key: ObjectHandle,
    public: PublicKey,
    /// Speaks for the module; dropped after the session.
    _module: Pkcs11,
}

impl TokenKey {
    /// Finds the key that a URI names.
    pub fn open(uri: &Uri) -> Result<Self> {
        let (module, session, token) = log_in(uri)?;
        let find = |class| {
            let mut template = vec![Attribute::Class(class)];
            template.extend(named(uri));
            session.find_objects(&template).attempt(|| format!("cannot look for keys in the token {token}"))
        };
        let key = match find(ObjectClass::PRIVATE_KEY)?.as_slice() {
            [only] => *only,
            [] => {
                return Err(Failure::new(format!("the token {token} has no private key {}", what(uri)))
                    .hint("see `pkcs11-tool --list-objects --login`, or make one with `muster keys new`"));
            }
            several => {
                return Err(Failure::new(format!("{} keys in the token {token} are {}", several.len(), what(uri)))
                    .hint("add id=%01%02… to the URI, so that it names only one"));
            }
        };
        let publics = find(ObjectClass::PUBLIC_KEY)?;
        let public = publics.first().and_then(|public| point(&session, *public)).or_else(|| point(&session, key));
        let public = public.ok_or_else(|| {
            Failure::new(format!("the key {} in the token {token} is no Ed25519 key", what(uri)))
                .hint("Muster signs with Ed25519: make such a key with `muster keys new`")
        })?;
        Ok(Self { session, key, public, _module: module })
    }

    /// Makes a key that cannot be taken out of the token.
    pub fn make(uri: &Uri) -> Result<Self> {
        let (module, session, token) = log_in(uri)?;
        let label = uri
            .object
            .clone()
            .ok_or_else(|| Failure::new("a new key in a token needs a name").hint("add object=NAME to the URI"))?;
        let named = vec![Attribute::Label(label.clone().into_bytes())];
        if !session.find_objects(&named).attempt(|| format!("cannot look for keys in the token {token}"))?.is_empty() {
            return Err(Failure::new(format!("the token {token} has a key {label} already"))
                .hint("choose another name: a key is never overwritten"));
        }
        let mut id = uri.id.clone().unwrap_or_else(|| vec![0; 8]);
        if uri.id.is_none() {
            getrandom::fill(&mut id).attempt(|| "cannot get random numbers for a key's id")?;
        }
        let name = [Attribute::Label(label.into_bytes()), Attribute::Id(id)];
        let generate = |curve: &[u8]| {
            let mut public = vec![
                Attribute::Token(true),
                Attribute::Private(false),
                Attribute::Verify(true),
                Attribute::EcParams(curve.to_vec()),
            ];
            public.extend(name.clone());
            let mut private = vec![
                Attribute::Token(true),
                Attribute::Private(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                Attribute::Sign(true),
            ];
            private.extend(name.clone());
            session.generate_key_pair(&Mechanism::EccEdwardsKeyPairGen, &public, &private)
        };
        let (public, key) = generate(&ED25519_OID)
            .or_else(|_| generate(ED25519_NAME))
            .attempt(|| format!("cannot make an Ed25519 key in the token {token}"))?;
        let public = point(&session, public)
            .ok_or_else(|| Failure::new(format!("the token {token} does not tell the public half of its new key")))?;
        Ok(Self { session, key, public, _module: module })
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Signs, and checks what the token gave.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let mechanism = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519));
        let signature = self.session.sign(&mechanism, self.key, message).attempt(|| "the token cannot sign")?;
        if !self.public.verify(message, &signature) {
            return Err(Failure::new("the token gave a signature that does not verify")
                .hint("the module may not know Ed25519; try a newer one"));
        }
        Ok(signature)
    }
}

/// Opens a session in the token, logged in.
fn log_in(uri: &Uri) -> Result<(Pkcs11, Session, String)> {
    let path =
        uri.module.clone().or_else(|| std::env::var_os(MODULE_VARIABLE).map(PathBuf::from)).ok_or_else(|| {
            Failure::new("no PKCS#11 module is named")
                .hint(format!("add ?module-path=/path/to/module.so to the URI, or set {MODULE_VARIABLE}"))
        })?;
    let attempt = || format!("cannot use the PKCS#11 module {}", path.display());
    let module = Pkcs11::new(&path).attempt(attempt)?;
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).attempt(attempt)?;
    let mut found: Vec<(Slot, String, bool)> = Vec::new();
    for slot in module.get_slots_with_initialized_token().attempt(attempt)? {
        let info = module.get_token_info(slot).attempt(attempt)?;
        let is_it = |wanted: &Option<String>, has: &str| wanted.as_ref().is_none_or(|wanted| wanted == has.trim_end());
        if is_it(&uri.token, info.label()) && is_it(&uri.serial, info.serial_number()) {
            found.push((slot, info.label().trim_end().to_owned(), info.login_required()));
        }
    }
    let (slot, token, wants_pin) = match found.as_slice() {
        [only] => only.clone(),
        [] => {
            return Err(Failure::new(format!("no token of {} is the one that the URI names", path.display()))
                .hint("see `pkcs11-tool --list-slots`; the token's name is its label"));
        }
        several => {
            return Err(Failure::new(format!("{} tokens are what the URI names", several.len()))
                .hint("add token=NAME or serial=NUMBER to the URI"));
        }
    };
    let session = module.open_rw_session(slot).attempt(|| format!("cannot open the token {token}"))?;
    if wants_pin {
        let pin = passphrase::pin(uri.pin_source.as_deref(), &token)?;
        let pin = AuthPin::new(pin.as_str().into());
        session
            .login(UserType::User, Some(&pin))
            .attempt(|| format!("cannot log in to the token {token}"))
            .map_err(|failure| failure.hint("check the PIN: a token locks itself after a few wrong ones"))?;
    }
    Ok((module, session, token))
}

fn named(uri: &Uri) -> Vec<Attribute> {
    let label = uri.object.as_ref().map(|object| Attribute::Label(object.clone().into_bytes()));
    let id = uri.id.as_ref().map(|id| Attribute::Id(id.clone()));
    label.into_iter().chain(id).chain([Attribute::KeyType(KeyType::EC_EDWARDS)]).collect()
}

fn what(uri: &Uri) -> String {
    let id = uri.id.as_ref().map(|id| format!("id {}", hex::encode(id)));
    uri.object.iter().map(|object| format!("{object:?}")).chain(id).collect::<Vec<_>>().join(" with ")
}

/// The public key of an object: the point as it is, or in an ASN.1 octet or bit string.
fn point(session: &Session, object: ObjectHandle) -> Option<PublicKey> {
    let attributes = session.get_attributes(object, &[AttributeType::EcPoint]).ok()?;
    let bytes = attributes.into_iter().find_map(|attribute| match attribute {
        Attribute::EcPoint(bytes) => Some(bytes),
        _ => None,
    })?;
    let raw = match bytes.as_slice() {
        [0x04, 0x20, raw @ ..] | [0x03, 0x21, 0x00, raw @ ..] if raw.len() == PUBLIC_BYTES => raw,
        raw => raw,
    };
    raw.try_into().ok().map(PublicKey::from_bytes)
}
