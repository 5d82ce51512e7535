// Enrolment: a name and two or three recordings, checked against each other as they come.

import * as api from './api.js';
import { Capture } from './capture.js';
import { announce, button, byId, icon, made, make } from './dom.js';
import { Doubts } from './doubts.js';
import { say, t } from './language.js';
import { showError, showWords } from './problem.js';
import { makeScale, round } from './scale.js';
import { service } from './service.js';

const NUM_SLOTS = 3;
const NUM_NEEDED = 2;
const MAX_SECONDS = 8;

let slots = []; // of { capture, item, number, isUsable, known, strange }
let doubts;
let pairs = new Map(); // "0 1" -> { of: [recording, recording], answer }
let numChecks = 0; // checks that are under way

export function set() {
  doubts = new Doubts();
  doubts.addEventListener('change', showHint);
  for (let i = 0; i < NUM_SLOTS; i += 1) slots.push(makeSlot(i));
  byId('enrol-form').addEventListener('submit', (event) => {
    event.preventDefault();
    submit(api.enrol);
  });
  byId('enrol-add').addEventListener('click', () => submitKnown(api.addRecordings));
  byId('enrol-replace').addEventListener('click', () => submitKnown(api.replaceRecordings));
  byId('enrol-name').addEventListener('input', () => {
    byId('enrol-name-wrong').hidden = true;
    byId('enrol-exists').hidden = true;
    for (const slot of slots) slot.strange = null;
    showDoubts();
  });
  restart();
}

export function show() {
  byId('enrol-form').hidden = false;
  byId('enrol-result').replaceChildren();
  showHint();
}

function makeSlot(i) {
  const item = make('li', i < NUM_NEEDED ? {} : { class: 'optional' });
  byId('enrol-slots').append(item);
  const number = i + 1;
  const capture = new Capture(item, {
    title: [i < NUM_NEEDED ? 'slot' : 'slot_optional', { number }],
    showTitle: true,
    sentence: `sentence_${number}`,
    maxSeconds: MAX_SECONDS,
    maxBytes: () => service.maxUploadBytes,
  });
  const slot = { capture, item, number, isUsable: false, known: null, strange: null };
  capture.addEventListener('change', () => check(slot));
  return slot;
}

function restart() {
  for (const slot of slots) {
    slot.capture.reset();
    Object.assign(slot, { isUsable: false, known: null, strange: null });
  }
  pairs.clear();
  byId('enrol-name').value = '';
  byId('enrol-exists').hidden = true;
  byId('enrol-similarity').hidden = true;
  byId('enrol-unchecked').hidden = true;
  showSlots();
  showDoubts();
}

/** The next slot comes when the one before is done. */
function showSlots() {
  slots.forEach(({ item, capture }, i) => {
    item.hidden = i > 0 && !slots[i - 1].isUsable && !capture.recording && !slots[i].isUsable;
  });
}

const usable = () => slots.filter((slot) => slot.isUsable);

/** Measures a new recording's quality, and compares it with the others. */
async function check(slot) {
  Object.assign(slot, { isUsable: false, known: null, strange: null });
  byId('enrol-result').replaceChildren();
  byId('enrol-exists').hidden = true;
  showSimilarity();
  showDoubts();
  const { recording } = slot.capture;
  if (!recording) return;
  numChecks += 1;
  showHint();
  try {
    const isUsable = await slot.capture.checkQuality();
    if (recording !== slot.capture.recording) return;
    slot.isUsable = isUsable;
    showSlots();
    if (!isUsable) return;
    const known = await findKnown(slot);
    await compareAll();
    if (recording === slot.capture.recording) slot.known = known;
  } catch (error) {
    if (recording !== slot.capture.recording) return;
    slot.isUsable = false;
    slot.capture.fail(error);
  } finally {
    numChecks -= 1;
    showSimilarity();
    showDoubts();
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
  const answer = await askIfAllowed(capture, api.identify(capture.recording));
  const [best] = answer?.matches ?? [];
  return best?.score >= service.strictThreshold ? best : null;
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

/** Asks the service for the similarity of every pair that it wasn't asked for yet. */
async function compareAll() {
  const there = usable();
  for (let j = 1; j < there.length; j += 1) {
    for (let i = 0; i < j; i += 1) {
      const key = `${there[i].number} ${there[j].number}`;
      const of = [there[i].capture.recording, there[j].capture.recording];
      if (isCurrent(pairs.get(key), of)) continue;
      const answer = await askIfAllowed(there[j].capture, api.compare(...of));
      if (answer === null) return;
      pairs.set(key, { of, answer });
      showSimilarity();
    }
  }
}

const isCurrent = (pair, of) => pair !== undefined && pair.of.every((recording, i) => recording === of[i]);

/** The pairs of the recordings that are there: { first, second, score }. */
function currentPairs() {
  return [...pairs].sort().flatMap(([key, pair]) => {
    const [first, second] = key.split(' ').map(Number);
    const recordings = [first, second].map((number) => slots[number - 1].capture.recording);
    return isCurrent(pair, recordings) ? [{ first, second, score: pair.answer.score }] : [];
  });
}

const findApart = (compared) => compared.find(({ score }) => score < service.threshold);

const makeRows = (compared) =>
  compared.map(({ first, second, score }) => ({ name: () => t('similarity_pair', { first, second }), score }));

function showSimilarity() {
  const place = byId('enrol-similarity');
  const compared = currentPairs();
  const apart = findApart(compared);
  place.hidden = compared.length === 0;
  if (!compared.length) return;
  const words = apart ? ['similarity_poor', apart] : ['similarity_good', {}];
  place.replaceChildren(
    made('h2', '', 'similarity'),
    make('p', { class: apart ? 'poor' : 'good' }, icon(apart ? 'warning' : 'check'), made('span', '', ...words)),
    makeScale(service.threshold, makeRows(compared)),
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
  const apart = findApart(currentPairs());
  if (apart) found.push({ key: `apart ${apart.first} ${apart.second}`, confirm: ['doubt_apart', {}] });
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

/** Says what is missing until the voice can be enrolled. */
function showHint() {
  const count = usable().length;
  let key = 'enrol_hint_ready';
  if (numChecks) key = 'enrol_hint_wait';
  else if (count < NUM_NEEDED) key = 'enrol_hint_two';
  else if (!byId('enrol-name').value.trim()) key = 'enrol_hint_name';
  else if (!doubts.areCleared) key = 'enrol_hint_doubts';
  say(byId('enrol-hint'), key);
  byId('enrol-submit').setAttribute('aria-disabled', String(key !== 'enrol_hint_ready'));
}

/** Adds to an enrolled person's recordings or replaces them, if they sound like that person's. */
async function submitKnown(send) {
  if (numChecks) return;
  numChecks += 1;
  showHint();
  try {
    await findStrange(byId('enrol-name').value.trim());
  } catch (error) {
    showFailure(error);
    return;
  } finally {
    numChecks -= 1;
    showDoubts();
  }
  if (doubts.areCleared) await submit(send);
  else announce('enrol_hint_doubts');
}

function showFailure(error) {
  const problem = make('div', { class: 'notice error', role: 'alert' });
  byId('enrol-result').replaceChildren(problem);
  showError(problem, error);
}

async function submit(send) {
  const input = byId('enrol-name');
  const name = input.value.trim();
  const recordings = usable().map((slot) => slot.capture.recording);
  if (!name) {
    showWords(byId('enrol-name-wrong'), 'name_missing');
    input.focus();
    return;
  }
  if (numChecks || recordings.length < NUM_NEEDED || !doubts.areCleared) {
    announce(byId('enrol-hint').dataset.t);
    return;
  }
  byId('enrol-exists').hidden = true;
  numChecks += 1;
  showHint();
  try {
    const speaker = await send(name, recordings);
    const compared = currentPairs();
    restart();
    showEnrolled(speaker, compared);
  } catch (error) {
    if (error instanceof api.ServiceError && error.code === 'speaker-exists' && send === api.enrol) {
      say(byId('enrol-exists-text'), 'exists', { name });
      byId('enrol-exists').hidden = false;
      byId('enrol-add').focus();
    } else {
      showFailure(error);
    }
  } finally {
    numChecks -= 1;
    showHint();
  }
}

/** Shows who was enrolled, and how alike the recordings are; the service's own figures may be other scores. */
function showEnrolled(speaker, compared) {
  const { name, recordings } = speaker;
  service.numSpeakers = Math.max(1, service.numSpeakers);
  const seconds = recordings.reduce((sum, recording) => sum + recording.speech_s, 0).toFixed(1);
  const apart = findApart(compared);
  const words = apart ? ['enrolled_apart', { name, ...apart }] : ['enrolled', { name }];
  const mark = icon(apart ? 'warning' : 'check');
  const heading = make('h2', { tabindex: '-1' }, mark, made('span', '', ...words));
  const card = make(
    'div',
    { class: `card verdict ${apart ? 'unsure' : 'match'}` },
    heading,
    made('p', '', 'enrolled_text', { recordings: recordings.length, seconds }),
  );
  if (compared.length) card.append(makeScale(service.threshold, makeRows(compared)));
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
