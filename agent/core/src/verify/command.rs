//! Whether to carry out a command: signature before parsing; then fleet, device and key, the call that
//! brought it, and one of this device's last two hellos. The driver carries each out once.

use muster_shared::checks::{self, Check};
use muster_shared::command::{Command, Order};
use muster_shared::signing::{Envelope, payload_type};
use muster_shared::{Nonce, wire};

use super::{Holding, NotAccepted, addressed};

/// Proof that a director asks this of this device, now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedCommand(Command);

impl VerifiedCommand {
    /// Checks a command that came in the call `id`.
    pub fn verify(envelope: &Envelope, holding: Holding<'_>, id: Nonce) -> Result<Self, NotAccepted> {
        let payload = envelope.verify(payload_type::COMMAND, &holding.root.directors(), 1)?;
        let command: Command = wire::decode(payload)?;
        addressed(holding, &command.fleet, &command.device, command.fingerprint)?;
        // A call's id is remembered, so that what it brings is done once; under another id it would be done again.
        if checks::on(Check::CallOnce) && command.id != id {
            return Err(NotAccepted::OtherCall);
        }
        let said = [holding.nonce, holding.earlier_nonce];
        if checks::on(Check::Nonce) && !said.contains(&Some(command.nonce)) {
            return Err(NotAccepted::NotFresh);
        }
        Ok(Self(command))
    }

    /// What is asked.
    pub fn order(&self) -> &Order {
        &self.0.order
    }
}

#[cfg(test)]
mod tests {
    use muster_shared::Digest;

    use super::*;
    use crate::testing::{self, DIRECTOR, PUBLISHER, key};
    use crate::verify::Identity;

    #[test]
    fn only_a_director_of_this_fleet_asks_this_device_in_this_call_after_its_hello() {
        let identity = Identity { device: "edge-1".parse().unwrap(), fingerprint: Digest::of("key") };
        let root = testing::trusted(&testing::root());
        let (nonce, earlier_nonce) = (Some(Nonce([7; 16])), Some(Nonce([6; 16])));
        let holding = Holding { identity: &identity, root: &root, held: None, watermark: None, nonce, earlier_nonce };
        let good = Command {
            fleet: "home".parse().unwrap(),
            device: identity.device.clone(),
            fingerprint: identity.fingerprint,
            id: Nonce([1; 16]),
            nonce: Nonce([7; 16]),
            issued_ms: 0,
            order: Order::Diagnose,
        };
        let verify = |command: &Command, seed: u8, id: u8| {
            let payload = wire::encode(command).unwrap();
            let envelope = Envelope::sign(payload_type::COMMAND, payload, &[&key(seed)]);
            VerifiedCommand::verify(&envelope, holding, Nonce([id; 16])).map(|command| command.order().clone())
        };
        assert_eq!(verify(&good, DIRECTOR, 1), Ok(Order::Diagnose));
        assert_eq!(verify(&Command { nonce: Nonce([6; 16]), ..good.clone() }, DIRECTOR, 1), Ok(Order::Diagnose));
        assert!(matches!(verify(&good, PUBLISHER, 1), Err(NotAccepted::Signature(_))));
        assert_eq!(verify(&good, DIRECTOR, 2), Err(NotAccepted::OtherCall));
        let late = Command { nonce: Nonce([5; 16]), ..good.clone() };
        assert_eq!(verify(&late, DIRECTOR, 1), Err(NotAccepted::NotFresh));
        let away = Command { fleet: "away".parse().unwrap(), ..good.clone() };
        assert!(matches!(verify(&away, DIRECTOR, 1), Err(NotAccepted::OtherFleet { .. })));
        let clone = Command { fingerprint: Digest::of("another key"), ..good.clone() };
        assert!(matches!(verify(&clone, DIRECTOR, 1), Err(NotAccepted::OtherDevice { .. })));
        let other = Command { device: "edge-2".parse().unwrap(), ..good };
        assert!(matches!(verify(&other, DIRECTOR, 1), Err(NotAccepted::OtherDevice { .. })));
    }

    #[test]
    fn a_desired_state_does_not_pass_for_a_command() {
        let identity = Identity { device: "edge-1".parse().unwrap(), fingerprint: Digest::of("key") };
        let root = testing::trusted(&testing::root());
        let holding =
            Holding { identity: &identity, root: &root, held: None, watermark: None, nonce: None, earlier_nonce: None };
        let envelope = Envelope::sign(payload_type::DESIRED, vec![1], &[&key(DIRECTOR)]);
        let refused = VerifiedCommand::verify(&envelope, holding, Nonce([1; 16]));
        assert!(matches!(refused, Err(NotAccepted::Signature(_))));
    }
}
