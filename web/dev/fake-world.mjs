// The made-up fleet behind fake-plane.mjs: three devices, two deployments, and what befalls them.

const MIB = 1 << 20;
const GIB = 1 << 30;
const digest = (text) => [...text].reduce((all, letter) => all + letter.charCodeAt(0).toString(16), '').padEnd(64, '0').slice(0, 64);
const TICK_MS = 1000;

export class World {
  constructor(scene) {
    this.scene = scene;
    this.began = Date.now();
    this.listeners = new Set();
    this.events = [];
    this.frozen = [];
    this.devices = scene === 'empty' ? [] : [this.device('edge-1', 'north', 0.34), this.device('edge-2', 'north', 0.22), this.device('edge-3', 'south', 0.48)];
    this.deployments =
      scene === 'empty' ? [] : [this.deployment('digits', 3, 1, 'the fewest replicas are at its site'), this.deployment('linear_regression', 2, 4, 'most stays free there')];
    if (scene !== 'empty') this.past();
    if (scene === 'frozen') this.freeze();
    if (scene === 'bad-version') this.stopped();
    if (scene === 'busy') this.busy();
    if (scene === 'strained') this.strained();
    for (const device of this.devices) this.slots(device);
    this.timer = setInterval(() => this.tick(), TICK_MS);
    this.timer.unref();
  }

  device(id, site, load) {
    return {
      id, connected: true, silentSinceMs: null, schedule: 'open', lastSeenMs: Date.now(), enrolledMs: this.began - 86_400_000 * 12,
      fingerprint: digest(id), labels: { site, line: 'packing' }, desired: { epoch: 1, number: 41 }, applied: { epoch: 1, number: 41 },
      facts: {
        agent: '0.1.0', arch: 'aarch64', os: 'Debian GNU/Linux 12', cpuModel: 'Cortex-A76', cpuMilli: 4000, memoryBytes: 3.5 * GIB,
        diskFreeBytes: 18 * GIB, engines: ['tract'], isolation: ['landlock', 'seccomp', 'cgroup'], labels: {},
        hardware: {
          board: { model: 'Raspberry Pi 5 Model B Rev 1.0', vendor: null, compatible: ['raspberrypi,5-model-b', 'brcm,bcm2712'] }, soc: 'brcm,bcm2712',
          cores: [{ count: 4, name: 'Cortex-A76', capacity: 1024, khzMax: 2_400_000 }], cpuFeatures: ['neon', 'fp16', 'dotprod'],
          memoryBytes: 4 * GIB, swapBytes: 0, kernel: '6.12.47+rpt-rpi-2712', libc: 'glibc',
          accelerators: [
            { kind: 'gpu', name: 'brcm,2712-v3d', driver: 'v3d', node: '/dev/dri/renderD128', mayOpen: true },
            { kind: 'npu', name: 'Hailo', driver: 'hailo', node: '/dev/hailo0', mayOpen: false },
          ],
        },
      },
      health: {
        temperatures: [{ sensor: 'cpu-thermal', millicelsius: 51_200, criticalMillicelsius: 110_000 }, { sensor: 'nvme Composite', millicelsius: 38_850, criticalMillicelsius: 84_850 }],
        strains: [], strainsSinceBoot: [], khzAllowed: null, power: [], readOnly: [],
        storage: { device: 'nvme0n1', medium: 'nvme', filesystem: 'ext4', readOnly: false, wearPercent: null, reserve: null },
      },
      slots: [], refusals: [], desiredRefused: null,
      host: { cpuPermille: load * 1000, memoryUsedBytes: (0.9 + load) * GIB, memoryBytes: 4 * GIB, diskFreeBytes: 18 * GIB, diskBytes: 32 * GIB, temperatureMillicelsius: 51_200, strains: [], onMains: null, batteryPercent: null },
      models: [], load,
    };
  }

  deployment(name, replicas, version, why) {
    const now = Date.now();
    const places = ['edge-1', 'edge-3', 'edge-2'].slice(0, replicas);
    return {
      apiVersion: 'muster.dev/v1', kind: 'Deployment', metadata: { name, generation: 3 },
      spec: {
        model: name, version: 'latest', replicas, selector: { matchLabels: { line: 'packing' } }, resources: { cpu: '500m', memory: '64Mi' },
        rollout: { strategy: 'Waves', waves: ['1', '50%', '100%'], probation: '10s', progressDeadline: '10m', maxFailed: '0' },
        onDeviceLoss: 'move', deviceLossGrace: '10s',
      },
      status: {
        observedGeneration: 3, wanted: replicas, ready: replicas, version,
        rollout: this.rollout({ version, previous: version > 1 ? version - 1 : null, devices: replicas, healthy: replicas, granted: replicas, beganMs: now - 7_400_000, changedMs: now - 7_280_000 }),
        replicas: places.map((device) => ({ device, phase: 'serving', running: version, version, manifest: digest(`${name}${version}`), why, leaving: false, reason: null, figures: null })),
        conditions: [],
      },
    };
  }

  rollout(fields) {
    return { number: 2, stage: 'done', version: 1, previous: null, wave: 3, waves: 3, granted: 3, healthy: 3, devices: 3, failed: [], message: 'every device has it', beganMs: 0, changedMs: 0, ...fields };
  }

  past() {
    const [hour, now] = [3_600_000, Date.now()];
    this.event('rolloutDone', null, 'linear_regression', 'linear_regression version 4: every device has it', now - 2 * hour);
    this.event('serving', 'edge-3', 'linear_regression', 'linear_regression version 4', now - 2 * hour - 40_000);
    this.event('rolloutWave', null, 'linear_regression', 'linear_regression version 4: wave 2 of 3', now - 2 * hour - 60_000);
    this.event('deviceReturned', 'edge-2', null, 'after 3m12s of silence', now - 9 * hour);
    this.event('deviceLost', 'edge-2', null, 'silent for 10s', now - 9 * hour - 190_000);
    this.event('workerCrashed', 'edge-1', 'digits', 'the worker ended with signal 9; it starts again in 1s', now - 26 * hour);
    this.event('started', 'edge-1', null, 'agent 0.1.0', now - 290 * hour);
    this.events.sort((a, b) => b.atMs - a.atMs);
  }

  event(kind, device, deployment, text, atMs = Date.now()) {
    this.events.unshift({ atMs, device, kind, deployment, text });
  }

  /** Deployments as the stream tells them. */
  live() {
    return this.deployments.map((resource) => ({ resource }));
  }

  find(name) {
    return this.deployments.find((one) => one.metadata.name === name);
  }

  freeze() {
    for (const id of ['edge-1', 'edge-2']) this.silent(id, 47_000);
    this.frozen = [{ group: 'site north', devices: ['edge-1', 'edge-2'], of: 2, sinceMs: Date.now() - 47_000, message: '2 of 2 devices fell silent together' }];
    this.event('movesFrozen', null, null, 'north: 2 of 2 devices silent (edge-1, edge-2)', Date.now() - 40_000);
  }

  stopped() {
    const reason = 'golden vectors: case 3 of 8, y[0][7] is 0.12, expected 0.98 ± 0.0001';
    const digits = this.find('digits');
    digits.status.rollout = this.rollout({ stage: 'stopped', version: 2, previous: 1, wave: 1, granted: 1, healthy: 0, failed: [{ device: 'edge-1', reason }], message: 'edge-1: refused; devices are back on version 1', beganMs: Date.now() - 95_000, changedMs: Date.now() - 61_000 });
    this.devices[0].refusals = [{ bundle: { model: 'digits', version: 2, manifest: digest('digits2') }, agent: '0.1.0', attempt: 1, memoryBytes: 64 * MIB, kind: 'goldenMismatch', reason, atMs: Date.now() - 61_000 }];
    this.event('bundleRefused', 'edge-1', 'digits', `digits version 2: ${reason}`, Date.now() - 62_000);
    this.event('rolloutStopped', null, 'digits', 'digits version 2: edge-1: refused; devices are back on version 1', Date.now() - 61_000);
  }

  busy() {
    const digits = this.find('digits');
    digits.status.rollout = this.rollout({ stage: 'paused', version: 2, previous: 1, wave: 2, granted: 2, healthy: 1, message: 'an operator holds it', beganMs: Date.now() - 95_000, changedMs: Date.now() - 31_000 });
    const short = this.find('linear_regression');
    Object.assign(short.status, { wanted: 4 });
    short.spec.replicas = 4;
    short.status.conditions = [{ type: 'Placed', status: false, reason: 'NoRoom', message: 'waits for 2 more devices: edge-2 has 0.2 of 0.5 cores free; no other device matches line=packing', sinceMs: Date.now() - 130_000 }];
    this.devices[1].schedule = 'cordoned';
    Object.assign(this.devices[2], { applied: { epoch: 1, number: 44 } });
  }

  /** A board that is too hot, with a weak supply and a worn disk. */
  strained() {
    const device = this.devices[0];
    const strains = ['underVoltage', 'frequencyCapped', 'coolingDown'];
    Object.assign(device.host, { strains, onMains: false, batteryPercent: 71, temperatureMillicelsius: 84_900 });
    Object.assign(device.health, {
      strains, strainsSinceBoot: [...strains, 'throttled'], khzAllowed: 1_500_000, readOnly: ['/boot/firmware'],
      power: [{ name: 'AC', kind: 'mains', online: false, percent: null, state: null }, { name: 'BAT0', kind: 'battery', online: null, percent: 71, state: 'discharging' }],
      storage: { device: 'mmcblk0', medium: 'emmc', filesystem: 'ext4', readOnly: false, wearPercent: 110, reserve: 'urgent' },
    });
    device.health.temperatures[0].millicelsius = 84_900;
    this.event('throttling', 'edge-1', null, 'what slows it down: under-voltage, slowed down to cool', Date.now() - 20_000);
  }

  silent(id, agoMs = 0) {
    const device = this.devices.find((one) => one.id === id);
    Object.assign(device, { connected: false, silentSinceMs: Date.now() - agoMs, lastSeenMs: Date.now() - agoMs });
    for (const { status } of this.deployments) {
      const lost = status.replicas.filter((replica) => replica.device === id);
      for (const replica of lost) Object.assign(replica, { reason: 'the device is not connected', figures: null });
      status.ready -= lost.length;
      if (lost.length > 0) status.conditions = [{ type: 'Available', status: false, reason: 'Progressing', message: `${status.ready} of ${status.wanted} replicas answer; ${id}: the device is not connected`, sinceMs: Date.now() - agoMs }];
    }
  }

  /** A device's slots follow from the replicas on it. */
  slots(device) {
    device.slots = this.deployments.flatMap(({ metadata, status }) =>
      status.replicas.filter((replica) => replica.device === device.id).map((replica) => ({
        deployment: metadata.name, phase: replica.phase ?? 'empty', restarts: metadata.name === 'digits' && device.id === 'edge-1' ? 1 : 0, waiting: null,
        wanted: { model: metadata.name, version: replica.version, manifest: replica.manifest },
        running: replica.running && { model: metadata.name, version: replica.running, manifest: digest(`${metadata.name}${replica.running}`) },
        measured: { memoryPeakBytes: metadata.name === 'digits' ? 9.4 * MIB : 4.1 * MIB, latencyUs: metadata.name === 'digits' ? 1430 : 210 },
      })),
    );
  }

  tick() {
    const second = Math.round((Date.now() - this.began) / 1000);
    const events = this.events.length;
    if (this.scene === 'day') this.day(second);
    const at = Date.now();
    for (const device of this.devices) this.measure(device, at);
    const told = this.events.slice(0, this.events.length - events);
    const change = { atMs: at, devices: this.devices, devicesGone: [], deployments: this.live(), deploymentsGone: [], events: told, frozen: this.frozen };
    for (const listener of this.listeners) listener(change);
  }

  measure(device, at) {
    this.slots(device);
    if (!device.connected) return;
    const point = this.point(device, at);
    device.lastSeenMs = at;
    device.host = { ...device.host, cpuPermille: point.cpuPermille, memoryUsedBytes: point.memoryUsedBytes };
    device.models = point.models.map(({ deployment, version, requestsPerSecond, p50Ms, p99Ms }) => {
      const core = deployment === 'digits' ? 5.82 : 0.64;
      const figures = { windowSeconds: 60, share: 0.125, requestsPerSecond, coreMsPerPrediction: core, coresDemanded: (requestsPerSecond * core) / 1000, p50Ms, p99Ms };
      const replica = this.find(deployment).status.replicas.find((one) => one.device === device.id);
      if (replica) replica.figures = figures;
      return { deployment, version, requests: 48_211, errors: 3, cpuUs: 1e8, figures, p50Us: p50Ms * 1000, p99Us: p99Ms * 1000 };
    });
  }

  /** What a device would have told at `at`: a day's slow wave, and some noise that is the same each time. */
  point(device, at) {
    const noise = (salt) => Math.abs(Math.sin(Math.floor(at / 5000) * 12.9898 + salt * 78.233) * 43758.5453) % 1;
    const wave = 0.5 + 0.5 * Math.sin(at / 420_000 + device.load * 9);
    const models = this.deployments
      .filter(({ status }) => status.replicas.some((replica) => replica.device === device.id && replica.running))
      .map(({ metadata, status }) => {
        const slow = metadata.name === 'digits' ? 1.42 : 0.31;
        const version = status.replicas.find((replica) => replica.device === device.id).running;
        return { deployment: metadata.name, version, requestsPerSecond: (metadata.name === 'digits' ? 34 : 12) * (0.6 + wave * 0.5 + noise(3) * 0.12), p50Ms: slow * (1 + noise(1) * 0.08), p99Ms: slow * (1.9 + wave * 0.5 + noise(2) * 0.5) };
      });
    const load = Math.min(0.97, device.load * (0.6 + 0.5 * wave) + noise(4) * 0.07);
    return { atMs: at, cpuPermille: Math.round(load * 1000), memoryUsedBytes: Math.round((0.9 + device.load * 0.6 + wave * 0.15 + noise(5) * 0.02) * GIB), memoryBytes: 4 * GIB, models };
  }

  /** The scene that moves: edge-3 is lost and its replicas move, then digits gets version 2, then a bad 3. */
  day(second) {
    const digits = this.find('digits');
    const regression = this.find('linear_regression');
    if (second === 10) this.silent('edge-3');
    if (second === 20) {
      this.event('deviceLost', 'edge-3', null, 'silent for 10s');
      this.event('replicaMoved', 'edge-2', 'linear_regression', 'from edge-3, which is lost');
      const moved = regression.status.replicas.find((replica) => replica.device === 'edge-3');
      Object.assign(moved, { device: 'edge-2', phase: 'fetching', running: null, reason: null, why: 'edge-3 is lost; most stays free here' });
    }
    if (second === 24) {
      const moved = regression.status.replicas.find((replica) => replica.device === 'edge-2');
      Object.assign(moved, { phase: 'serving', running: 4 });
      Object.assign(regression.status, { ready: 2, conditions: [] });
      this.event('serving', 'edge-2', 'linear_regression', 'linear_regression version 4');
    }
    if (second === 40) {
      Object.assign(this.devices[2], { connected: true, silentSinceMs: null });
      for (const replica of digits.status.replicas) replica.reason = null;
      Object.assign(digits.status, { ready: 3, conditions: [] });
      this.event('deviceReturned', 'edge-3', null, 'after 30s of silence');
    }
    if (second >= 45) this.roll(digits, second - 45, 2, 1);
    if (second >= 80 && second <= 92) this.fail(digits, second - 80);
  }

  roll({ status }, second, version, previous) {
    const starts = [0, 10, 20];
    const now = Date.now();
    if (second === 0) {
      status.rollout = this.rollout({ number: 3, stage: 'running', version, previous, wave: 1, granted: 1, healthy: 0, message: 'it waits for edge-1 (fetching)', beganMs: now, changedMs: now });
      status.version = version;
      this.event('rolloutStarted', null, 'digits', `digits version ${version}`);
    }
    const wave = starts.indexOf(second);
    if (wave >= 0) {
      Object.assign(status.replicas[wave], { phase: 'fetching', version, manifest: digest(`digits${version}`) });
      Object.assign(status.rollout, { wave: wave + 1, granted: wave + 1, changedMs: now });
      if (wave > 0) this.event('rolloutWave', null, 'digits', `digits version ${version}: wave ${wave + 1} of 3`);
    }
    for (const [index, start] of starts.entries()) {
      const replica = status.replicas[index];
      if (second === start + 2) replica.phase = 'checking';
      if (second === start + 4) Object.assign(replica, { phase: 'probation', running: version });
      if (second === start + 9) {
        replica.phase = 'serving';
        status.rollout.healthy = index + 1;
      }
    }
    if (second === 30) {
      Object.assign(status.rollout, { stage: 'done', message: 'every device has it', changedMs: now });
      this.event('rolloutDone', null, 'digits', `digits version ${version}: every device has it`);
    }
    if (second < 30 && status.rollout.stage === 'running') {
      const last = status.replicas.find((replica) => replica.version === version && replica.phase !== 'serving');
      if (last) status.rollout.message = `it waits for ${last.device} (${last.phase})`;
      status.ready = status.replicas.filter((replica) => ['probation', 'serving'].includes(replica.phase) && !replica.reason).length;
    }
  }

  fail(digits, second) {
    const { status } = digits;
    const now = Date.now();
    if (second === 0) {
      status.rollout = this.rollout({ number: 4, stage: 'running', version: 3, previous: 2, wave: 1, granted: 1, healthy: 0, message: 'it waits for edge-1 (checking)', beganMs: now, changedMs: now });
      Object.assign(status.replicas[0], { phase: 'checking', version: 3 });
      this.event('rolloutStarted', null, 'digits', 'digits version 3');
    }
    if (second === 8) {
      this.stopped();
      Object.assign(status.rollout, { number: 4, version: 3, previous: 2, message: 'edge-1: refused; devices are back on version 2', changedMs: now, beganMs: now - 8000 });
      Object.assign(status.replicas[0], { phase: 'serving', version: 2, running: 2 });
    }
  }

  snapshot() {
    return { atMs: Date.now(), devices: this.devices, deployments: this.live(), events: this.events.slice(0, 100), frozen: this.frozen, fleet: 'workshop', version: '0.1.0' };
  }

  listen(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Everything but the session and the stream; `undefined`: there is no such thing. */
  answer(what, sent, query) {
    const [, method, kind, name, ...rest] = /^(\w+) \/([^/]+)(?:\/([^/]+))?(?:\/(.+))?$/.exec(what) ?? [];
    const verb = rest[0] ?? '';
    if (what === 'POST /plan/approve') {
      this.frozen = [];
      return { frozen: [], changes: [], waiting: [] };
    }
    const device = kind === 'devices' ? this.devices.find((one) => one.id === name) : undefined;
    if (device) return this.answerDevice(device, method, verb, query);
    const deployment = kind === 'deployments' ? this.find(name) : undefined;
    return deployment && this.answerDeployment(deployment, method, verb, sent);
  }

  answerDevice(device, method, verb, query) {
    if (verb === 'history') {
      const minutes = Number(query.get('minutes') ?? 60);
      const until = device.lastSeenMs;
      const step = (minutes * 60_000) / 300;
      return { device: device.id, points: Array.from({ length: 300 }, (_, index) => this.point(device, until - (299 - index) * step)) };
    }
    if (verb === 'explain') {
      const replicas = this.deployments.flatMap(({ metadata, status }) =>
        status.replicas.filter((replica) => replica.device === device.id).map((replica) => ({ deployment: metadata.name, replica })),
      );
      const obstacles = [device.schedule === 'open' ? null : `it is ${device.schedule}`, ...device.refusals.map((refusal) => `it refused a bundle: ${refusal.reason}`)];
      return {
        id: device.id, schedule: device.schedule, presence: device.connected ? 'connected for 4h12m' : 'silent', cpuMilli: 4000, cpuMilliGranted: replicas.length * 500,
        memoryBytes: 3.5 * GIB, memoryBytesGranted: replicas.length * 64 * MIB, replicas, obstacles: obstacles.filter(Boolean),
      };
    }
    const schedules = { cordon: 'cordoned', uncordon: 'open', drain: 'draining' };
    if (method !== 'POST' || !schedules[verb]) return undefined;
    device.schedule = schedules[verb];
    return device;
  }

  answerDeployment({ metadata, spec, status }, method, verb, sent) {
    if (verb === 'explain') {
      const all = status.replicas.flatMap((replica) => (replica.figures ? [replica.figures] : []));
      const rate = all.reduce((sum, one) => sum + one.requestsPerSecond, 0);
      const core = all[0]?.coreMsPerPrediction ?? 1;
      const demanded = (rate * core) / 1000;
      const sentence = `${rate.toFixed(1)}/s × ${core} core-ms = ${demanded.toFixed(3)} cores; ÷ (500m × 70 %) → ${Math.ceil(demanded / 0.35)} replica${demanded > 0.35 ? 's' : ''}`;
      const demand = all.length > 0 ? { figures: { ...all[0], requestsPerSecond: rate, coresDemanded: demanded }, replicasNeeded: 1, sentence } : null;
      const waiting = status.conditions.filter((one) => !one.status).map((one) => one.message);
      return { name: metadata.name, wanted: status.wanted, ready: status.ready, version: status.version, replicas: status.replicas, waiting, rollout: status.rollout, demand, frozen: this.frozen[0]?.message ?? null };
    }
    if (verb === 'scale') {
      spec.replicas = status.wanted = sent.replicas;
      status.conditions = sent.replicas > status.ready ? [{ type: 'Placed', status: false, reason: 'NoDevice', message: 'waits for a device: no other device matches line=packing', sinceMs: Date.now() }] : [];
      return { metadata, spec, status };
    }
    const stages = { 'rollout/pause': 'paused', 'rollout/resume': 'running', 'rollout/undo': 'undone' };
    if (method !== 'POST' || !stages[verb]) return undefined;
    if (status.rollout.stage === 'done') return { refused: 'the rollout is over', hint: '`muster rollout history` shows how it ended' };
    Object.assign(status.rollout, { stage: stages[verb], message: 'an operator wants it so', changedMs: Date.now() });
    return status.rollout;
  }
}
