// The service's HTTP interface. Everything the page knows of it goes through here.

const TOKEN_KEY = 'voiceprint.token';
const INFO = 'v1/info';
const MAX_TRIES = 4;
const MAX_WAIT_S = 20; // a longer Retry-After is told to the user, who may not want to wait

/** 'waiting' ({ seconds }) before a request is tried again, 'resumed' after, 'unauthorized' (the token is
 * missing, wrong or withdrawn). */
export const events = new EventTarget();

/** An answer that is no success, with the service's problem document (RFC 9457). */
export class ServiceError extends Error {
  constructor(status, problem, retryAfter) {
    super(problem.detail ?? problem.title ?? `status ${status}`);
    this.status = status;
    this.code = String(problem.type ?? '').split('/').pop(); // "/problems/busy" -> "busy"
    this.detail = typeof problem.detail === 'string' ? problem.detail : (problem.title ?? '');
    this.retryAfter = retryAfter;
  }
}

/** No answer at all. */
export class OfflineError extends Error {}

let token = readToken();

function readToken() {
  try {
    return sessionStorage.getItem(TOKEN_KEY);
  } catch {
    return null;
  }
}

/** Sets the token for this tab, or forgets it (null). */
export function setToken(value) {
  token = value;
  try {
    if (value === null) sessionStorage.removeItem(TOKEN_KEY);
    else sessionStorage.setItem(TOKEN_KEY, value);
  } catch {
    // Storage is forbidden: it lasts until the page is loaded again.
  }
}

export function hasToken() {
  return token !== null;
}

function sleep(seconds) {
  return new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
}

async function readProblem(response) {
  try {
    return (await response.json()) ?? {};
  } catch {
    return {};
  }
}

/**
 * Sends a request and returns the answer. What the service was too busy for (429 and 503, which
 * change nothing there) is tried again after the time it asks for.
 */
async function send(method, path, body) {
  const headers = { Accept: 'application/json' };
  if (token !== null) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined && !(body instanceof FormData)) {
    headers['Content-Type'] = 'application/json';
    body = JSON.stringify(body);
  }
  for (let tries = 1; ; tries += 1) {
    let response;
    try {
      response = await fetch(new URL(path, document.baseURI), {
        method, headers, body, cache: 'no-store', credentials: 'same-origin',
      });
    } catch {
      throw new OfflineError(path);
    }
    if (response.ok) return response;
    const isBusy = response.status === 429 || response.status === 503;
    const retryAfter = Math.max(1, Number(response.headers.get('Retry-After')) || 1);
    if (isBusy && tries < MAX_TRIES && retryAfter <= MAX_WAIT_S) {
      events.dispatchEvent(new CustomEvent('waiting', { detail: { seconds: retryAfter } }));
      await sleep(retryAfter);
      events.dispatchEvent(new CustomEvent('resumed'));
      continue;
    }
    if (response.status === 401 && path !== INFO) events.dispatchEvent(new CustomEvent('unauthorized'));
    throw new ServiceError(response.status, await readProblem(response), retryAfter);
  }
}

async function ask(method, path, body) {
  return (await send(method, path, body)).json();
}

/** A multipart form of recordings, [[field, recording], ...], and words, { field: word }. */
function form(recordings, words = {}) {
  const data = new FormData();
  for (const [field, recording] of recordings) data.append(field, recording.blob, recording.name);
  for (const [field, word] of Object.entries(words)) {
    if (word !== undefined) data.append(field, word);
  }
  return data;
}

const files = (recordings) => recordings.map((recording) => ['file', recording]);
const speakerPath = (name) => `v1/speakers/${encodeURIComponent(name)}`;

export const info = () => ask('GET', INFO);
export const quality = (recording) => ask('POST', 'v1/quality', form(files([recording])));
export const compare = (first, second) =>
  ask('POST', 'v1/compare', form([['file1', first], ['file2', second]]));
export const identify = (recording, threshold) =>
  ask('POST', 'v1/identify', form(files([recording]), { threshold, top_k: 5 }));
export const verify = (name, recording, threshold) =>
  ask('POST', `${speakerPath(name)}/verify`, form(files([recording]), { threshold }));
export const speakers = (query, offset, limit) =>
  ask('GET', `v1/speakers?${new URLSearchParams({ query, offset, limit })}`);
export const enrol = (name, recordings) => ask('POST', 'v1/speakers', form(files(recordings), { name }));
export const addRecordings = (name, recordings) =>
  ask('POST', `${speakerPath(name)}/recordings`, form(files(recordings)));
export const replaceRecordings = (name, recordings) =>
  ask('PUT', `${speakerPath(name)}/recordings`, form(files(recordings)));
export const rename = (name, newName) => ask('PATCH', speakerPath(name), { name: newName });
export const remove = (name) => ask('DELETE', speakerPath(name));
export const removeRecording = (name, id) =>
  ask('DELETE', `${speakerPath(name)}/recordings/${encodeURIComponent(id)}`);
export const recordingAudio = async (name, id) =>
  (await send('GET', `${speakerPath(name)}/recordings/${encodeURIComponent(id)}/audio`)).arrayBuffer();
