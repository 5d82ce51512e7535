// Calls every method of the JavaScript client and checks the answers; in Node and in a browser alike.

import {
  ServiceProblem, ServiceUnreachable, VoiceprintClient, VoiceprintError,
} from '../../clients/javascript/voiceprint_client.js';

const NAME = '小 明%2F'; // spaces, other scripts, and what a careless client would decode

function check(condition, what) {
  if (!condition) throw new Error(what);
}

function equal(received, expected, what) {
  const [left, right] = [JSON.stringify(received), JSON.stringify(expected)];
  check(left === right, `${what}: received ${left}, expected ${right}`);
}

async function thrown(promise, kind, what) {
  try {
    await promise;
  } catch (error) {
    check(error instanceof kind, `${what}: ${error.name}: ${error.message}`);
    return error;
  }
  throw new Error(`${what}: nothing was thrown`);
}

/** `speech` holds wav files (Uint8Array): three of one speaker, then one of another. */
export async function runScenario(url, token, speech) {
  const client = new VoiceprintClient(`${url}/`, { token });
  const [first, second, third, other] = speech;
  equal(client.url, url, 'the address');

  equal((await client.info()).threshold, 0.5, 'info');
  equal((await client.quality(first)).duration_s, 2, 'quality of a Uint8Array');
  equal((await client.quality(new Blob([first]))).duration_s, 2, 'quality of a Blob');
  const buffer = first.buffer.slice(first.byteOffset, first.byteOffset + first.byteLength);
  equal((await client.quality(buffer)).duration_s, 2, 'quality of an ArrayBuffer');
  check((await client.compare(first, second)).is_same_speaker, 'compare with the same speaker');
  check(!(await client.compare(first, other)).is_same_speaker, 'compare with another speaker');
  equal((await client.embed(first)).embedding.length, 64, 'embed');
  const proposal = await client.calibrate({ one: [first, second], another: [other] });
  equal([proposal.num_people, proposal.num_recordings], [2, 3], 'calibrate');

  const enrolled = await client.enrol(NAME, [first, second]);
  equal(enrolled.name, NAME, 'enrol');
  equal(enrolled.quality.length, 2, 'enrol, quality');
  await client.enrol('other', [other], { idempotencyKey: 'my-key' });

  equal((await client.identify(third)).name, NAME, 'identify');
  const options = { candidates: ['other', NAME], topK: 1, threshold: -1 };
  const found = await client.identify(third, options);
  equal([found.threshold, found.matches.length], [-1, 1], 'identify with options');
  equal((await client.identify(third, { candidates: ['other'] })).name, null, 'identify nobody');
  check((await client.verify(NAME, third)).is_same_speaker, 'verify');
  equal((await client.verify(NAME, third, { threshold: 0 })).threshold, 0, 'verify at a threshold');

  const emptyZip = new Uint8Array(22); // its end alone
  emptyZip.set([0x50, 0x4b, 5, 6]);
  equal((await client.enrolZip(emptyZip)).recordings, [], 'enrolZip');

  const asked = await client.challenge('other');
  equal(asked.text.split(' ').length, 6, 'challenge');
  const read = await client.verify('other', other, { challenge: asked.id });
  check(read.challenge_passed, 'verify with a challenge');
  const twice = client.enrol('third', [other], { challenge: asked.id });
  equal((await thrown(twice, ServiceProblem, 'used')).code, 'bad-challenge', 'used');

  const begun = await client.beginEnrolment('by and by');
  equal(begun.next, 'record', 'beginEnrolment');
  const parts = (await client.addToEnrolment(begun.id, first)).recordings;
  equal(parts.length, 1, 'addToEnrolment');
  const said = await client.confirmInEnrolment(begun.id, parts[0].number);
  equal(said.recordings[0].confirmed, true, 'confirmInEnrolment');
  equal((await client.removeFromEnrolment(begun.id, parts[0].number)).recordings, [], 'remove');
  for (let number = 0; number < 12; number += 1) {
    await client.addToEnrolment(begun.id, speech[number % 3]);
  }
  equal((await client.enrolment(begun.id)).next, 'finish', 'enrolment');
  equal((await client.finishEnrolment(begun.id)).recordings.length, 12, 'finishEnrolment');
  await client.delete('by and by');
  const unnamed = await client.beginEnrolment(null, { ifExists: 'add' });
  const early = client.finishEnrolment(unnamed.id, 'other', { ifExists: 'replace' });
  equal((await thrown(early, ServiceProblem, 'too early')).code, 'not-complete', 'too early');
  await client.giveUpEnrolment(unnamed.id);

  equal((await client.speaker(NAME)).recordings, enrolled.recordings, 'speaker');
  equal((await client.speakers({ limit: 1 })).total, 2, 'speakers');
  equal((await client.events({ limit: 1 })).events.length, 1, 'events');
  equal((await client.speakers({ query: 'oth', offset: 1 })).speakers, [], 'speakers, a later page');
  const names = [];
  for await (const speaker of client.allSpeakers()) names.push(speaker.name);
  equal(names.sort(), ['other', NAME].sort(), 'allSpeakers');
  equal((await client.addRecordings(NAME, [third])).recordings.length, 3, 'addRecordings');
  const { id } = enrolled.recordings[0];
  const wav = new Uint8Array(await client.recordingAudio(NAME, id));
  equal(new TextDecoder().decode(wav.slice(0, 4)), 'RIFF', 'recordingAudio');
  equal((await client.deleteRecording(NAME, id)).recordings.length, 2, 'deleteRecording');
  equal((await client.replaceRecordings(NAME, [third])).recordings.length, 1, 'replaceRecordings');
  equal((await client.rename(NAME, 'renamed')).name, 'renamed', 'rename');

  const problem = await thrown(client.speaker(NAME), ServiceProblem, 'a name that is gone');
  check(problem instanceof VoiceprintError, 'a problem is a VoiceprintError');
  equal([problem.name, problem.status, problem.code], ['ServiceProblem', 404, 'unknown-speaker'], 'problem');
  check(problem.title && problem.message === problem.detail, 'its title and detail');
  equal(problem.document.status, 404, 'its document');
  check(problem.requestId, 'its request id, which a page of another origin may read too');
  equal(problem.retryAfterS, null, 'its Retry-After');
  const stranger = new VoiceprintClient(url, { token: 'a-wrong-token' });
  equal((await thrown(stranger.speakers(), ServiceProblem, 'a wrong token')).status, 401, 'its status');
  const elsewhere = new VoiceprintClient(url, { token, group: 'elsewhere' });
  equal((await thrown(elsewhere.speakers(), ServiceProblem, 'a group')).code, 'unknown-group', 'no such group');

  equal((await client.delete('renamed')).removed.recordings, 1, 'delete');
  equal((await client.delete('other')).name, 'other', 'delete the other');

  for (const address of ['ftp://host', 'http://host/?key=1']) {
    await thrown(Promise.resolve().then(() => new VoiceprintClient(address)), TypeError, address);
  }
  const wrong = Promise.resolve().then(() => client.enrol('name', first));
  await thrown(wrong, TypeError, 'a single recording');
  const text = Promise.resolve().then(() => client.quality('a.wav'));
  await thrown(text, TypeError, 'a path');
  const tries = Promise.resolve().then(() => new VoiceprintClient(url, { maxTries: 0 }));
  await thrown(tries, TypeError, 'no try');
}

/** `answers` are given one after the other instead of the service's; returns the requests. */
function pretending(...answers) {
  const requests = [];
  const fetch = async (address, init) => {
    requests.push({ address, ...init });
    const answer = answers[requests.length - 1];
    if (answer instanceof Error) throw answer;
    if (answer !== null) return answer;
    return new Promise((_, reject) => {
      init.signal.addEventListener('abort', () => reject(new Error('aborted')));
    });
  };
  return { requests, fetch };
}

function busy(retryAfter, status = 503) {
  const document = { type: '/problems/busy', title: 'Busy', status, detail: 'the queue is full' };
  const headers = retryAfter === undefined ? {} : { 'Retry-After': retryAfter };
  return new Response(JSON.stringify(document), { status, headers });
}

/** What a service rarely does. */
export async function runFailures() {
  const speech = new Uint8Array(10);
  const fine = () => new Response('{"name": "x"}');

  let { requests, fetch } = pretending(busy('0'), busy('0', 429), fine());
  let client = new VoiceprintClient('http://host/voice', { token: 'secret', fetch });
  equal((await client.enrol('x', [speech])).name, 'x', 'the third try');
  const keys = requests.map((request) => request.headers['Idempotency-Key']);
  check(/^[0-9a-f]{32}$/.test(keys[0]), `a key: ${keys[0]}`);
  equal(keys, [keys[0], keys[0], keys[0]], 'the key of further tries');
  equal(requests[0].address, 'http://host/voice/v1/speakers', 'the path of a service below another');
  equal(requests[0].headers.Authorization, 'Bearer secret', 'the token');
  equal(requests[0].body.get('file').name, 'recording', 'the name of a file');

  ({ requests, fetch } = pretending(busy('31')));
  client = new VoiceprintClient('http://host', { fetch });
  const problem = await thrown(client.info(), ServiceProblem, 'a long wait');
  equal([problem.code, problem.retryAfterS, requests.length], ['busy', 31, 1], 'a long wait');

  ({ requests, fetch } = pretending(busy('0'), busy('0'), busy('0')));
  client = new VoiceprintClient('http://host', { maxTries: 3, fetch });
  await thrown(client.info(), ServiceProblem, 'too many tries');
  equal(requests.length, 3, 'too many tries');

  const dated = pretending(busy('Wed, 21 Oct 2026 07:28:00 GMT'), busy());
  client = new VoiceprintClient('http://host', { maxTries: 1, fetch: dated.fetch });
  equal((await thrown(client.info(), ServiceProblem, 'a date')).retryAfterS, null, 'a date');
  equal((await thrown(client.info(), ServiceProblem, 'no header')).retryAfterS, null, 'no header');

  const page = pretending(new Response('<html>', { status: 502 }), new Response('<html>'));
  client = new VoiceprintClient('http://host', { fetch: page.fetch });
  const gate = await thrown(client.info(), ServiceProblem, 'a page');
  equal([gate.code, gate.detail, gate.document], ['', '<html>', {}], 'a page');
  await thrown(client.info(), ServiceUnreachable, 'a page instead of a document');

  const lost = pretending(new TypeError('fetch failed', { cause: new Error('refused') }), null);
  client = new VoiceprintClient('http://host', { timeoutMs: 50, fetch: lost.fetch });
  const gone = await thrown(client.enrol('x', [speech]), ServiceUnreachable, 'nobody there');
  equal(gone.message, 'http://host does not answer: refused', 'nobody there');
  const late = await thrown(client.info(), ServiceUnreachable, 'a timeout');
  equal(late.message, 'http://host does not answer: nothing came within 50 ms', 'a timeout');
  equal(lost.requests.length, 2, 'without an answer nothing is sent again');
  equal(lost.requests[0].redirect, 'error', 'redirects are not followed');
}

/** Who spoke when in a conversation of two people (the content of a wav file). */
export async function runDiarization(url, token, conversation) {
  const client = new VoiceprintClient(url, { token });
  const started = await client.startDiarization(conversation, { minSpeakers: 1, maxSpeakers: 3 });
  equal((await client.diarizations())[0].id, started.id, 'the newest job');
  const told = [];
  const job = await client.waitForDiarization(started.id, {
    pollMs: 50,
    onProgress: (progress) => told.push(progress),
  });
  check(told.length > 0, 'the progress is told');
  const { speakers, turns } = job.result;
  const rttm = await client.diarizationRttm(job.id);
  equal(rttm.split('SPEAKER ').length - 1, turns.length, 'a line a turn');
  const { label } = speakers.find((speaker) => speaker.can_be_enrolled);
  equal((await client.enrolFoundSpeaker(job.id, label, 'from node')).name, 'from node', 'enrol');
  const again = client.enrolFoundSpeaker(job.id, label, 'from node');
  equal((await thrown(again, ServiceProblem, 'enrol again')).code, 'speaker-exists', 'enrol again');
  const options = { ifExists: 'add' };
  const more = await client.enrolFoundSpeaker(job.id, label, 'from node', options);
  equal(more.recordings.length, 2, 'add');
  equal((await client.removeDiarization(job.id)).state, 'done', 'removed');
  const gone = await thrown(client.waitForDiarization(job.id), ServiceProblem, 'a job that is gone');
  equal(gone.code, 'unknown-job', 'a job that is gone');
}

/** Who is speaking now, in the samples of a conversation. */
export async function runStream(url, token, samples) {
  const client = new VoiceprintClient(url, { token });
  const stream = await client.stream();
  equal(stream.ready.sample_rate, 16000, 'ready');
  for (let start = 0; start < samples.length; start += 3200) {
    stream.send(samples.subarray(start, start + 3200));
  }
  stream.enrol(1, 'from a stream');
  stream.enrol(99, 'nobody', { ifExists: 'add' });
  stream.end();
  const events = [];
  for await (const event of stream) events.push(event);
  const kinds = events.map((event) => event.event);
  equal([kinds[0], kinds.at(-1)], ['speech-start', 'end'], 'first and last event');
  const names = events.filter(({ event }) => event === 'enrolled').map(({ name }) => name);
  equal(names, ['from a stream'], 'enrolled');
  equal(kinds.includes('error'), true, 'nobody has the number 99');

  const wrong = new VoiceprintClient(url, { token: 'a-wrong-token' });
  const refusal = await thrown(wrong.stream(), ServiceProblem, 'a wrong token');
  equal([refusal.status, refusal.code], [401, 'unauthorized'], 'a wrong token');
  const odd = await client.stream();
  odd.send(samples.subarray(0, 101));
  const rule = await thrown(drain(odd), ServiceProblem, 'an odd frame');
  equal([rule.status, rule.code], [422, 'bad-field'], 'an odd frame');
  const nobody = new VoiceprintClient('http://127.0.0.1:9');
  await thrown(nobody.stream(), ServiceUnreachable, 'nobody there');
}

async function drain(stream) {
  for await (const event of stream) check(event.event === 'error', 'nothing but the error');
}
