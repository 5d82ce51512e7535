// "Who is speaking?": identification among everybody, and verification of one person.

import * as api from './api.js';
import { Capture, abandonRecording } from './capture.js';
import { Challenge } from './challenge.js';
import { announce, byId, icon, made, make, reveal } from './dom.js';
import { percent, say } from './language.js';
import { showError, showWords } from './problem.js';
import { showRates } from './rates.js';
import { makeScale, round } from './scale.js';
import { service } from './service.js';

const MAX_SECONDS = 6;
const MAX_CHALLENGE_SECONDS = 12;
const KEPT = ['not-read', 'bad-recording', 'too-many-requests', 'busy']; // codes: the digits still count
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
const challenge = new Challenge();
let asked = 0; // answers to older questions are not shown
const answers = new Map(); // of this recording: question -> { isVerification, answer }

export function set() {
  capture = new Capture(byId('recognise-capture'), {
    title: ['recognise_capture', {}],
    maxSeconds: MAX_SECONDS,
    maxBytes: () => service.maxUploadBytes,
  });
  capture.addEventListener('begin', askForDigits);
  capture.addEventListener('change', () => {
    answers.clear();
    byId('recognise-result').replaceChildren();
    ask();
  });
  byId('question').addEventListener('change', () => {
    byId('claimed').hidden = question() !== 'verify';
    byId('recognise-result').replaceChildren();
    showChallenge();
    ask();
  });
  byId('with-challenge').addEventListener('change', () => {
    capture.reset(); // of digits that are asked for from now on, it can't be
    answers.clear();
    byId('recognise-result').replaceChildren();
    showChallenge();
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
  showChallenge();
  await suggestNames();
}

/** Leaves the digits alone where the view is left. */
export function leave() {
  challenge.drop();
}

/** Whether the recording has to be of digits that are shown. */
const isChallenged = () => question() === 'verify' && byId('with-challenge').checked;

/** Shows whether digits may be asked for, and what follows from it for the recording. */
function showChallenge() {
  const isPossible = service.challenge !== 'off';
  const box = byId('with-challenge');
  byId('challenge-choice').hidden = byId('challenge-hint').hidden = !isPossible;
  box.disabled = service.challenge === 'required';
  box.checked = isPossible && (box.checked || box.disabled);
  if (!isChallenged()) challenge.drop();
  capture.maxSeconds = isChallenged() ? MAX_CHALLENGE_SECONDS : MAX_SECONDS;
  capture.allowFiles(!isChallenged());
}

/** A recording begins: what it is to be of. */
async function askForDigits() {
  if (!isChallenged()) return;
  let failure = null;
  await null; // from here on, the recording can be given up
  if (claimedName()) {
    try {
      await challenge.ask(claimedName());
    } catch (error) {
      failure = error;
    }
  }
  if (challenge.id !== undefined) return;
  if (failure) capture.fail(failure);
  else showWords(capture.parts.error, 'claimed_missing');
  abandonRecording();
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
  if (isChallenged() && challenge.id === undefined) {
    showWords(capture.parts.error, 'challenge_over');
    return;
  }
  const mine = asked;
  showError(capture.parts.error, null);
  try {
    const request = isVerification
      ? api.verify(claimed, recording, threshold(), isChallenged() ? challenge.id : undefined)
      : api.identify(recording, threshold());
    const answer = await capture.during(request);
    if (isVerification) challenge.drop();
    if (mine !== asked || recording !== capture.recording) return;
    capture.showQuality(answer.quality);
    answers.set(key, { isVerification, answer });
    showAnswer(answers.get(key));
  } catch (error) {
    if (mine !== asked || recording !== capture.recording) return;
    byId('recognise-result').replaceChildren();
    capture.fail(error);
    if (isVerification && !KEPT.includes(error.code)) challenge.drop();
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
    if (answered.answer.challenge_passed) card.append(made('p', 'good', 'challenge_passed'));
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
