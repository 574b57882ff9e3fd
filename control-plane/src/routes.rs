//! Which devices the gateway may ask for a deployment: a view in memory of the plan, so that a request
//! needs no database. The planner puts a new one in its place once the plan is durable; a device that
//! is no longer named is drained before it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use muster_control_plane_core::fleet::Slots;
use muster_shared::{DeploymentName, DeviceId, Digest};

/// The routes as they are now.
#[derive(Debug, Default)]
pub struct Routes(RwLock<Arc<Table>>);

/// Every deployment's devices.
pub type Table = BTreeMap<DeploymentName, Route>;

/// One deployment's devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The name at the devices' doors.
    pub served: DeploymentName,
    /// Those that may be asked.
    pub devices: BTreeSet<DeviceId>,
}

impl Routes {
    /// The routes now.
    pub fn now(&self) -> Arc<Table> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts others in their place.
    pub fn set(&self, table: Table) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }

    /// Whether a device may be asked for a deployment.
    pub fn allow(&self, deployment: &DeploymentName, device: &DeviceId) -> bool {
        self.now().get(deployment).is_some_and(|route| route.devices.contains(device))
    }
}

/// The routes that follow from a plan. `running`: the manifest that answers on a device.
pub fn table<'a>(
    deployments: impl Iterator<Item = (&'a DeploymentName, Option<&'a DeploymentName>)>,
    placements: &BTreeMap<DeviceId, Slots>,
    running: impl Fn(&DeviceId, &DeploymentName) -> Option<Digest>,
) -> Table {
    let mut table: Table = deployments
        .map(|(name, served_as)| {
            let served = served_as.unwrap_or(name).clone();
            (name.clone(), Route { served, devices: BTreeSet::new() })
        })
        .collect();
    for (id, slots) in placements {
        for (name, slot) in slots {
            // While a version is swapped in place, nobody answers there.
            let swaps = slot.swap_in_place && running(id, name) != Some(slot.manifest);
            if let Some(route) = table.get_mut(name).filter(|_| !swaps) {
                route.devices.insert(id.clone());
            }
        }
    }
    table
}
