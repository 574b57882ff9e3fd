// A control plane that is made up, for work on the page only: it serves dist/ and answers what the page
// asks with data that changes. Log in with `admin` and `muster`.
//
//   npm run build && npm run fake            a day as it goes: edge-3 falls silent, digits gets version 2
//   npm run fake -- --scene calm|frozen|empty|bad-version|busy   one picture that stays
//   --port 8470
//
// Stop it and start it again to see the page reconnect.
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { extname } from 'node:path';
import { parseArgs } from 'node:util';
import { World } from './fake-world.mjs';

const { values } = parseArgs({ options: { scene: { type: 'string', default: 'day' }, port: { type: 'string', default: '8470' } } });
const world = new World(values.scene);
// The same after a restart, as with a plane that keeps its sessions: the page reconnects by itself.
const SESSION = 'muster_session=fake';
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };
const CSP = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'";
const TRIES_MAX = 5;
const tries = { count: 0 };

const server = createServer((request, response) => {
  answer(request, response).catch((error) => problem(response, 500, String(error)));
});
server.listen(Number(values.port), '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`));

async function answer(request, response) {
  const url = new URL(request.url, 'http://plane');
  const path = decodeURIComponent(url.pathname);
  if (!path.startsWith('/api/v1/')) return file(path, response);
  const what = `${request.method} ${path.slice('/api/v1'.length)}`;
  if (what === 'POST /session') return logIn(await body(request), response);
  if (!request.headers.cookie?.includes(SESSION)) return problem(response, 401, 'nobody is logged in', 'log in');
  if (request.method !== 'GET' && request.headers['content-type'] !== 'application/json') {
    return problem(response, 415, 'a change needs Content-Type: application/json');
  }
  if (what === 'GET /session') return json(response, { user: 'admin' });
  if (what === 'DELETE /session') {
    return response.writeHead(204, { 'Set-Cookie': 'muster_session=; Path=/; Max-Age=0' }).end();
  }
  if (what === 'GET /feed') return feed(request, response);
  const sent = request.method === 'GET' ? null : await body(request);
  const found = world.answer(what, sent, url.searchParams);
  if (found === undefined) return problem(response, 404, `there is no ${path}`, '`muster get` shows what there is');
  if (found.refused) return problem(response, 409, found.refused, found.hint);
  return json(response, found);
}

function logIn({ user, password }, response) {
  if (tries.count >= TRIES_MAX) {
    response.setHeader('Retry-After', '30');
    return problem(response, 429, 'too many tries', 'wait before the next one');
  }
  if (user !== 'admin' || password !== 'muster') {
    tries.count += 1;
    return problem(response, 401, 'the user or the password is wrong', '`muster login` works with a one-time code');
  }
  tries.count = 0;
  response.writeHead(204, { 'Set-Cookie': `${SESSION}; HttpOnly; SameSite=Strict; Path=/` }).end();
}

function feed(request, response) {
  response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
  let id = 0;
  const send = (event, data) => response.write(`id: ${++id}\nevent: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
  send('snapshot', world.snapshot());
  const stop = world.listen((change) => send('change', change));
  const beat = setInterval(() => response.write(': beat\n\n'), 10_000);
  request.on('close', () => {
    stop();
    clearInterval(beat);
  });
}

async function file(path, response) {
  const name = path === '/' ? '/index.html' : path;
  if (name.includes('..')) return problem(response, 404, 'no such page');
  try {
    const bytes = await readFile(new URL(`../dist${name}`, import.meta.url));
    response.writeHead(200, { 'Content-Type': TYPES[extname(name)] ?? 'application/octet-stream', 'Content-Security-Policy': CSP });
    response.end(bytes);
  } catch {
    problem(response, 404, 'no such page', 'npm run build');
  }
}

async function body(request) {
  let text = '';
  for await (const part of request) text += part;
  return text ? JSON.parse(text) : {};
}

function json(response, value) {
  response.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify(value));
}

function problem(response, status, detail, hint = null) {
  response.writeHead(status, { 'Content-Type': 'application/problem+json' });
  response.end(JSON.stringify({ title: String(status), status, detail, hint }));
}
