// What is on one device, slot by slot: what it says it has, beside what is planned for it.

import type { DeviceExplained, DeviceView, Replica, SlotReport } from '../types';

export interface OnDevice {
  deployment: string;
  replica: Replica;
  slot: SlotReport | undefined;
}

/** `explained` is null until the control plane has answered: then the report alone is shown. */
export function onDevice(device: DeviceView, explained: DeviceExplained | null): OnDevice[] {
  const reported = new Map(device.slots.map((slot) => [slot.deployment, slot]));
  const planned = (explained?.replicas ?? []).map(({ deployment, replica }) => ({
    deployment,
    replica,
    slot: reported.get(deployment),
  }));
  const names = new Set(planned.map((one) => one.deployment));
  const others = device.slots
    .filter((slot) => !names.has(slot.deployment))
    .flatMap((slot) => unplanned(device, slot, explained !== null));
  return [...planned, ...others].sort((a, b) => a.deployment.localeCompare(b.deployment, 'en'));
}

function unplanned(device: DeviceView, slot: SlotReport, isKnown: boolean): OnDevice[] {
  const bundle = slot.wanted ?? slot.running;
  if (!bundle) return [];
  const refusal = device.refusals.find((one) => one.bundle.manifest === bundle.manifest);
  const replica: Replica = {
    device: device.id,
    phase: slot.phase,
    running: slot.running?.version ?? null,
    version: bundle.version,
    manifest: bundle.manifest,
    why: isKnown ? 'it is not planned here any more' : '',
    leaving: isKnown,
    reason: slot.waiting ?? refusal?.reason ?? null,
    figures: device.models.find((model) => model.deployment === slot.deployment)?.figures ?? null,
  };
  return [{ deployment: slot.deployment, replica, slot }];
}
