// What the thresholds promise, and what they led to where they were found: rates on a scale of powers of ten.

import { made, make, makeSvg } from './dom.js';
import { label, say } from './language.js';
import { round } from './scale.js';

const PROMISES = [0.003, 0.05]; // of the strict threshold and of the other: strangers taken for somebody
const LOW = -4; // 0.01 %: fewer are drawn at the edge
const TICKS = [0.0001, 0.001, 0.01, 0.1, 1];
const DOT = 6; // pixels

const position = (rate) => `${(100 * Math.min(1, Math.max(0, (Math.log10(rate) - LOW) / -LOW))).toFixed(2)}%`;

/** A rate in print, in per cent. */
const percent = (rate) => (100 * rate).toFixed(rate < 0.01 ? 2 : 1);

function lane(rates, promise) {
  const svg = makeSvg(
    'svg',
    { class: 'lane rates-lane', role: 'img' },
    makeSvg('rect', { class: 'same', x: 0, y: 0, width: position(promise), height: '100%', rx: 3 }),
    makeSvg('line', { class: 'track', x1: '0%', x2: '100%', y1: 14, y2: 14 }),
    makeSvg('line', { class: 'threshold', x1: position(promise), x2: position(promise), y1: 0, y2: 28 }),
    makeSvg('line', { class: 'spread', x1: position(rates.false_accept_rate), x2: position(rates.worst_rate), y1: 14, y2: 14 }),
    makeSvg('circle', { class: 'wrong', cx: position(rates.false_accept_rate), cy: 14, r: DOT }),
    makeSvg('circle', { class: 'worst', cx: position(rates.worst_rate), cy: 14, r: DOT }),
    makeSvg('circle', { class: 'missed', cx: position(rates.miss_rate), cy: 14, r: DOT }),
  );
  return label(svg, 'rates_lane', valuesOf(rates, promise));
}

const valuesOf = (rates, promise) => ({
  threshold: round(rates.threshold),
  promise: percent(promise),
  wrong: percent(rates.false_accept_rate),
  worst: percent(rates.worst_rate),
  missed: percent(rates.miss_rate),
  pairs: rates.num_trials,
});

function axis() {
  const svg = makeSvg('svg', { class: 'axis rates-axis', 'aria-hidden': 'true' });
  for (const tick of TICKS) {
    const x = position(tick);
    const anchor = { [TICKS[0]]: 'start', [TICKS.at(-1)]: 'end' }[tick] ?? 'middle';
    svg.append(
      makeSvg('line', { class: 'tick', x1: x, x2: x, y1: 0, y2: 5 }),
      say(makeSvg('text', { x, y: '1.6em', 'text-anchor': anchor }), 'probability_is', { percent: String(100 * tick) }),
    );
  }
  return svg;
}

/**
 * Draws the rates of the thresholds.
 *
 * @param {HTMLElement} place Is filled.
 * @param {object[]} all Of GET /v1/info: the strict threshold's, then the other's.
 */
export function showRates(place, all) {
  const rows = all.map((rates, i) =>
    make('li', {}, made('p', '', i === 0 ? 'rates_strict' : 'rates_balanced', valuesOf(rates, PROMISES[i])), lane(rates, PROMISES[i])),
  );
  const signs = ['wrong', 'worst', 'missed'].map((sign) =>
    make('li', {}, make('i', { class: `sign ${sign}`, 'aria-hidden': 'true' }), made('span', '', `rates_${sign}`)),
  );
  place.replaceChildren(
    make('ul', { class: 'rates' }, ...rows),
    axis(),
    make('ul', { class: 'signs hint' }, ...signs),
    made('p', 'hint', 'rates_note', { pairs: all[0].num_trials.toLocaleString('en') }),
  );
}
