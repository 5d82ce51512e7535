// "Who is speaking?": identification among everybody, and verification of one person.

import * as api from './api.js';
import { Capture } from './capture.js';
import { announce, byId, icon, made, make, reveal } from './dom.js';
import { percent, say } from './language.js';
import { showError } from './problem.js';
import { makeScale, round } from './scale.js';
import { service } from './service.js';

const MAX_SECONDS = 6;
const NUM_SUGGESTIONS = 20;
const TYPING_PAUSE_MS = 200;

let capture;
let asked = 0; // answers to older questions are not shown

export function set() {
  capture = new Capture(byId('recognise-capture'), {
    title: ['recognise_capture', {}],
    maxSeconds: MAX_SECONDS,
    maxBytes: () => service.maxUploadBytes,
  });
  capture.addEventListener('change', () => {
    byId('recognise-result').replaceChildren();
    ask();
  });
  byId('question').addEventListener('change', () => {
    byId('claimed').hidden = question() !== 'verify';
    byId('recognise-result').replaceChildren();
    ask();
  });
  byId('strictness').addEventListener('change', () => ask());
  const name = byId('claimed-name');
  name.addEventListener('change', () => ask());
  let typing;
  name.addEventListener('input', () => {
    clearTimeout(typing);
    typing = setTimeout(suggestNames, TYPING_PAUSE_MS);
  });
}

export async function show() {
  say(byId('strict'), 'strict', { threshold: round(service.strictThreshold) });
  say(byId('balanced'), 'balanced', { threshold: round(service.threshold) });
  byId('recognise-empty').hidden = service.numSpeakers > 0;
  await suggestNames();
}

const question = () => document.querySelector('input[name=question]:checked').value;

function threshold() {
  const isStrict = document.querySelector('input[name=strictness]:checked').value === 'strict';
  return isStrict ? service.strictThreshold : service.threshold;
}

async function suggestNames() {
  const { speakers } = await api.speakers(byId('claimed-name').value.trim(), 0, NUM_SUGGESTIONS);
  byId('known-names').replaceChildren(...speakers.map(({ name }) => make('option', { value: name })));
}

/** Asks the service about the recording that is there. */
async function ask() {
  const { recording } = capture;
  const claimed = byId('claimed-name').value.trim();
  const isVerification = question() === 'verify';
  if (!recording) return;
  if (isVerification && !claimed) {
    byId('recognise-result').replaceChildren(made('p', 'hint', 'claimed_missing'));
    return;
  }
  asked += 1;
  const mine = asked;
  showError(capture.parts.error, null);
  try {
    const request = isVerification
      ? api.verify(claimed, recording, threshold())
      : api.identify(recording, threshold());
    const answer = await capture.during(request);
    if (mine !== asked || recording !== capture.recording) return;
    capture.showQuality(answer.quality);
    showAnswer(isVerification ? verification(answer) : identification(answer));
  } catch (error) {
    if (mine !== asked || recording !== capture.recording) return;
    byId('recognise-result').replaceChildren();
    capture.fail(error);
    if (error instanceof api.ServiceError && error.code === 'bad-recording') await explain();
  }
}

/** After a recording was refused: what is wrong with it. */
async function explain() {
  const { error } = capture.parts;
  const kept = [...error.childNodes];
  await capture.checkQuality();
  error.replaceChildren(...kept);
  error.hidden = false;
}

function verification(answer) {
  return {
    ...answer,
    isMatch: answer.is_same_speaker,
    title: [answer.is_same_speaker ? 'verified' : 'verified_not', { name: answer.name }],
    rows: [answer],
  };
}

function identification(answer) {
  const [best] = answer.matches;
  return {
    ...answer,
    isMatch: answer.name !== null,
    title: answer.name === null ? ['identified_nobody', {}] : ['identified', { name: answer.name }],
    rows: answer.matches,
    probability: best?.probability,
  };
}

function showAnswer({ isMatch, title, rows, score, threshold: limit, probability }) {
  const card = make('div', { class: `card verdict ${isMatch ? 'match' : 'refused'}` });
  const heading = make('h2', {}, icon(isMatch ? 'check' : 'cross'), made('span', '', ...title));
  card.append(heading);
  if (rows.length) {
    const values = { score: round(score), threshold: round(limit), percent: percent(probability) };
    const isLikely = probability > 0.5; // and yet refused: the strict threshold wants more
    const words = isMatch ? 'verdict_same' : isLikely ? 'verdict_uncertain' : 'verdict_different';
    card.append(made('p', '', words, values));
    if (rows.length > 1) card.append(made('h3', '', 'closest'));
    card.append(
      makeScale(
        limit,
        rows.map((row) => ({ ...row, probability: percent(row.probability) })),
      ),
      made('p', 'hint', 'probability_note'),
    );
  } else {
    card.append(made('p', '', 'identified_none'));
  }
  byId('recognise-result').replaceChildren(card);
  announce(...title);
  reveal(card);
}
