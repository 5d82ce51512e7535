// The service's HTTP interface. Everything the page knows of it goes through here.

const TOKEN_KEY = 'voiceprint.token';
const INFO = 'v1/info';
const SPEAKERS = 'v1/speakers';
const ENROLMENTS = 'v1/enrolments';
const DIARIZATIONS = 'v1/diarizations';
const STREAM = 'v1/stream';
const MAX_TRIES = 4;
const MAX_WAIT_S = 20; // a longer Retry-After is told to the user, who may not want to wait
const SLOW_S = 4; // without an answer by then, the page says that it waits

/** 'waiting' ({ seconds }) before a request is tried again, 'slow' when an answer takes long, 'resumed' after
 * that, 'idle' when nothing is waited for any more, 'unauthorized' (the token is missing, wrong or withdrawn). */
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

/** The user didn't want to wait any longer. `mayHaveChanged`: the service may have done it all the same. */
export class CancelledError extends Error {
  constructor(mayHaveChanged) {
    super('cancelled');
    this.mayHaveChanged = mayHaveChanged;
  }
}

const GROUP_KEY = 'voiceprint.group';

let token = read(TOKEN_KEY);
let group = read(GROUP_KEY);

function read(key) {
  try {
    return sessionStorage.getItem(key);
  } catch {
    return null;
  }
}

function keep(key, value) {
  try {
    if (value === null) sessionStorage.removeItem(key);
    else sessionStorage.setItem(key, value);
  } catch {
    // Storage is forbidden: it lasts until the page is loaded again.
  }
}

/** Sets the token for this tab, or forgets it (null); another token begins in its own group. */
export function setToken(value) {
  token = value;
  keep(TOKEN_KEY, value);
  setGroup(null);
}

/** Sets the group that requests are about, of those that the token may choose. */
export function setGroup(value) {
  group = value;
  keep(GROUP_KEY, value);
}

export function hasToken() {
  return token !== null;
}

const underway = new Set(); // of AbortController, one a request

/** Gives up on everything that the page waits for. */
export function cancelAll() {
  for (const request of underway) request.abort();
}

function sleep(seconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

async function readProblem(response) {
  try {
    return (await response.json()) ?? {};
  } catch {
    return {};
  }
}

function makeHeaders(body) {
  const headers = { Accept: 'application/json' };
  if (token !== null) headers.Authorization = `Bearer ${token}`;
  if (group !== null) headers['Voiceprint-Group'] = group;
  if (typeof body === 'string') headers['Content-Type'] = 'application/json';
  return headers;
}

/**
 * Sends a request and returns what `read` makes of the answer. What the service was too busy for (429
 * and 503, which change nothing there) is tried again after the time it asks for. `signal` cancels it;
 * what `takesLong` is shown elsewhere while it lasts; one that `outlives` the page goes on without it.
 */
async function send(method, path, body, read, { signal, takesLong = false, outlives = false } = {}) {
  const controller = new AbortController();
  const tellSlow = () => takesLong || events.dispatchEvent(new Event('slow'));
  const slow = setTimeout(tellSlow, 1000 * SLOW_S);
  signal?.addEventListener('abort', () => controller.abort());
  underway.add(controller);
  try {
    return await sendAgain(method, path, body, read, controller.signal, outlives);
  } catch (error) {
    if (!controller.signal.aborted) throw error;
    const isChange = (path.startsWith(SPEAKERS) && !path.endsWith('/verify')) || path.endsWith('/finish');
    throw new CancelledError(method !== 'GET' && isChange);
  } finally {
    clearTimeout(slow);
    underway.delete(controller);
    if (!underway.size) events.dispatchEvent(new Event('idle'));
  }
}

async function sendAgain(method, path, body, read, signal, keepalive) {
  for (let tries = 1; ; tries += 1) {
    let response;
    try {
      response = await fetch(new URL(path, document.baseURI), {
        method, headers: makeHeaders(body), body, signal, keepalive, cache: 'no-store', credentials: 'same-origin',
      });
    } catch {
      throw new OfflineError(path);
    }
    if (response.ok) return await read(response);
    const isBusy = response.status === 429 || response.status === 503;
    const retryAfter = Math.max(1, Number(response.headers.get('Retry-After')) || 1);
    if (isBusy && tries < MAX_TRIES && retryAfter <= MAX_WAIT_S) {
      events.dispatchEvent(new CustomEvent('waiting', { detail: { seconds: retryAfter } }));
      await sleep(retryAfter, signal);
      signal.throwIfAborted();
      events.dispatchEvent(new Event('resumed'));
      continue;
    }
    if (response.status === 401 && path !== INFO) events.dispatchEvent(new CustomEvent('unauthorized'));
    throw new ServiceError(response.status, await readProblem(response), retryAfter);
  }
}

/** The answer, or null where the token's scopes don't allow the question. */
export async function ifAllowed(request) {
  try {
    return await request;
  } catch (error) {
    if (error instanceof ServiceError && error.code === 'missing-scope') return null;
    throw error;
  }
}

const ask = (method, path, body, options) =>
  send(method, path, body, (response) => response.json(), options);

/** A multipart form of recordings, [[field, recording], ...], and words, { field: word or words }. */
function form(recordings, words = {}) {
  const data = new FormData();
  for (const [field, recording] of recordings) data.append(field, recording.blob, recording.name);
  for (const [field, word] of Object.entries(words)) {
    for (const one of Array.isArray(word) ? word : [word]) {
      if (one !== undefined) data.append(field, one);
    }
  }
  return data;
}

const files = (recordings) => recordings.map((recording) => ['file', recording]);
const speakerPath = (name) => `${SPEAKERS}/${encodeURIComponent(name)}`;

export const info = () => ask('GET', INFO);
export const quality = (recording) => ask('POST', 'v1/quality', form(files([recording])));
export const compare = (first, second) =>
  ask('POST', 'v1/compare', form([['file1', first], ['file2', second]]));
/** Compares with everybody, or with the names of `candidates` only. */
export const identify = (recording, threshold, candidates) =>
  ask('POST', 'v1/identify', form(files([recording]), { threshold, top_k: 5, candidates }));
/** Embeds a recording as a calibration wants it; nothing is kept there. */
export const embedCuts = (recording) => ask('POST', 'v1/calibrations/recordings', form(files([recording])));
export const calibrate = (modelId, recordings) =>
  ask('POST', 'v1/calibrations', JSON.stringify({ model_id: modelId, recordings }), { takesLong: true });
/** Asks for digits that a recording of a speaker is to be of. */
export const makeChallenge = (speaker, language) =>
  ask('POST', 'v1/challenges', JSON.stringify({ speaker, language }));
export const verify = (name, recording, threshold, challenge) =>
  ask('POST', `${speakerPath(name)}/verify`, form(files([recording]), { threshold, challenge }));
export const speakers = (query, offset, limit) =>
  ask('GET', `${SPEAKERS}?${new URLSearchParams({ query, offset, limit })}`);

/** Begins an enrolment, to which recordings are added one by one; every answer tells how far it is. */
export const beginEnrolment = () => ask('POST', ENROLMENTS, '{}');
export const addPart = (id, recording) => ask('POST', `${ENROLMENTS}/${id}/recordings`, form(files([recording])));
export const removePart = (id, number) => ask('DELETE', `${ENROLMENTS}/${id}/recordings/${number}`);
export const confirmPart = (id, number, confirmed) =>
  ask('PATCH', `${ENROLMENTS}/${id}/recordings/${number}`, JSON.stringify({ confirmed }));
export const finishEnrolment = (id, name, ifExists) =>
  ask('POST', `${ENROLMENTS}/${id}/finish`, JSON.stringify({ name, if_exists: ifExists }));
/** The page may be on its way out; what doesn't arrive, the service forgets by itself. */
export const giveUpEnrolment = (id) => send('DELETE', `${ENROLMENTS}/${id}`, undefined, () => null, { outlives: true });

export const rename = (name, newName) => ask('PATCH', speakerPath(name), JSON.stringify({ name: newName }));
export const remove = (name) => ask('DELETE', speakerPath(name));
export const removeRecording = (name, id) =>
  ask('DELETE', `${speakerPath(name)}/recordings/${encodeURIComponent(id)}`);
export const recordingAudio = (name, id) =>
  send('GET', `${speakerPath(name)}/recordings/${encodeURIComponent(id)}/audio`, undefined, (response) =>
    response.arrayBuffer());
export const eventsAfter = (after, limit) => ask('GET', `v1/events?${new URLSearchParams({ after, limit })}`);

/** Sends a long recording; the answer is a job. */
export const startDiarization = (recording, numSpeakers, signal) => {
  const body = form(files([recording]), { num_speakers: numSpeakers });
  return ask('POST', DIARIZATIONS, body, { signal, takesLong: true });
};
export const diarizations = () => ask('GET', DIARIZATIONS);
export const diarization = (id, signal) => ask('GET', `${DIARIZATIONS}/${id}`, undefined, { signal });
export const removeDiarization = (id) => ask('DELETE', `${DIARIZATIONS}/${id}`);
export const enrolFound = (id, label, name, ifExists) =>
  ask('POST', `${DIARIZATIONS}/${id}/speakers/${encodeURIComponent(label)}/enrol`, JSON.stringify({ name, if_exists: ifExists }));

/** Opens the live stream; its first message has to be the credentials, since it can't have headers. */
export function openStream() {
  const url = new URL(STREAM, document.baseURI);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  return new WebSocket(url);
}
export const credentials = () => ({ ...(token !== null && { token }), ...(group !== null && { group }) });
