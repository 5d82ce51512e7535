// Enrolment: a name, and recordings until they are enough. The service judges each as it comes.

import * as api from './api.js';
import { Capture } from './capture.js';
import { announce, button, byId, icon, made, make } from './dom.js';
import { Doubts } from './doubts.js';
import { Enrolment } from './enrolment.js';
import { say, t } from './language.js';
import { showError, showWords } from './problem.js';
import { makeScale, round } from './scale.js';
import { service } from './service.js';

const NUM_SENTENCES = 3;
const MAX_SECONDS = 8;

let slots = []; // of { capture, item, number, sent: the recording that the service got, known, strange }
let doubts;
const enrolment = new Enrolment();
let numChecks = 0; // checks that are under way

export function set() {
  doubts = new Doubts();
  doubts.addEventListener('change', () => runCheck(() => enrolment.confirm(doubts.isCleared(apartKey()))));
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
  window.addEventListener('pagehide', () => enrolment.giveUp());
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
  const slot = { capture, item, number, sent: null, known: null, strange: null };
  capture.addEventListener('change', () => check(slot));
  slots.push(slot);
}

function restart() {
  enrolment.restart();
  slots = [];
  byId('enrol-slots').replaceChildren();
  byId('enrol-name').value = '';
  byId('enrol-exists').hidden = true;
  byId('enrol-unchecked').hidden = true;
  addSlot();
  showAll();
}

const usable = () => slots.filter(({ capture }) => enrolment.has(capture.recording));
const isEmpty = (slot) => !enrolment.has(slot.capture.recording);

/** The next slot comes when those before are done. */
function showSlots() {
  if (usable().length === slots.length && slots.length < service.maxRecordings) addSlot();
  const isEnough = enrolment.document?.next === 'finish';
  for (const slot of slots) {
    const isOptional = isEnough && isEmpty(slot);
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

/** Sends a new recording, and looks who else has this voice. */
async function check(slot) {
  const { capture } = slot;
  const { recording } = capture;
  Object.assign(slot, { known: null, strange: null });
  byId('enrol-result').replaceChildren();
  byId('enrol-exists').hidden = true;
  await runCheck(async () => {
    try {
      const before = slot.sent;
      slot.sent = recording;
      const sent = enrolment.replace(before, recording);
      await (recording ? capture.during(sent) : sent);
      if (!recording || recording !== capture.recording) return;
      capture.showQuality(enrolment.partOf(recording).quality);
      showAll();
      slot.known = await findKnown(slot);
    } catch (error) {
      if (recording !== capture.recording) return;
      capture.fail(error);
      if (error instanceof api.ServiceError && error.code === 'bad-recording') await capture.explain();
    }
  });
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

const apartKey = () => `apart ${enrolment.apart.map(({ number }) => number).join(' ')}`;

/** The pairs of recordings, in the numbers of their slots: { first, second, score }. */
function comparedPairs() {
  const slotOf = (part) => slots.find(({ capture }) => enrolment.partOf(capture.recording) === part)?.number;
  const order = enrolment.parts.map(slotOf);
  const pairs = order.flatMap((second, j) =>
    order.slice(0, j).map((first, i) => ({
      first: Math.min(first, second), second: Math.max(first, second), score: enrolment.document.similarity[i][j],
    })));
  return pairs.filter(({ first }) => Number.isInteger(first)); // others are being replaced
}

/** The pair that is least alike, if a recording has another voice. */
function findApart(pairs) {
  if (!enrolment.apart.length || !pairs.length) return undefined;
  return pairs.reduce((least, pair) => (pair.score < least.score ? pair : least));
}

const makeRows = (pairs) =>
  pairs.map(({ first, second, score }) => ({ name: () => t('similarity_pair', { first, second }), score }));

function showProgress() {
  const place = byId('enrol-progress');
  place.hidden = !usable().length;
  if (place.hidden) return;
  const { speech_s: seconds, needed_speech_s: needed, needed_recordings: recordings, completeness } = enrolment.document;
  byId('enrol-bar').value = completeness;
  const count = enrolment.parts.filter(({ agrees, confirmed }) => agrees || confirmed).length;
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
  if (enrolment.apart.length) found.push({ key: apartKey(), confirm: ['doubt_apart', {}] });
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
  const { next } = enrolment.document;
  if (next === 'record') return ['enrol_hint_more', { number: (slots.find(isEmpty) ?? slots.at(-1)).number }];
  if (!byId('enrol-name').value.trim()) return ['enrol_hint_name', {}];
  if (!doubts.areCleared || next !== 'finish') return ['enrol_hint_doubts', {}];
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
      const speaker = await enrolment.finish(name, ifExists);
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
