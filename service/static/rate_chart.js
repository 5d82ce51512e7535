// Error rates against the threshold, with their limits: two lines with bands, and the thresholds.
//
// What is stretched to the width is drawn in a box of its own, without words.

import { make, makeSvg } from './dom.js';
import { say } from './language.js';

const LOW = -4; // 0.01 %: fewer are drawn at the edge
const RATE_TICKS = [1, 0.1, 0.01, 0.001, 0.0001];
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10];
const MOST_TICKS = 7;
const SIZE = 1000; // of the box

const down = (rate) => Math.min(1, Math.max(0, Math.log10(Math.max(rate, 1e-9)) / LOW));
const percent = (share) => `${(100 * share).toFixed(2)}%`;

/**
 * Draws a curve.
 *
 * @param {object} curve Of POST /v1/calibrations.
 * @param {{ threshold: number, kind: string }[]} marks Thresholds, each with the class of its line.
 */
export function makeRateChart({ thresholds, false_accepts: accepts, misses }, marks) {
  const [low, high] = [thresholds[0], thresholds.at(-1)];
  const across = (threshold) => (threshold - low) / (high - low);
  const point = (i, rate) => `${(SIZE * across(thresholds[i])).toFixed(1)} ${(SIZE * down(rate)).toFixed(1)}`;
  const trace = (rates, column) => rates.map((row, i) => point(i, row[column]));
  const line = (rates) => `M${trace(rates, 0).join('L')}`;
  const band = (rates) => `M${[...trace(rates, 1), ...trace(rates, 2).reverse()].join('L')}Z`;
  const box = makeSvg(
    'svg',
    { viewBox: `0 0 ${SIZE} ${SIZE}`, preserveAspectRatio: 'none', width: '100%', height: '100%' },
    makeSvg('path', { class: 'band wrong', d: band(accepts) }),
    makeSvg('path', { class: 'band missed', d: band(misses) }),
    makeSvg('path', { class: 'line missed', d: line(misses) }),
    makeSvg('path', { class: 'line wrong', d: line(accepts) }),
  );
  const picture = makeSvg('svg', { role: 'img' });
  for (const rate of RATE_TICKS) {
    const y = percent(down(rate));
    picture.append(
      makeSvg('line', { class: 'grid', x1: 0, x2: '100%', y1: y, y2: y }),
      say(makeSvg('text', { x: -6, y, dy: '0.35em', 'text-anchor': 'end' }), 'probability_is', { percent: String(100 * rate) }),
    );
  }
  for (const tick of ticksBetween(low, high)) {
    const x = percent(across(tick));
    picture.append(makeSvg('text', { x, y: '100%', dy: '1.4em', 'text-anchor': 'middle' }, String(tick)));
  }
  picture.append(box);
  for (const { threshold, kind } of marks) {
    const x = percent(across(threshold));
    picture.append(makeSvg('line', { class: `mark ${kind}`, x1: x, x2: x, y1: 0, y2: '100%' }));
  }
  return make('div', { class: 'chart' }, picture);
}

function ticksBetween(low, high) {
  const step = STEPS.find((each) => (high - low) / each <= MOST_TICKS) ?? high - low;
  const first = Math.ceil(low / step);
  const count = Math.floor(high / step) - first + 1;
  return Array.from({ length: count }, (_, i) => Number(((first + i) * step).toFixed(1)));
}

/** A line as the chart has it, for its legend. */
export function signOf(kind) {
  return makeSvg(
    'svg',
    { class: `sign-line ${kind}`, 'aria-hidden': 'true' },
    makeSvg('line', { x1: 0, x2: '100%', y1: '50%', y2: '50%' }),
  );
}
