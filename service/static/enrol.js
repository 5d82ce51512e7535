// Enrolment: a name, and recordings until they are enough. The service judges each as it comes.

import * as api from './api.js';
import { Capture } from './capture.js';
import { announce, button, byId, icon, made, make } from './dom.js';
import { Doubts } from './doubts.js';
import { say, t } from './language.js';
import { showError, showWords } from './problem.js';
import { makeScale, round } from './scale.js';
import { service } from './service.js';

const NUM_SENTENCES = 3;
const MAX_SECONDS = 8;
const GONE = ['unknown-enrolment', 'other-model']; // codes: it has to be begun anew

let slots = []; // of { capture, item, number, part: its number on the service or null, known, strange }
let doubts;
let enrolment = null; // what the service says of the one that is under way
let queue = Promise.resolve(); // requests about it go one after the other
let numChecks = 0; // checks that are under way

export function set() {
  doubts = new Doubts();
  doubts.addEventListener('change', () => runCheck(confirmParts));
  byId('enrol-form').addEventListener('submit', (event) => {
    event.preventDefault();
    submit('error');
  });
  byId('enrol-add').addEventListener('click', () => submitKnown('add'));
  byId('enrol-replace').addEventListener('click', () => submitKnown('replace'));
  byId('enrol-name').addEventListener('input', () => {
    byId('enrol-name-wrong').hidden = true;
    byId('enrol-exists').hidden = true;
    for (const slot of slots) slot.strange = null;
    showDoubts();
  });
  window.addEventListener('pagehide', giveUp);
  window.addEventListener('pageshow', ({ persisted }) => {
    if (persisted) for (const slot of slots) if (slot.capture.recording) check(slot); // the page is back
  });
  restart();
}

export function show() {
  byId('enrol-form').hidden = false;
  byId('enrol-result').replaceChildren();
  showHint();
}

function addSlot() {
  const number = slots.length + 1;
  const item = make('li');
  byId('enrol-slots').append(item);
  const capture = new Capture(item, {
    title: ['slot', { number }],
    showTitle: true,
    sentence: `sentence_${((number - 1) % NUM_SENTENCES) + 1}`,
    maxSeconds: MAX_SECONDS,
    maxBytes: () => service.maxUploadBytes,
  });
  const slot = { capture, item, number, part: null, known: null, strange: null };
  capture.addEventListener('change', () => check(slot));
  slots.push(slot);
}

/** Lets go of what is under way on the service; what doesn't reach it, it forgets in time. */
function giveUp() {
  if (enrolment) api.giveUpEnrolment(enrolment.id).catch(() => {});
  enrolment = null;
  for (const slot of slots) slot.part = null;
}

function restart() {
  enrolment = null;
  slots = [];
  byId('enrol-slots').replaceChildren();
  byId('enrol-name').value = '';
  byId('enrol-exists').hidden = true;
  byId('enrol-unchecked').hidden = true;
  addSlot();
  showAll();
}

const usable = () => slots.filter(({ part }) => part !== null);

/** What the service says of the recording of a slot. */
const partOf = (slot) => enrolment?.recordings.find(({ number }) => number === slot.part);

/** The next slot comes when those before are done. */
function showSlots() {
  if (usable().length === slots.length && slots.length < service.maxRecordings) addSlot();
  const isEnough = enrolment?.next === 'finish';
  for (const slot of slots) {
    const isOptional = isEnough && slot.part === null;
    slot.item.classList.toggle('optional', isOptional);
    slot.capture.retitle(isOptional ? 'slot_optional' : 'slot', { number: slot.number });
  }
}

function showAll() {
  showSlots();
  showProgress();
  showSimilarity();
  showDoubts();
}

/** Runs something that the enrolment has to wait for, and shows what came of it. */
async function runCheck(work) {
  numChecks += 1;
  showHint();
  try {
    return await work();
  } catch (error) {
    showFailure(error);
    return null;
  } finally {
    numChecks -= 1;
    showAll();
  }
}

/** Runs a request about the enrolment after those before it. */
function inTurn(work) {
  const done = queue.then(work);
  queue = done.catch(() => {});
  return done;
}

/** Sends the recording of a slot to the service. */
async function sendPart(slot) {
  enrolment ??= await api.beginEnrolment();
  enrolment = await api.addPart(enrolment.id, slot.capture.recording);
  slot.part = enrolment.recordings.at(-1).number;
}

/** Does something with the enrolment; one that the service has no more is begun anew from what is here. */
async function withEnrolment(work) {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof api.ServiceError && GONE.includes(error.code))) throw error;
    const sent = usable();
    const confirmed = sent.filter((slot) => partOf(slot)?.confirmed);
    enrolment = null;
    for (const slot of sent) slot.part = null;
    for (const slot of sent) await sendPart(slot);
    for (const slot of confirmed) enrolment = await api.confirmPart(enrolment.id, slot.part, true);
    return work();
  }
}

/** Puts the recording of a slot in the place of the one before. */
async function replacePart(slot, recording) {
  if (recording !== slot.capture.recording) return; // another one follows
  const { part } = slot;
  slot.part = null;
  await withEnrolment(async () => {
    if (part !== null && enrolment?.recordings.some(({ number }) => number === part)) {
      enrolment = await api.removePart(enrolment.id, part);
    }
  });
  if (recording) await withEnrolment(() => sendPart(slot));
}

/** Sends a new recording, and looks who else has this voice. */
async function check(slot) {
  const { capture } = slot;
  const { recording } = capture;
  Object.assign(slot, { known: null, strange: null });
  byId('enrol-result').replaceChildren();
  byId('enrol-exists').hidden = true;
  await runCheck(async () => {
    try {
      const sent = inTurn(() => replacePart(slot, recording));
      await (recording ? capture.during(sent) : sent);
      if (slot.part === null || recording !== capture.recording) return;
      capture.showQuality(partOf(slot).quality);
      showAll();
      slot.known = await findKnown(slot);
    } catch (error) {
      if (recording !== capture.recording) return;
      capture.fail(error);
      if (error instanceof api.ServiceError && error.code === 'bad-recording') await capture.explain();
    }
  });
}

/** Tells the service which recordings the user takes for the speaker's although they differ. */
async function confirmParts() {
  const isConfirmed = doubts.isCleared(apartKey());
  for (const { number, confirmed } of apart()) {
    if (confirmed === isConfirmed) continue;
    await inTurn(() => withEnrolment(async () => {
      enrolment = await api.confirmPart(enrolment.id, number, isConfirmed);
    }));
  }
}

/** The answer to a question that helps but isn't needed; null, and a note, if the token may not ask it. */
async function askIfAllowed(capture, request) {
  const answer = await capture.during(api.ifAllowed(request));
  if (answer === null) byId('enrol-unchecked').hidden = false;
  return answer;
}

/** Who is already enrolled with the voice of a recording: { name, score }, or null. */
async function findKnown({ capture }) {
  const { recording } = capture;
  const answer = await askIfAllowed(capture, api.identify(recording));
  const [best] = answer?.matches ?? [];
  return recording === capture.recording && best?.score >= service.strictThreshold ? best : null;
}

/** Notes which recordings don't sound like an enrolled person. */
async function findStrange(name) {
  for (const slot of usable()) {
    const { recording } = slot.capture;
    // Not by verification: doubts of ours are no attempts of somebody's to pass.
    const asked = api.identify(recording, service.threshold, [name]);
    const answer = await askIfAllowed(slot.capture, asked);
    const [match] = answer?.matches ?? [];
    if (recording !== slot.capture.recording) continue;
    slot.strange = match && match.score < service.threshold ? match : null;
  }
}

/** The recordings that don't have the voice of the others. */
const apart = () => (enrolment?.recordings ?? []).filter(({ agrees }) => !agrees);
const apartKey = () => `apart ${apart().map(({ number }) => number).join(' ')}`;

/** The pairs of recordings, in the numbers of their slots: { first, second, score }. */
function comparedPairs() {
  const order = (enrolment?.recordings ?? []).map(({ number }) => slots.find(({ part }) => part === number)?.number);
  return order.flatMap((second, j) =>
    order.slice(0, j).map((first, i) => ({
      first: Math.min(first, second), second: Math.max(first, second), score: enrolment.similarity[i][j],
    })));
}

/** The pair that is least alike, if a recording has another voice. */
function findApart(pairs) {
  if (!apart().length) return undefined;
  return pairs.reduce((least, pair) => (pair.score < least.score ? pair : least));
}

const makeRows = (pairs) =>
  pairs.map(({ first, second, score }) => ({ name: () => t('similarity_pair', { first, second }), score }));

function showProgress() {
  const place = byId('enrol-progress');
  place.hidden = !usable().length;
  if (place.hidden) return;
  const { speech_s: seconds, needed_speech_s: needed, needed_recordings: recordings, completeness } = enrolment;
  byId('enrol-bar').value = completeness;
  const count = enrolment.recordings.filter(({ agrees, confirmed }) => agrees || confirmed).length;
  const values = { seconds: seconds.toFixed(1), needed, recordings, count };
  say(byId('enrol-progress-text'), completeness >= 1 ? 'enrol_progress_enough' : 'enrol_progress_more', values);
}

function showSimilarity() {
  const place = byId('enrol-similarity');
  const pairs = comparedPairs();
  place.hidden = pairs.length === 0;
  if (place.hidden) return;
  const least = findApart(pairs);
  const words = least ? ['similarity_poor', least] : ['similarity_good', {}];
  place.replaceChildren(
    made('h2', '', 'similarity'),
    make('p', { class: least ? 'poor' : 'good' }, icon(least ? 'warning' : 'check'), made('span', '', ...words)),
    makeScale(service.threshold, makeRows(pairs)),
  );
  announce(...words);
}

/** The people that the recordings resemble or don't: name, numbers of the recordings, best score. */
function byName(match) {
  const found = new Map();
  for (const slot of usable()) {
    const { name: other, score } = match(slot) ?? {};
    if (other === undefined) continue;
    const before = found.get(other) ?? { numbers: [], best: -1 };
    found.set(other, { numbers: [...before.numbers, slot.number], best: Math.max(before.best, score) });
  }
  return [...found].map(([other, { numbers, best }]) => ({ other, numbers: numbers.join(', '), score: round(best) }));
}

/** Shows what speaks against an enrolment, and what is missing for it. */
function showDoubts() {
  const found = [];
  const name = byId('enrol-name').value.trim();
  if (apart().length) found.push({ key: apartKey(), confirm: ['doubt_apart', {}] });
  const known = byName((slot) => slot.known).filter(({ other }) => !isSameName(other, name));
  const strange = byName((slot) => slot.strange);
  for (const [kind, voices] of Object.entries({ known, stranger: strange })) {
    for (const values of voices) {
      const { other, numbers } = values;
      const text = [`doubt_${kind}`, values];
      found.push({ key: `${kind} ${other}`, about: numbers, text, confirm: [`doubt_${kind}_confirm`, values] });
    }
  }
  doubts.show(found);
  showHint();
}

/** Names differ in more than capital letters, as for the service. */
const isSameName = (one, other) => one.normalize().toLowerCase() === other.normalize().toLowerCase();

/** Key and values of what is missing until the voice can be enrolled. */
function missing() {
  if (numChecks) return ['enrol_hint_wait', {}];
  if (!usable().length) return ['enrol_hint_first', {}];
  if (enrolment.next === 'record') {
    return ['enrol_hint_more', { number: slots.find(({ part }) => part === null)?.number ?? slots.length }];
  }
  if (!byId('enrol-name').value.trim()) return ['enrol_hint_name', {}];
  if (!doubts.areCleared || enrolment.next !== 'finish') return ['enrol_hint_doubts', {}];
  return ['enrol_hint_ready', {}];
}

const isReady = () => missing()[0] === 'enrol_hint_ready';

function showHint() {
  say(byId('enrol-hint'), ...missing());
  byId('enrol-submit').setAttribute('aria-disabled', String(!isReady()));
}

/** Adds to an enrolled person's recordings or replaces them, if they sound like that person's. */
async function submitKnown(ifExists) {
  if (numChecks) return;
  const before = byId('enrol-result').firstChild;
  await runCheck(() => findStrange(byId('enrol-name').value.trim()));
  if (byId('enrol-result').firstChild !== before) return; // it failed
  if (doubts.areCleared) await submit(ifExists);
  else announce('enrol_hint_doubts');
}

function showFailure(error) {
  const problem = make('div', { class: 'notice error', role: 'alert' });
  byId('enrol-result').replaceChildren(problem);
  showError(problem, error);
}

async function submit(ifExists) {
  const input = byId('enrol-name');
  const name = input.value.trim();
  if (!name) {
    showWords(byId('enrol-name-wrong'), 'name_missing');
    input.focus();
    return;
  }
  if (!isReady()) {
    announce(...missing());
    return;
  }
  byId('enrol-exists').hidden = true;
  await runCheck(async () => {
    try {
      const speaker = await inTurn(() =>
        withEnrolment(() => api.finishEnrolment(enrolment.id, name, ifExists)));
      const pairs = comparedPairs();
      const least = findApart(pairs);
      restart();
      showEnrolled(speaker, pairs, least);
    } catch (error) {
      if (!(error instanceof api.ServiceError && error.code === 'speaker-exists' && ifExists === 'error')) throw error;
      say(byId('enrol-exists-text'), 'exists', { name });
      byId('enrol-exists').hidden = false;
      byId('enrol-add').focus();
    }
  });
}

/** Shows who was enrolled, and how alike the recordings are. */
function showEnrolled(speaker, pairs, least) {
  const { name, recordings } = speaker;
  service.numSpeakers = Math.max(1, service.numSpeakers);
  const seconds = recordings.reduce((sum, recording) => sum + recording.speech_s, 0).toFixed(1);
  const words = least ? ['enrolled_apart', { name, ...least }] : ['enrolled', { name }];
  const mark = icon(least ? 'warning' : 'check');
  const heading = make('h2', { tabindex: '-1' }, mark, made('span', '', ...words));
  const card = make(
    'div',
    { class: `card verdict ${least ? 'unsure' : 'match'}` },
    heading,
    made('p', '', 'enrolled_text', { recordings: recordings.length, seconds }),
  );
  if (pairs.length) card.append(makeScale(service.threshold, makeRows(pairs)));
  const link = made('a', 'button primary', 'enrolled_try');
  link.href = '#recognise';
  const next = button('enrolled_next', () => {
    show();
    byId('enrol-name').focus();
  });
  card.append(make('div', { class: 'buttons' }, link, next));
  byId('enrol-form').hidden = true;
  byId('enrol-result').replaceChildren(card);
  announce(...words);
  heading.focus();
}
