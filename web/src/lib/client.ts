// Calls of the API, with the session's cookie. An error is a Failure that a person can read.

import createClient, { type Middleware } from 'openapi-fetch';
import type { paths } from '../api';
import type { DeploymentExplained, DeviceExplained, History, Problem, SessionView } from '../types';
import { session } from './session.svelte';

/** What was attempted and why it failed, and the next move. */
export class Failure extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly hint: string | null,
  ) {
    super(message);
  }
}

const UNREACHABLE = new Failure(0, 'the control plane does not answer', 'the page tries again by itself');
const TIMEOUT_MS = 10_000;

/** A change that rides on the cookie must say that it is JSON: no form of another site can. */
const middleware: Middleware = {
  onRequest({ request }) {
    if (request.method !== 'GET') request.headers.set('Content-Type', 'application/json');
    return request;
  },
  onResponse({ response }) {
    if (response.status === 401) session.lost();
  },
};

const client = createClient<paths>({
  baseUrl: location.origin,
  fetch: (request) => fetch(request, { signal: AbortSignal.timeout(TIMEOUT_MS) }),
});
client.use(middleware);

interface Answer<T> {
  data?: T | undefined;
  error?: unknown;
  response: Response;
}

async function read<T>(answer: Promise<Answer<T>>): Promise<T> {
  const { data, error, response } = await answer.catch(() => {
    throw UNREACHABLE;
  });
  if (!response.ok) throw failure(response, error);
  return data as T;
}

function failure(response: Response, body: unknown): Failure {
  const problem = (typeof body === 'object' ? body : null) as Partial<Problem> | null;
  const message = problem?.detail ?? problem?.title ?? `the control plane answered ${response.status}`;
  return new Failure(response.status, message, problem?.hint ?? null);
}

const name = (value: string) => ({ params: { path: { name: value } } });
const id = (value: string) => ({ params: { path: { id: value } } });

export const api = {
  explainDeployment: (value: string): Promise<DeploymentExplained> =>
    read(client.GET('/api/v1/deployments/{name}/explain', name(value))),
  explainDevice: (value: string): Promise<DeviceExplained> =>
    read(client.GET('/api/v1/devices/{id}/explain', id(value))),
  scale: (value: string, replicas: number) =>
    read(client.PUT('/api/v1/deployments/{name}/scale', { ...name(value), body: { replicas } })),
  pause: (value: string) => read(client.POST('/api/v1/deployments/{name}/rollout/pause', name(value))),
  resume: (value: string) => read(client.POST('/api/v1/deployments/{name}/rollout/resume', name(value))),
  undo: (value: string) => read(client.POST('/api/v1/deployments/{name}/rollout/undo', name(value))),
  cordon: (value: string) => read(client.POST('/api/v1/devices/{id}/cordon', id(value))),
  uncordon: (value: string) => read(client.POST('/api/v1/devices/{id}/uncordon', id(value))),
  drain: (value: string) => read(client.POST('/api/v1/devices/{id}/drain', id(value))),
  decommission: (value: string) =>
    read(client.POST('/api/v1/devices/{id}/decommission', { ...id(value), body: { reason: '' } })),
  approve: () => read(client.POST('/api/v1/plan/approve')),
  history: (value: string, minutes: number) =>
    plain<History>('GET', `/devices/${encodeURIComponent(value)}/history?minutes=${minutes}`),
  session: () => plain<SessionView>('GET', '/session'),
  logIn: (user: string, password: string) => plain<null>('POST', '/session', { user, password }),
  logOut: () => plain<null>('DELETE', '/session'),
};

/** What the OpenAPI document does not have yet; see feed-types.ts. */
async function plain<T>(method: string, path: string, body?: unknown): Promise<T> {
  const request: RequestInit = { method, signal: AbortSignal.timeout(TIMEOUT_MS) };
  if (method !== 'GET') request.headers = { 'Content-Type': 'application/json' };
  if (body !== undefined) request.body = JSON.stringify(body);
  const response = await fetch(`/api/v1${path}`, request).catch(() => {
    throw UNREACHABLE;
  });
  const text = await response.text();
  if (response.ok) return (text ? JSON.parse(text) : null) as T;
  if (response.status === 401 && method === 'GET') session.lost();
  const wait = response.headers.get('Retry-After');
  const told = failure(response, parsed(text));
  throw wait ? new Failure(told.status, told.message, `try again in ${wait} s`) : told;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** Anything that was thrown, as a Failure. */
export function asFailure(error: unknown): Failure {
  return error instanceof Failure ? error : new Failure(0, String(error), null);
}
