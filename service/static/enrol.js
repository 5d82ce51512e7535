// Enrolment: a name and two or three recordings, checked against each other as they come.

import * as api from './api.js';
import { Capture } from './capture.js';
import { announce, button, byId, icon, made, make } from './dom.js';
import { say, t } from './language.js';
import { showError, showWords } from './problem.js';
import { makeScale } from './scale.js';
import { service } from './service.js';

const NUM_SLOTS = 3;
const NUM_NEEDED = 2;
const MAX_SECONDS = 8;

let slots = []; // of { capture, item, isUsable }
let pairs = new Map(); // "0 1" -> { of: [recording, recording], answer }
let numChecks = 0; // checks that are under way

export function set() {
  for (let i = 0; i < NUM_SLOTS; i += 1) slots.push(makeSlot(i));
  byId('enrol-form').addEventListener('submit', (event) => {
    event.preventDefault();
    submit(api.enrol);
  });
  byId('enrol-add').addEventListener('click', () => submit(api.addRecordings));
  byId('enrol-replace').addEventListener('click', () => submit(api.replaceRecordings));
  byId('enrol-name').addEventListener('input', () => {
    byId('enrol-name-wrong').hidden = true;
    byId('enrol-exists').hidden = true;
    showHint();
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
  const slot = { capture, item, number, isUsable: false };
  capture.addEventListener('change', () => check(slot));
  return slot;
}

function restart() {
  for (const slot of slots) {
    slot.capture.reset();
    slot.isUsable = false;
  }
  pairs.clear();
  byId('enrol-name').value = '';
  byId('enrol-exists').hidden = true;
  byId('enrol-similarity').hidden = true;
  showSlots();
  showHint();
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
  slot.isUsable = false;
  byId('enrol-result').replaceChildren();
  byId('enrol-exists').hidden = true;
  showSimilarity();
  showHint();
  const { recording } = slot.capture;
  if (!recording) return;
  numChecks += 1;
  showHint();
  try {
    const isUsable = await slot.capture.checkQuality();
    if (recording !== slot.capture.recording) return;
    slot.isUsable = isUsable;
    showSlots();
    if (isUsable) await compareAll();
  } catch (error) {
    if (recording !== slot.capture.recording) return;
    slot.isUsable = false;
    slot.capture.fail(error);
  } finally {
    numChecks -= 1;
    showSimilarity();
    showHint();
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
      pairs.set(key, { of, answer: await there[j].capture.during(api.compare(...of)) });
      showSimilarity();
    }
  }
}

const isCurrent = (pair, of) => pair !== undefined && pair.of.every((recording, i) => recording === of[i]);

function showSimilarity() {
  const place = byId('enrol-similarity');
  const rows = [];
  let apart = null;
  const threshold = service.threshold;
  for (const [key, pair] of [...pairs].sort()) {
    const [first, second] = key.split(' ').map(Number);
    if (!isCurrent(pair, [slots[first - 1], slots[second - 1]].map((slot) => slot.capture.recording))) continue;
    rows.push({
      name: () => t('similarity_pair', { first, second }),
      score: pair.answer.score,
    });
    if (!pair.answer.is_same_speaker) apart ??= { first, second };
  }
  place.hidden = rows.length === 0;
  if (!rows.length) return;
  const words = apart ? ['similarity_poor', apart] : ['similarity_good', {}];
  place.replaceChildren(
    made('h2', '', 'similarity'),
    make('p', { class: apart ? 'poor' : 'good' }, icon(apart ? 'warning' : 'check'), made('span', '', ...words)),
    makeScale(threshold, rows),
  );
  announce(...words);
}

/** Says what is missing until the voice can be enrolled. */
function showHint() {
  const count = usable().length;
  let key = 'enrol_hint_ready';
  if (numChecks) key = 'enrol_hint_wait';
  else if (count < NUM_NEEDED) key = 'enrol_hint_two';
  else if (!byId('enrol-name').value.trim()) key = 'enrol_hint_name';
  say(byId('enrol-hint'), key);
  byId('enrol-submit').setAttribute('aria-disabled', String(key !== 'enrol_hint_ready'));
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
  if (numChecks || recordings.length < NUM_NEEDED) {
    announce(byId('enrol-hint').dataset.t);
    return;
  }
  byId('enrol-exists').hidden = true;
  numChecks += 1;
  showHint();
  try {
    const speaker = await send(name, recordings);
    restart();
    showEnrolled(speaker);
  } catch (error) {
    if (error instanceof api.ServiceError && error.code === 'speaker-exists' && send === api.enrol) {
      say(byId('enrol-exists-text'), 'exists', { name });
      byId('enrol-exists').hidden = false;
      byId('enrol-add').focus();
    } else {
      const problem = make('div', { class: 'notice error', role: 'alert' });
      byId('enrol-result').replaceChildren(problem);
      showError(problem, error);
    }
  } finally {
    numChecks -= 1;
    showHint();
  }
}

function showEnrolled(speaker) {
  const { name, recordings } = speaker;
  service.numSpeakers = Math.max(1, service.numSpeakers);
  const seconds = recordings.reduce((sum, recording) => sum + recording.speech_s, 0).toFixed(1);
  const heading = make('h2', { tabindex: '-1' }, icon('check'), made('span', '', 'enrolled', { name }));
  const card = make(
    'div',
    { class: 'card verdict match' },
    heading,
    made('p', '', 'enrolled_text', { recordings: recordings.length, seconds }),
  );
  const rows = [];
  const matrix = speaker.similarity ?? [];
  for (let j = 1; j < matrix.length; j += 1) {
    for (let i = 0; i < j; i += 1) {
      const values = { first: i + 1, second: j + 1 };
      rows.push({ name: () => t('similarity_pair', values), score: matrix[i][j] });
    }
  }
  if (rows.length) card.append(makeScale(service.threshold, rows));
  const link = made('a', 'button primary', 'enrolled_try');
  link.href = '#recognise';
  const next = button('enrolled_next', () => {
    show();
    byId('enrol-name').focus();
  });
  card.append(make('div', { class: 'buttons' }, link, next));
  byId('enrol-form').hidden = true;
  byId('enrol-result').replaceChildren(card);
  announce('enrolled', { name });
  heading.focus();
}
