//! What a new root changes, in words: this is what people agree to before they sign.

use muster_shared::root::{Publisher, Role, Root};
use muster_shared::signing::Envelope;
use muster_shared::signing::key::PublicKey;
use muster_shared::signing::payload_type;

use crate::keys::fingerprint;
use crate::output::date;

/// Each change from one root to the next.
pub fn changes(old: &Root, new: &Root) -> Vec<String> {
    let mut lines = Vec::new();
    role(&mut lines, "root", &old.root, &new.root);
    for publisher in &new.publishers {
        match old.publishers.iter().find(|held| held.key == publisher.key) {
            None => lines.push(format!("new publisher {} for {}", fingerprint::of(&publisher.key), models(publisher))),
            Some(held) if held.models != publisher.models => lines.push(format!(
                "publisher {} is for {} instead of {}",
                fingerprint::of(&publisher.key),
                models(publisher),
                models(held)
            )),
            Some(_) => {}
        }
    }
    let publishers = |root: &Root| root.publishers.iter().map(|publisher| publisher.key).collect::<Vec<_>>();
    gone(&mut lines, "publisher", &publishers(old), &publishers(new));
    come(&mut lines, "director", &old.directors, &new.directors);
    gone(&mut lines, "director", &old.directors, &new.directors);
    role(&mut lines, "release", &old.release, &new.release);
    for key in new.compromised.iter().filter(|key| !old.compromised.contains(key)) {
        let text = fingerprint::groups(key.0);
        lines.push(format!("the key {text} counts as stolen: what only it signed stops and never starts again"));
    }
    for key in old.compromised.iter().filter(|key| !new.compromised.contains(key)) {
        lines.push(format!("the key {} counts as stolen no more", fingerprint::groups(key.0)));
    }
    if old.epoch != new.epoch {
        lines.push(format!("epoch {} instead of {}: every device is told anew what to do", new.epoch, old.epoch));
    }
    if old.expires_ms != new.expires_ms {
        lines.push(format!("it holds until {} instead of {}", date(new.expires_ms), date(old.expires_ms)));
    }
    lines
}

fn role(lines: &mut Vec<String>, name: &str, old: &Role, new: &Role) {
    come(lines, name, &old.keys, &new.keys);
    gone(lines, name, &old.keys, &new.keys);
    if (old.threshold, old.keys.len()) != (new.threshold, new.keys.len()) {
        let (count, all) = (new.threshold, new.keys.len());
        lines.push(format!(
            "{count} of {all} {name} keys must sign instead of {} of {}",
            old.threshold,
            old.keys.len()
        ));
    }
}

fn come(lines: &mut Vec<String>, name: &str, old: &[PublicKey], new: &[PublicKey]) {
    lines.extend(
        new.iter().filter(|key| !old.contains(key)).map(|key| format!("new {name} key {}", fingerprint::of(key))),
    );
}

fn gone(lines: &mut Vec<String>, name: &str, old: &[PublicKey], new: &[PublicKey]) {
    let gone = old.iter().filter(|key| !new.contains(key));
    lines.extend(gone.map(|key| format!("the {name} key {} signs no more", fingerprint::of(key))));
}

fn models(publisher: &Publisher) -> String {
    match &publisher.models {
        None => "every model".to_owned(),
        Some(models) => models.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// Which signatures a root still needs: those of the root before it, and its own. Empty: none.
pub fn missing(envelope: &Envelope, old: &Root, new: &Root) -> Vec<String> {
    let mut lines = Vec::new();
    let roles = [(format!("root {}", old.version), &old.root), (format!("root {} itself", new.version), &new.root)];
    for (whose, role) in roles {
        let signed = envelope.verified_by(payload_type::ROOT, &role.keys, 1).map(|(_, by)| by).unwrap_or_default();
        let needed = (role.threshold as usize).saturating_sub(signed.len());
        if needed > 0 {
            let open = role.keys.iter().filter(|key| !signed.contains(&key.id()));
            let open: Vec<String> = open.map(fingerprint::of).collect();
            lines.push(format!("{needed} more of the keys of {whose}: {}", open.join(" or ")));
        }
    }
    lines
}
