// "Is it the same person?": two recordings against each other.

import * as api from './api.js';
import { Capture } from './capture.js';
import { announce, byId, icon, made, make, reveal } from './dom.js';
import { percent, t } from './language.js';
import { makeScale, round } from './scale.js';
import { service } from './service.js';
import { showError } from './problem.js';

const MAX_SECONDS = 6;

let captures = [];

export function set() {
  captures = ['compare_first', 'compare_second'].map((key) => {
    const capture = new Capture(byId('compare-pair'), {
      title: [key, {}],
      showTitle: true,
      maxSeconds: MAX_SECONDS,
      maxBytes: () => service.maxUploadBytes,
    });
    capture.addEventListener('change', () => ask(capture));
    return capture;
  });
}

export function show() {}

async function ask(changed) {
  const place = byId('compare-result');
  place.replaceChildren();
  const of = captures.map((capture) => capture.recording);
  const isCurrent = () => captures.every((capture, i) => capture.recording === of[i]);
  if (of.includes(null)) {
    if (changed.recording) await changed.checkQuality();
    return;
  }
  try {
    const answer = await captures[1].during(captures[0].during(api.compare(...of)));
    if (!isCurrent()) return;
    captures.forEach((capture, i) => capture.showQuality(answer.quality[i]));
    place.replaceChildren(verdict(answer));
    reveal(place.firstChild);
  } catch (error) {
    if (!isCurrent()) return;
    const problem = make('div', { class: 'notice error', role: 'alert' });
    place.replaceChildren(problem);
    showError(problem, error);
    await Promise.all(captures.map((capture) => capture.checkQuality()));
  }
}

function verdict({ score, threshold, is_same_speaker: isSame, probability }) {
  const title = isSame ? 'compared_same' : 'compared_different';
  const values = { score: round(score), threshold: round(threshold), percent: percent(probability) };
  announce(title);
  return make(
    'div',
    { class: `card verdict ${isSame ? 'match' : 'refused'}` },
    make('h2', {}, icon(isSame ? 'check' : 'cross'), made('span', '', title)),
    made('p', '', isSame ? 'verdict_same' : 'verdict_different', values),
    makeScale(threshold, [{ name: () => t('compare_row'), score, probability: percent(probability) }]),
    made('p', 'hint', 'probability_note'),
  );
}
