// What a machine is made of and how its hardware fares, in the CLI's words (cli/src/tell/hardware.rs).

import type { DeviceView, Hardware, Health, Strain } from '../types';

const STRAINS: Record<Strain, { word: string; move: string }> = {
  underVoltage: { word: 'under-voltage', move: 'Give it a stronger supply or a shorter, thicker cable.' },
  frequencyCapped: { word: 'frequency capped', move: 'If nobody set that on purpose, look at its heat and its supply.' },
  throttled: { word: 'throttled', move: 'Look at its heat and its supply: it computes more slowly until then.' },
  softTemperatureLimit: { word: 'near its temperature limit', move: 'Give it a heat sink, a fan, or a cooler place.' },
  coolingDown: { word: 'slowed down to cool', move: 'Give it a heat sink, a fan, or a cooler place.' },
};

const MEDIA: Record<NonNullable<NonNullable<Health['storage']>['medium']>, string> = {
  emmc: 'eMMC',
  sdCard: 'SD card',
  nvme: 'NVMe',
  ssd: 'SSD',
  hardDisk: 'hard disk',
  usb: 'USB disk',
  virtual: 'virtual disk',
  flash: 'bare flash',
  memory: 'memory',
};

const RESERVES = { normal: '', warning: 'reserve 80 % used', urgent: 'reserve 90 % used' } as const;

const joined = (parts: readonly (string | null | undefined | false)[], by = ', ') => parts.filter(Boolean).join(by);

function gigahertz(khz: number): string {
  return `${(khz / 1e6).toFixed(2)} GHz`;
}

export function celsius(milli: number): string {
  return `${(milli / 1000).toFixed(1)} °C`;
}

/** `LENOVO ThinkPad T14`. */
export function board({ board }: Partial<Hardware>): string | null {
  if (!board) return null;
  const { model, vendor } = board;
  return vendor && !model.toLowerCase().includes(vendor.toLowerCase()) ? `${vendor} ${model}` : model;
}

/** `4 × Cortex-A76 up to 2.40 GHz`. */
export function cores({ cores }: Partial<Hardware>): string {
  return joined((cores ?? []).map((kind) => `${kind.count} × ${kind.name ?? 'core'}${kind.khzMax ? ` up to ${gigahertz(kind.khzMax)}` : ''}`));
}

type Accelerator = NonNullable<Hardware['accelerators']>[number];

/** `NPU Hailo`, and what is known beside it. */
export function accelerator(it: Accelerator): { name: string; beside: string; closed: boolean } {
  const driver = it.driver === it.name ? null : it.driver;
  return { name: `${it.kind === 'gpu' ? 'GPU' : 'NPU'} ${it.name}`, beside: joined([driver, it.node]), closed: it.mayOpen === false };
}

/** `under-voltage, frequency capped (at 1.50 GHz)`. */
export function strains(all: readonly Strain[], khzAllowed?: number | null): string {
  return joined(all.map((one) => (one === 'frequencyCapped' && khzAllowed ? `${STRAINS[one].word} (at ${gigahertz(khzAllowed)})` : STRAINS[one].word)));
}

/** What slowed it down since it was started and does no more. */
export function strainsBefore(health: Partial<Health>): string {
  const now = health.strains ?? [];
  return strains((health.strainsSinceBoot ?? []).filter((one) => !now.includes(one)));
}

type Source = NonNullable<Health['power']>[number];

/** `BAT0 71 %, discharging`. */
export function power({ name, online, percent, state }: Source): string {
  const gives = online === null || online === undefined ? null : online ? 'gives power' : 'gives no power';
  return joined([name, joined([gives, percent === null || percent === undefined ? null : `${percent} %`, state])], ' ');
}

/** `eMMC mmcblk0, ext4, up to 20 % of its life used`. */
export function storage(it: NonNullable<Health['storage']>): string {
  const worn = it.wearPercent;
  const wear = !worn ? null : worn <= 100 ? `up to ${worn} % of its life used` : 'used beyond the life that it was built for';
  return joined([joined([it.medium && MEDIA[it.medium], it.device], ' '), it.filesystem, wear, it.reserve && RESERVES[it.reserve], it.readOnly && 'read-only']);
}

/** From here on a disk is worth replacing. */
const WORN_PERCENT = 90;

export interface Ailment {
  key: string;
  title: string;
  reason: string;
  move: string;
}

/** What is wrong with a device's hardware. */
export function ailments(device: DeviceView): Ailment[] {
  const health = device.health;
  if (!health) return [];
  const found: Ailment[] = [];
  // A cap alone may be its owner's wish.
  const slowing = (device.host?.strains ?? health.strains ?? []).filter((one) => one !== 'frequencyCapped');
  const [worst] = slowing;
  if (worst) {
    const reason = strains(slowing);
    found.push({ key: `strain ${device.id}`, title: `${device.id} is slowed down`, reason: `${reason[0]?.toUpperCase()}${reason.slice(1)}.`, move: STRAINS[worst].move });
  }
  const disk = health.storage;
  if (disk?.readOnly) {
    found.push({
      key: `read-only ${device.id}`,
      title: `${device.id} cannot write its data`,
      reason: `${storage(disk)}.`,
      move: 'After an error a kernel stops writing: look at its log, check the file system, replace the disk if it fails again.',
    });
  } else if (disk && ((disk.wearPercent ?? 0) >= WORN_PERCENT || disk.reserve === 'urgent')) {
    found.push({ key: `worn ${device.id}`, title: `The disk of ${device.id} is worn out`, reason: `${storage(disk)}.`, move: 'Replace it before it fails; the device is enrolled again or its data copied.' });
  }
  return found;
}
