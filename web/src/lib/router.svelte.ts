// Hash routes: the control plane serves one page, whatever the address.

export type Route =
  | { page: 'fleet' }
  | { page: 'deployments' }
  | { page: 'deployment'; name: string }
  | { page: 'device'; id: string }
  | { page: 'events' }
  | { page: 'unknown' };

export const to = {
  fleet: '#/',
  deployments: '#/deployments',
  deployment: (name: string) => `#/deployments/${encodeURIComponent(name)}`,
  device: (id: string) => `#/devices/${encodeURIComponent(id)}`,
  events: '#/events',
};

function parse(hash: string): Route {
  const [first, second, ...more] = hash.replace(/^#?\/?/, '').split('/').filter(Boolean);
  if (first === undefined) return { page: 'fleet' };
  if (more.length > 0) return { page: 'unknown' };
  if (first === 'devices' && second === undefined) return { page: 'fleet' };
  if (first === 'devices' && second !== undefined) return { page: 'device', id: decode(second) };
  if (first === 'deployments' && second === undefined) return { page: 'deployments' };
  if (first === 'deployments' && second !== undefined) return { page: 'deployment', name: decode(second) };
  if (first === 'events' && second === undefined) return { page: 'events' };
  return { page: 'unknown' };
}

/** An address that a person mistyped is no reason to fail: it then names nothing. */
function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

class Router {
  route = $state<Route>(parse(location.hash));

  constructor() {
    addEventListener('hashchange', () => {
      this.route = parse(location.hash);
    });
  }
}

export const router = new Router();
