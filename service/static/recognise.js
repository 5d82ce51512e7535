// "Who is speaking?": identification among everybody, and verification of one person.

import * as api from './api.js';
import { Capture } from './capture.js';
import { announce, byId, icon, made, make, reveal } from './dom.js';
import { percent, say } from './language.js';
import { showError } from './problem.js';
import { showRates } from './rates.js';
import { makeScale, round } from './scale.js';
import { service } from './service.js';

const MAX_SECONDS = 6;
const NUM_SUGGESTIONS = 20;
const TYPING_PAUSE_MS = 200;

/** Style, icon and words of each outcome, and its titles. */
const OUTCOMES = {
  same: ['match', 'check', 'verdict_same'],
  perhaps: ['unsure', 'warning', 'verdict_uncertain'],
  different: ['refused', 'cross', 'verdict_different'],
};
const IDENTIFIED = { same: 'identified', perhaps: 'identified_perhaps', different: 'identified_nobody' };
const VERIFIED = { same: 'verified', perhaps: 'verified_perhaps', different: 'verified_not' };

let capture;
let asked = 0; // answers to older questions are not shown
const answers = new Map(); // of this recording: question -> { isVerification, answer }

export function set() {
  capture = new Capture(byId('recognise-capture'), {
    title: ['recognise_capture', {}],
    maxSeconds: MAX_SECONDS,
    maxBytes: () => service.maxUploadBytes,
  });
  capture.addEventListener('change', () => {
    answers.clear();
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
  answers.clear(); // others may be enrolled now
  say(byId('strict'), 'strict', { threshold: round(service.strictThreshold) });
  say(byId('balanced'), 'balanced', { threshold: round(service.threshold) });
  byId('rates').hidden = service.rates.length < 2; // of some models nothing was measured
  if (service.rates.length === 2) showRates(byId('rates-chart'), service.rates);
  byId('recognise-empty').hidden = service.numSpeakers > 0;
  await suggestNames();
}

const claimedName = () => byId('claimed-name').value.trim();
const question = () => document.querySelector('input[name=question]:checked').value;

function threshold() {
  const isStrict = document.querySelector('input[name=strictness]:checked').value === 'strict';
  return isStrict ? service.strictThreshold : service.threshold;
}

async function suggestNames() {
  const found = await api.ifAllowed(api.speakers(claimedName(), 0, NUM_SUGGESTIONS));
  const speakers = found?.speakers ?? [];
  byId('known-names').replaceChildren(...speakers.map(({ name }) => make('option', { value: name })));
}

/**
 * Shows the answer about the recording that is there, and asks the service for it only once: another
 * threshold judges the score that is there, since asking again would count as an attempt to verify.
 */
async function ask() {
  const { recording } = capture;
  const claimed = claimedName();
  const isVerification = question() === 'verify';
  asked += 1;
  if (!recording) return;
  if (isVerification && !claimed) {
    byId('recognise-result').replaceChildren(made('p', 'hint', 'claimed_missing'));
    return;
  }
  const key = isVerification ? `verify ${claimed}` : 'identify';
  if (answers.has(key)) {
    showAnswer(answers.get(key));
    return;
  }
  const mine = asked;
  showError(capture.parts.error, null);
  try {
    const request = isVerification
      ? api.verify(claimed, recording, threshold())
      : api.identify(recording, threshold());
    const answer = await capture.during(request);
    if (mine !== asked || recording !== capture.recording) return;
    capture.showQuality(answer.quality);
    answers.set(key, { isVerification, answer });
    showAnswer(answers.get(key));
  } catch (error) {
    if (mine !== asked || recording !== capture.recording) return;
    byId('recognise-result').replaceChildren();
    capture.fail(error);
    if (error instanceof api.ServiceError && error.code === 'bad-recording') await capture.explain();
  }
}

/** What an answer means at the threshold that is chosen now: same, perhaps or different. */
function judge({ isVerification, answer }) {
  const rows = isVerification ? [answer] : answer.matches;
  const [best] = rows;
  const limit = threshold();
  let outcome = 'different';
  if (best?.score >= limit) outcome = 'same';
  else if (best?.probability > 0.5) outcome = 'perhaps'; // and yet refused: the threshold wants more
  return { rows, best, limit, outcome, titles: isVerification ? VERIFIED : IDENTIFIED };
}

function showAnswer(answered) {
  const { rows, best, limit, outcome, titles } = judge(answered);
  const [style, iconName, words] = OUTCOMES[outcome];
  const title = [titles[outcome], { name: best?.name }];
  const card = make('div', { class: `card verdict ${style}` });
  card.append(make('h2', {}, icon(iconName), made('span', '', ...title)));
  if (rows.length) {
    const values = { score: round(best.score), threshold: round(limit), percent: percent(best.probability) };
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
