// What is wrong in a fleet, the worst first: what it is, why, and the next move. Everything here is
// read from what the stream tells; nothing is guessed beyond it.

import type { Deployment, DeviceView, FreezeView, Generation, Replica, Status } from '../types';
import { ailments } from './hardware';
import { count, duration } from './numbers';
import { to } from './router.svelte';
import { healthy, names, phase } from './words';

/** `busy` is no fault: something is on its way, and a person may want to know. */
export type Level = 'bad' | 'warn' | 'busy';

export interface Trouble {
  key: string;
  level: Level;
  title: string;
  reason: string;
  move: string;
  /** Where there is more about it. */
  href?: string;
  /** Since when. */
  sinceMs?: number | null;
  /** Whether `POST /plan/approve` is what a person may do about it. */
  approve?: boolean;
}

export interface Known {
  devices: DeviceView[];
  deployments: Deployment[];
  frozen: FreezeView[];
  /** Why nothing changes because the database was put back. */
  restored?: string | null;
}

const ORDER: Record<Level, number> = { bad: 0, warn: 1, busy: 2 };

export function troubles(known: Known): Trouble[] {
  const all = [
    ...(known.restored ? [putBack(known.restored)] : []),
    ...known.frozen.map(frozen),
    ...known.devices.flatMap((device) => ofDevice(device, known)),
    ...known.deployments.flatMap((deployment) => ofDeployment(deployment, known)),
  ];
  return all.sort((a, b) => ORDER[a.level] - ORDER[b.level]);
}

function putBack(reason: string): Trouble {
  return {
    key: 'restored',
    level: 'bad',
    title: 'The database was put back',
    reason: `${reason[0]?.toUpperCase()}${reason.slice(1)}.`,
    move: 'Push and apply what it has forgotten, look at devices that are held, then approve that changes go on.',
    approve: true,
  };
}

function frozen(freeze: FreezeView): Trouble {
  const where = freeze.group === 'fleet' ? 'the fleet' : freeze.group;
  return {
    key: `frozen ${freeze.group}`,
    level: 'bad',
    title: `${freeze.devices.length} of ${count(freeze.of, 'device')} of ${where} fell silent together`,
    reason: `${names(freeze.devices)}: that looks like a cut cable or a power cut, so nothing of theirs moves.`,
    move: 'It goes on by itself when they return. If you know that they will not, approve that their replicas move.',
    sinceMs: freeze.sinceMs,
    approve: true,
  };
}

function ofDevice(device: DeviceView, known: Known): Trouble[] {
  const found: Trouble[] = [];
  const href = to.device(device.id);
  const isFrozen = known.frozen.some((freeze) => freeze.devices.includes(device.id));
  if (!device.connected && !isFrozen) {
    found.push({
      key: `silent ${device.id}`,
      level: 'bad',
      title: `${device.id} is silent`,
      reason: silence(device, known),
      move: 'Look at its power and its network. It takes up its work by itself when it returns.',
      href,
      sinceMs: device.silentSinceMs ?? device.lastSeenMs ?? null,
    });
  }
  if (device.applied && device.desired && isAfter(device.applied, device.desired)) {
    found.push({
      key: `held back ${device.id}`,
      level: 'bad',
      title: `${device.id} is told nothing: it holds more than this control plane remembers`,
      reason: 'The database looks older than what the device runs, as after a restored backup.',
      move: 'Push and apply again what is missing, or approve that the device goes back to what is known here.',
      href,
      approve: true,
    });
  }
  const refused = device.desiredRefused;
  if (refused && !(refused.generation && device.applied && !isAfter(refused.generation, device.applied))) {
    found.push({
      key: `desired ${device.id}`,
      level: 'bad',
      title: `${device.id} did not take what it was told`,
      reason: refused.reason,
      move: 'It goes on with what it has. Its page shows what keeps it.',
      href,
      sinceMs: refused.atMs,
    });
  }
  // A refused version that nobody wants there any more is history, and a stopped rollout says it itself.
  const wanted = new Set(device.slots.map((slot) => slot.wanted?.manifest));
  for (const refusal of device.refusals) {
    const { model, version, manifest } = refusal.bundle;
    const isTold = known.deployments.some((deployment) => tellsOf(deployment, device.id, manifest));
    if (!wanted.has(manifest) || isTold) continue;
    found.push({
      key: `refused ${device.id} ${manifest}`,
      level: 'warn',
      title: `${device.id} refused ${model} version ${version}`,
      reason: refusal.reason,
      move: 'Push a corrected version. Where the device was at fault, resume the rollout: it tries once more.',
      href,
      sinceMs: refusal.atMs,
    });
  }
  if (device.connected) found.push(...ailments(device).map((ailment): Trouble => ({ ...ailment, level: 'warn', href })));
  return found;
}

/** What becomes of the replicas of a silent device. */
function silence(device: DeviceView, { deployments }: Known): string {
  const here = deployments.filter((deployment) => placedOn(deployment).some((replica) => replica.device === device.id));
  if (here.length === 0) return 'Nothing is placed on it any more, so nobody misses it.';
  const told = here.map((deployment) => {
    const { metadata, spec } = deployment;
    if (spec.onDeviceLoss === 'keep') return `${metadata.name} waits for it`;
    const leaves = placedOn(deployment).some((replica) => replica.device === device.id && replica.leaving);
    return leaves
      ? `${metadata.name} is on its way to another device, or finds none`
      : `${metadata.name} moves elsewhere after ${spec.deviceLossGrace ?? '60s'} of silence`;
  });
  return `${told.join('; ')}.`;
}

function tellsOf(deployment: Deployment, device: string, manifest: string): boolean {
  const rollout = deployment.status?.rollout;
  const failed = rollout?.stage === 'stopped' && rollout.failed.some((failure) => failure.device === device);
  return failed || placedOn(deployment).some((replica) => replica.device === device && replica.manifest === manifest);
}

function ofDeployment(deployment: Deployment, known: Known): Trouble[] {
  const { status } = deployment;
  if (!status) return [];
  const [rollout, missing] = [ofRollout(deployment, status), short(deployment, status, known)];
  // A first version that comes up is one thing that is under way, not two.
  const isOneThing = rollout?.level === 'busy' && missing?.level === 'busy';
  const found = [rollout, isOneThing ? null : missing].filter((trouble) => trouble !== null);
  if (found.some((trouble) => trouble.level !== 'busy')) return found;
  return [...found, ...heldUp(deployment, known)];
}

/** Replicas that do not go on, where nothing else about their deployment says so. */
function heldUp(deployment: Deployment, known: Known): Trouble[] {
  return placedOn(deployment)
    .filter((replica) => replica.reason && !replica.leaving && isConnected(replica, known))
    .map((replica) => ({
      key: `replica ${deployment.metadata.name} ${replica.device}`,
      level: 'warn',
      title: `${deployment.metadata.name} on ${replica.device} does not go on`,
      reason: replica.reason ?? '',
      move: 'It is tried again by itself once the reason is gone.',
      href: to.deployment(deployment.metadata.name),
    }));
}

function ofRollout({ metadata }: Deployment, { rollout }: Status): Trouble | null {
  if (!rollout) return null;
  const common = {
    key: `rollout ${metadata.name} ${rollout.number} ${rollout.stage}`,
    href: to.deployment(metadata.name),
    sinceMs: rollout.changedMs,
  };
  const wave = `in wave ${rollout.wave} of ${rollout.waves}`;
  if (rollout.stage === 'stopped') {
    const failed = rollout.failed.filter((failure) => !rollout.message.includes(failure.reason));
    const each = failed.map((failure) => `${failure.device}: ${failure.reason}`);
    return {
      ...common,
      level: 'bad',
      title: `${metadata.name}: version ${rollout.version} failed and was stopped ${wave}`,
      reason: [rollout.message, ...each].join('; '),
      move: 'Push a corrected version; it gets a rollout of its own. Resume tries this one once more.',
    };
  }
  if (rollout.stage === 'paused') {
    return {
      ...common,
      level: 'warn',
      title: `${metadata.name}: the rollout of version ${rollout.version} is paused ${wave}`,
      reason: `${healthy(rollout)}; ${rollout.message}`,
      move: 'It waits for you: resume it or undo it.',
    };
  }
  if (rollout.stage === 'running') {
    return {
      ...common,
      level: 'busy',
      title: `${metadata.name}: version ${rollout.version} is coming, wave ${rollout.wave} of ${rollout.waves}`,
      reason: `${healthy(rollout)}; ${rollout.message}`,
      move: 'Nothing to do: the next wave begins when this one does well.',
      sinceMs: rollout.beganMs,
    };
  }
  return null;
}

/** A deployment with fewer replicas than wanted. */
function short(deployment: Deployment, status: Status, known: Known): Trouble | null {
  if (status.ready >= status.wanted) return null;
  const { name } = deployment.metadata;
  const placed = status.replicas.filter((replica) => !replica.leaving);
  // While a version comes, devices still answer with the one before: nothing is missing.
  const answering = status.replicas.filter((replica) => replica.running && isConnected(replica, known)).length;
  if (status.rollout?.stage === 'running' && answering >= status.wanted) return null;
  const condition = (kind: string) => status.conditions.find((one) => one.type === kind && !one.status);
  const [unplaced, unavailable] = [condition('Placed'), condition('Available')];
  const goesOn = (replica: Replica) => isConnected(replica, known) && (!replica.reason || replica.phase === 'serving');
  const isComing = !unplaced && placed.every(goesOn);
  const said = unplaced ?? unavailable;
  const away = placed.filter((replica) => !isConnected(replica, known)).map((replica) => replica.device);
  const coming = placed
    .filter((replica) => replica.phase !== 'serving')
    .map((replica) => `${replica.device}: ${phase(replica.phase).word}`);
  return {
    key: `short ${name}`,
    level: isComing ? 'busy' : answering === 0 ? 'bad' : 'warn',
    title: `${name} has ${status.ready} of ${count(status.wanted, 'replica')} ready`,
    reason: (isComing && coming.join('; ')) || said?.message || 'It has yet to be said why.',
    move: isComing ? 'Nothing to do: it is on its way.' : next(away, known),
    href: to.deployment(name),
    sinceMs: said?.sinceMs || null,
  };
}

/** What brings a deployment's missing replicas back. */
function next(away: string[], { frozen }: Known): string {
  if (away.length === 0) return 'See where it runs and what it waits for.';
  const return_ = `${names(away)} ${away.length === 1 ? 'returns' : 'return'}`;
  const isFrozen = away.every((device) => frozen.some((freeze) => freeze.devices.includes(device)));
  return isFrozen ? `It goes on when ${return_}.` : `It goes on when ${return_}, or once what is missing has moved.`;
}

function placedOn(deployment: Deployment): Replica[] {
  return deployment.status?.replicas ?? [];
}

function isConnected(replica: Replica, { devices }: Known): boolean {
  return devices.some((device) => device.id === replica.device && device.connected);
}

function isAfter(a: Generation, b: Generation): boolean {
  return a.epoch !== b.epoch ? a.epoch > b.epoch : a.number > b.number;
}

/** `for 12 s`, where it is known since when. */
export function lasting(trouble: Trouble, nowMs: number): string {
  return trouble.sinceMs ? `for ${duration(nowMs - trouble.sinceMs)}` : '';
}
