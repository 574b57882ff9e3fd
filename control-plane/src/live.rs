//! What is known of each device right now: its key, whether it is connected, its last words. A view
//! in memory, so that the broker, the gateway and the chunk server need not ask the database.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use muster_shared::api::members::Standing;
use muster_shared::checks::{self, Check};
use muster_shared::id::{InstanceId, Nonce, UnixMs};
use muster_shared::message::Hello;
use muster_shared::reported::Reported;
use muster_shared::signing::device::DevicePublicKey;
use muster_shared::topic::{Leaf, Topic, Way};
use muster_shared::{DeviceId, Digest, ModelName, Version};

use crate::broker::Access;
use crate::db::devices::DeviceRecord;
use crate::db::members::StandingRecord;
use crate::now_ms;

/// Devices that nobody knows and that are remembered; further ones wait until there is room.
const STRANGERS_MAX: usize = 4096;

/// One device, as it is now.
#[derive(Debug, Clone)]
pub struct LiveDevice {
    /// Its key.
    pub key: Arc<DevicePublicKey>,
    /// The key's fingerprint.
    pub fingerprint: Digest,
    /// Whether it is one of the fleet.
    pub standing: Standing,
    /// Why it is not simply a member.
    pub standing_why: String,
    /// Whether the broker holds a session of it.
    pub connected: bool,
    /// Since when, if it does.
    pub connected_ms: Option<UnixMs>,
    /// When it was last heard.
    pub last_seen_ms: Option<UnixMs>,
    /// The last `hello` of this session.
    pub hello: Option<Hello>,
    /// Whether that `hello` has yet to be answered.
    pub hello_is_due: bool,
    /// The `hello` that was told the time.
    pub time_told: Option<Nonce>,
    /// The newest root that this session was sent.
    pub root_sent: u64,
    /// The version floors that it was sent since its last `hello`.
    pub floors_sent: BTreeMap<ModelName, Version>,
    /// Its last signed report.
    pub reported: Option<Arc<Reported>>,
    /// Whether that report came in this session.
    pub has_reported: bool,
    /// Why it is told nothing now, if it is not.
    pub held_back: Option<String>,
    /// An operator approves that it goes back to what we remember.
    pub may_go_back: bool,
}

/// All devices, as they are now.
pub struct Live {
    instance: InstanceId,
    devices: RwLock<BTreeMap<DeviceId, LiveDevice>>,
    strangers: Mutex<BTreeMap<DeviceId, Stranger>>,
}

/// A device with a certificate of ours that the database does not know: it was enrolled after the backup
/// that the database was put back from.
#[derive(Debug, Clone)]
pub struct Stranger {
    /// Its key.
    pub key: DevicePublicKey,
    /// When it last came.
    pub last_seen_ms: UnixMs,
}

impl Live {
    /// The view of a plane that just started: nobody is connected yet.
    pub fn new(
        instance: InstanceId,
        devices: Vec<DeviceRecord>,
        mut standings: BTreeMap<DeviceId, StandingRecord>,
    ) -> Self {
        let live = |record: DeviceRecord| {
            let standing = standings.remove(&record.id).unwrap_or_default();
            let device = LiveDevice {
                standing: standing.standing,
                standing_why: standing.why,
                last_seen_ms: record.last_seen_ms,
                reported: record.reported.map(Arc::new),
                ..LiveDevice::of_key(&record.key)
            };
            (record.id, device)
        };
        let devices = RwLock::new(devices.into_iter().map(live).collect());
        Self { instance, devices, strangers: Mutex::default() }
    }

    /// Adds a device, so that the broker admits it.
    pub fn enrolled(&self, id: &DeviceId, key: &DevicePublicKey) {
        let mut devices = self.devices.write().unwrap_or_else(PoisonError::into_inner);
        devices.entry(id.clone()).or_insert_with(|| LiveDevice::of_key(key));
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Forgets a device.
    pub fn forget(&self, id: &DeviceId) {
        self.devices.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Notes a device's standing. Nothing that was under way takes a revocation back.
    pub fn stands(&self, id: &DeviceId, standing: Standing, why: &str) {
        self.change(id, |live| {
            if live.standing == Standing::Revoked {
                return;
            }
            live.standing = standing;
            why.clone_into(&mut live.standing_why);
        });
    }

    /// Why it stands as it does, as far as it still does.
    pub fn explains(&self, id: &DeviceId, standing: Standing, why: &str) {
        self.change(id, |live| {
            if live.standing == standing {
                why.clone_into(&mut live.standing_why);
            }
        });
    }

    /// Devices with a certificate of ours that nobody knows.
    pub fn strangers(&self) -> BTreeMap<DeviceId, Stranger> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether what the device sends is heard, by whatever broker it comes.
    pub fn is_heard(&self, id: &DeviceId) -> bool {
        self.read(|devices| devices.get(id).is_some_and(LiveDevice::is_let_in))
    }

    /// One device.
    pub fn get(&self, id: &DeviceId) -> Option<LiveDevice> {
        self.read(|devices| devices.get(id).cloned())
    }

    /// Whether a device has a session.
    pub fn is_connected(&self, id: &DeviceId) -> bool {
        self.read(|devices| devices.get(id).is_some_and(|device| device.connected))
    }

    /// Looks at all devices.
    pub fn read<T>(&self, look: impl FnOnce(&BTreeMap<DeviceId, LiveDevice>) -> T) -> T {
        look(&self.devices.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes what is known of one device; nothing if it is not enrolled.
    pub fn change<T>(&self, id: &DeviceId, change: impl FnOnce(&mut LiveDevice) -> T) -> Option<T> {
        self.devices.write().unwrap_or_else(PoisonError::into_inner).get_mut(id).map(change)
    }
}

impl LiveDevice {
    /// A device that was just enrolled.
    pub fn of_key(key: &DevicePublicKey) -> Self {
        Self {
            key: Arc::new(key.clone()),
            fingerprint: key.fingerprint(),
            standing: Standing::Member,
            standing_why: String::new(),
            connected: false,
            connected_ms: None,
            last_seen_ms: None,
            hello: None,
            hello_is_due: false,
            time_told: None,
            root_sent: 0,
            floors_sent: BTreeMap::new(),
            reported: None,
            has_reported: false,
            held_back: None,
            may_go_back: false,
        }
    }

    /// Whether it may come, and is heard.
    pub fn is_let_in(&self) -> bool {
        !checks::on(Check::EnrolledKey)
            || matches!(self.standing, Standing::Member | Standing::Cloned | Standing::Leaving)
    }

    /// It went away; its session may go on for a moment.
    pub fn gone(&mut self) {
        self.connected = false;
        self.connected_ms = None;
    }

    /// A session begins or ends: what the last one said is over.
    pub fn session(&mut self, connected: bool, now_ms: UnixMs) {
        self.connected = connected;
        self.connected_ms = connected.then_some(now_ms);
        self.last_seen_ms = Some(now_ms);
        self.has_reported = false;
        self.held_back = None;
        self.may_go_back = false;
        self.hello = None;
        self.hello_is_due = false;
        self.time_told = None;
        self.root_sent = 0;
    }
}

/// The whole access rule: the enrolled key, one's own topics, each in its way.
impl Access for Live {
    fn admit(&self, name: &str, fingerprint: [u8; 32]) -> bool {
        let Ok(id) = name.parse::<DeviceId>() else { return false };
        let is_key = |device: &LiveDevice| !checks::on(Check::EnrolledKey) || device.fingerprint.0 == fingerprint;
        self.read(|devices| devices.get(&id).is_some_and(|device| is_key(device) && device.is_let_in()))
    }

    /// Remembered, so that an operator can take back a device that a restored database has forgotten.
    fn turned_away(&self, name: &str, spki: &[u8]) {
        let (Ok(id), Ok(key)) = (name.parse::<DeviceId>(), DevicePublicKey::from_spki(spki)) else { return };
        let fingerprint = key.fingerprint();
        // A key under another name than its own, or a name with another key, is no lost device.
        let known = |(known, device): (&DeviceId, &LiveDevice)| *known == id || device.fingerprint == fingerprint;
        if self.read(|devices| devices.iter().any(known)) {
            return;
        }
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        if strangers.len() < STRANGERS_MAX || strangers.contains_key(&id) {
            strangers.insert(id, Stranger { key, last_seen_ms: now_ms() });
        }
    }

    fn may_publish(&self, device: &str, topic: &str) -> bool {
        let Ok(topic) = topic.parse::<Topic>() else { return false };
        if !checks::on(Check::Topics) {
            return true;
        }
        let ours = match &topic.leaf {
            Leaf::Reply(instance) => *instance == self.instance,
            _ => true,
        };
        topic.device.as_str() == device && topic.leaf.way() == Way::Up && ours
    }

    fn may_subscribe(&self, device: &str, filter: &str) -> bool {
        let topic = filter.parse::<Topic>();
        if !checks::on(Check::Topics) {
            return topic.is_ok();
        }
        topic.is_ok_and(|topic| topic.device.as_str() == device && topic.leaf.way() == Way::Down)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::ca::tests::device_key;

    #[test]
    fn a_device_has_its_own_topics_and_its_own_key() {
        let live = Live::new("cp-1".parse().expect("an id"), vec![], BTreeMap::new());
        let id: DeviceId = "edge-1".parse().expect("an id");
        let (_, key) = device_key();
        let (_, other) = device_key();
        assert!(!live.admit("edge-1", key.fingerprint().0));
        live.enrolled(&id, &key);
        assert!(live.admit("edge-1", key.fingerprint().0));
        assert!(!live.admit("edge-1", other.fingerprint().0));
        assert!(!live.admit("Edge 1", key.fingerprint().0));
        for (standing, admitted) in [
            (Standing::Waiting, false),
            (Standing::Held, false),
            (Standing::Cloned, true),
            (Standing::Leaving, true),
            (Standing::Member, true),
            (Standing::Revoked, false),
            // What was under way when it was revoked takes nothing back.
            (Standing::Member, false),
        ] {
            live.stands(&id, standing, "why");
            assert_eq!(live.admit("edge-1", key.fingerprint().0), admitted, "{standing:?}");
            assert_eq!(live.is_heard(&id), admitted, "{standing:?}");
        }
        for (topic, publish, subscribe) in [
            ("muster/v1/edge-1/hello", true, false),
            ("muster/v1/edge-1/chunk/get", true, false),
            ("muster/v1/edge-1/reply/cp-1", true, false),
            ("muster/v1/edge-1/reply/cp-2", false, false),
            ("muster/v1/edge-1/desired", false, true),
            ("muster/v1/edge-2/hello", false, false),
            ("muster/v1/edge-2/desired", false, false),
            ("muster/v1/+/desired", false, false),
            ("#", false, false),
        ] {
            assert_eq!(live.may_publish("edge-1", topic), publish, "{topic}");
            assert_eq!(live.may_subscribe("edge-1", topic), subscribe, "{topic}");
        }
    }
}
