// Words about a fleet. They are the CLI's (cli/src/tell/): what a person reads here, `muster` says too.

import type { DeviceView, Happening, Phase, Replica, RolloutStage, RolloutView, Schedule } from '../types';
import { count } from './numbers';

export type Tone = 'good' | 'busy' | 'warn' | 'bad' | 'quiet';

const PHASES: Record<Phase, { word: string; tone: Tone }> = {
  empty: { word: 'empty', tone: 'quiet' },
  fetching: { word: 'fetching', tone: 'busy' },
  checking: { word: 'checking', tone: 'busy' },
  probation: { word: 'in probation', tone: 'busy' },
  serving: { word: 'serving', tone: 'good' },
  refused: { word: 'refused', tone: 'bad' },
};

export function phase(phase: Phase | null | undefined): { word: string; tone: Tone } {
  return phase ? PHASES[phase] : { word: 'not reported', tone: 'quiet' };
}

/** The version that answers, and the one that is to come. */
export function version(replica: Replica): string {
  if (replica.running === replica.version) return `${replica.version}`;
  return `${replica.running ?? '–'} → ${replica.version}`;
}

/** Why a replica is where it is, and why it does not go on. */
export function why(replica: Replica): string {
  return [replica.why, replica.reason].filter(Boolean).join('; ') || '–';
}

export const SCHEDULES: Record<Schedule, string> = {
  open: 'open: replicas may be placed on it',
  cordoned: 'cordoned: nothing new comes to it, and what is there stays',
  draining: 'draining: nothing new comes to it, and what is there moves elsewhere',
};

export function presenceTone(device: DeviceView): Tone {
  if (!device.connected) return 'bad';
  return (device.schedule ?? 'open') === 'open' ? 'good' : 'warn';
}

/** Whether it is one of the fleet, in a word; nothing where it simply is. */
export function standing(device: DeviceView): { word: string; tone: Tone } | null {
  if ((device.standing ?? 'member') === 'member') return null;
  if (device.standing === 'revoked' && device.departure?.confirmedMs) return { word: 'left, empty', tone: 'quiet' };
  return { word: device.standing ?? '', tone: 'warn' };
}

const STAGES: Record<RolloutStage, { word: string; tone: Tone }> = {
  running: { word: 'rolling out', tone: 'busy' },
  paused: { word: 'paused', tone: 'warn' },
  stopped: { word: 'stopped', tone: 'bad' },
  undone: { word: 'undone', tone: 'quiet' },
  done: { word: 'done', tone: 'good' },
};

export function stage(rollout: RolloutView): { word: string; tone: Tone } {
  return STAGES[rollout.stage];
}

/** `version 2 (from 1)`. */
export function change(rollout: RolloutView): string {
  return `version ${rollout.version}${rollout.previous ? ` (from ${rollout.previous})` : ''}`;
}

/** `1 of 2 devices healthy (8 in all)`. */
export function healthy(rollout: RolloutView): string {
  const of = `${rollout.healthy} of ${count(rollout.granted, 'device')} healthy`;
  return rollout.granted === rollout.devices ? of : `${of} (${rollout.devices} in all)`;
}

export const HAPPENINGS: Record<Happening, { word: string; tone: Tone }> = {
  desiredRefused: { word: 'Desired state refused', tone: 'bad' },
  bundleRefused: { word: 'Bundle refused', tone: 'bad' },
  chunkDiscarded: { word: 'Chunk discarded', tone: 'warn' },
  serving: { word: 'Serving', tone: 'good' },
  rolledBack: { word: 'Rolled back', tone: 'warn' },
  workerCrashed: { word: 'Worker crashed', tone: 'bad' },
  started: { word: 'Agent started', tone: 'quiet' },
  deviceLost: { word: 'Device lost', tone: 'bad' },
  deviceReturned: { word: 'Device returned', tone: 'good' },
  replicaMoved: { word: 'Replica moved', tone: 'busy' },
  movesFrozen: { word: 'Moves frozen', tone: 'bad' },
  movesResumed: { word: 'Moves resumed', tone: 'good' },
  rolloutStarted: { word: 'Rollout started', tone: 'busy' },
  rolloutWave: { word: 'Next wave', tone: 'busy' },
  rolloutPaused: { word: 'Rollout paused', tone: 'warn' },
  rolloutStopped: { word: 'Rollout stopped', tone: 'bad' },
  rolloutUndone: { word: 'Rollout undone', tone: 'warn' },
  rolloutDone: { word: 'Rollout done', tone: 'good' },
  trustRefused: { word: 'Not believed', tone: 'bad' },
  trustChanged: { word: 'Trust changed', tone: 'quiet' },
  distrusted: { word: 'Stopped as not trusted', tone: 'bad' },
  clock: { word: 'Clock', tone: 'warn' },
  throttling: { word: 'Speed changed', tone: 'warn' },
  enrolmentRefused: { word: 'Not let in', tone: 'warn' },
  deviceEnrolled: { word: 'Device enrolled', tone: 'good' },
  deviceHeld: { word: 'Device held', tone: 'warn' },
  deviceLeaving: { word: 'Device leaves', tone: 'warn' },
  deviceRevoked: { word: 'Device revoked', tone: 'warn' },
  databaseRestored: { word: 'Database restored', tone: 'bad' },
};

const NAMES_LISTED_MAX = 5;

/** `edge-1, edge-2 and 7 more`. */
export function names(all: readonly string[]): string {
  const listed = all.slice(0, NAMES_LISTED_MAX).join(', ');
  const more = all.length - NAMES_LISTED_MAX;
  return more > 0 ? `${listed} and ${more} more` : listed;
}
