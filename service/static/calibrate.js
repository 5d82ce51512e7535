// "Calibrate your microphone": some people, each recorded several times, become thresholds.
//
// The sound of a recording is dropped as soon as the service has embedded it. The embeddings are held here until
// they are forgotten or the page is left; the service keeps nothing.

import * as api from './api.js';
import { Capture } from './capture.js';
import { announce, button, byId, made, make } from './dom.js';
import { label, say, t } from './language.js';
import { showError, showWords } from './problem.js';
import { showProposal } from './proposal.js';
import { adviceCodes, adviceFor } from './quality.js';
import { service } from './service.js';

const MAX_SECONDS = 8;
const NUM_SENTENCES = 3;
const FEWEST_PEOPLE = 2;
const FEWEST_RECORDINGS = 2;

let capture;
let people = []; // of { name, recordings: of { cuts, quality } }
let current;
let modelId = '';
let numUnderway = 0;

export function set() {
  capture = new Capture(byId('calibrate-capture'), {
    title: ['calibrate_capture', {}],
    sentence: 'sentence_1',
    maxSeconds: MAX_SECONDS,
    takesMany: true,
    maxBytes: () => service.maxUploadBytes,
  });
  capture.addEventListener('change', () => {
    capture.handled = take();
  });
  byId('calibrate-name').addEventListener('input', (event) => {
    current.name = event.target.value.trim();
    showPeople();
  });
  byId('calibrate-next').addEventListener('click', () => choose(newPerson()));
  byId('calibrate-submit').addEventListener('click', submit);
  byId('calibrate-forget').addEventListener('click', forget);
  restart();
}

export function show() {
  showPeople();
}

function restart() {
  people = [];
  capture.reset();
  byId('calibrate-work').hidden = false;
  byId('calibrate-result').replaceChildren();
  choose(newPerson(), { moves: false });
}

function newPerson() {
  const empty = people.find(({ recordings }) => !recordings.length);
  if (empty) return empty;
  people.push({ name: '', recordings: [] });
  return people.at(-1);
}

/** Lets the next recordings be those of a person. */
function choose(person, { moves = true } = {}) {
  current = person;
  const input = byId('calibrate-name');
  input.value = person.name;
  capture.reset();
  showPeople();
  if (moves) input.focus();
}

/** What a person is called: by a number without a name. */
const nameOf = (person) => () => person.name || t('calibrate_person', { number: people.indexOf(person) + 1 });

const complete = () => people.filter(({ recordings }) => recordings.length >= FEWEST_RECORDINGS);

/** Embeds a new recording, and lets go of its sound. */
async function take() {
  const { recording } = capture;
  if (!recording) return;
  const person = current;
  numUnderway += 1;
  showHint();
  try {
    const answer = await capture.during(api.embedCuts(recording));
    if (!people.includes(person)) return; // forgotten meanwhile
    modelId = answer.model_id;
    person.recordings.push(answer);
    if (recording === capture.recording) capture.reset();
    const next = (person.recordings.length % NUM_SENTENCES) + 1;
    say(capture.parts.sentence, `sentence_${next}`);
    announce('calibrate_taken', { name: nameOf(person), recordings: person.recordings.length });
  } catch (error) {
    if (recording !== capture.recording) return;
    capture.fail(error);
    if (error instanceof api.ServiceError && error.code === 'bad-recording') await capture.explain();
  } finally {
    numUnderway -= 1;
    showPeople();
  }
}

function showPeople() {
  const there = people.filter((person) => person.recordings.length || person === current);
  byId('calibrate-people').replaceChildren(...there.map(makePerson));
  byId('calibrate-forget').hidden = !people.some(({ recordings }) => recordings.length);
  showHint();
}

function makePerson(person) {
  const { recordings } = person;
  const seconds = recordings.reduce((sum, { quality }) => sum + quality.speech_s, 0).toFixed(1);
  const codes = new Set(recordings.flatMap(({ quality }) => adviceCodes(quality)));
  const text = make(
    'div',
    { class: 'voice-text' },
    made('p', 'person-name', 'echo', { text: nameOf(person) }),
    made('p', 'hint', 'calibrate_facts', { recordings: recordings.length, seconds }),
    ...[...codes].map((code) => made('p', 'advice', ...adviceFor(code))),
  );
  const row = make('li', person === current ? { 'aria-current': 'step' } : {}, text);
  if (!recordings.length) return row;
  const remove = button('calibrate_remove', () => drop(person), { className: 'danger-quiet' });
  const buttons = [label(remove, 'calibrate_remove_label', { name: nameOf(person) })];
  if (person !== current) {
    const add = button('calibrate_add', () => choose(person));
    buttons.unshift(label(add, 'calibrate_add_label', { name: nameOf(person) }));
  }
  row.append(make('div', { class: 'buttons' }, ...buttons));
  return row;
}

function drop(person) {
  announce('calibrate_removed', { name: nameOf(person)() });
  people = people.filter((other) => other !== person);
  choose(person === current ? newPerson() : current);
}

function showHint() {
  const count = complete().length;
  const isReady = count >= FEWEST_PEOPLE && !numUnderway;
  say(byId('calibrate-hint'), count < FEWEST_PEOPLE ? 'calibrate_hint_few' : 'calibrate_hint_ready', { people: count });
  byId('calibrate-submit').setAttribute('aria-disabled', String(!isReady));
  byId('calibrate-next').disabled = current.recordings.length < FEWEST_RECORDINGS;
}

async function submit() {
  const error = byId('calibrate-error');
  showError(error, null);
  if (complete().length < FEWEST_PEOPLE || numUnderway) {
    announce(byId('calibrate-hint').dataset.t, { people: complete().length });
    return;
  }
  const recordings = people.flatMap((person, i) =>
    person.recordings.map(({ cuts }) => ({ speaker: String(i), cuts })));
  numUnderway += 1;
  showHint();
  say(byId('calibrate-hint'), 'calibrate_working');
  try {
    const proposal = await api.calibrate(modelId, recordings);
    byId('calibrate-work').hidden = true;
    const heading = showProposal(byId('calibrate-result'), proposal);
    byId('calibrate-result').append(make('div', { class: 'buttons' }, button('calibrate_more', goOn)));
    heading.focus();
  } catch (failure) {
    if (failure instanceof api.ServiceError && failure.code === 'other-model') showWords(error, 'calibrate_other_model');
    else showError(error, failure);
  } finally {
    numUnderway -= 1;
    showHint();
  }
}

function goOn() {
  byId('calibrate-result').replaceChildren();
  byId('calibrate-work').hidden = false;
  byId('calibrate-name').focus();
}

function forget() {
  restart();
  announce('calibrate_forgotten');
  byId('calibrate-title').focus();
}
