// Scores against the threshold, on a scale: an SVG lane a score, the axis below.
//
// Positions are percentages, so the picture fits any width and its text is never stretched.

import { made, make, makeSvg } from './dom.js';
import { label, say } from './language.js';

const LOW = -0.2; // two strangers hardly ever score less; what does is drawn at the edge
const HIGH = 1;
const STEP = 0.2;
const STEPS = [STEP, 0.5, 1, 2, 5, 10, 20];
const MOST_TICKS = 6;
const CLOSE = 0.05; // of the width: a tick so close to the threshold's line would be crossed by it

const percent = (share) => `${(100 * share).toFixed(2)}%`;

/** A scale for cosines, or wider: normalised scores have no bounds. */
class Scale {
  constructor(values) {
    const isWide = Math.max(...values) > HIGH; // a cosine is not
    this.low = isWide ? Math.min(LOW, Math.floor(Math.min(...values))) : LOW;
    this.high = isWide ? Math.ceil(Math.max(...values)) : HIGH;
  }

  fraction(score) {
    return Math.min(1, Math.max(0, (score - this.low) / (this.high - this.low)));
  }

  position(score) {
    return percent(this.fraction(score));
  }

  get ticks() {
    const span = this.high - this.low;
    const step = STEPS.find((each) => span / each <= MOST_TICKS + 1e-9) ?? span;
    const first = Math.floor(this.low / step + 1e-9) + 1; // none at the left edge
    const last = Math.floor(this.high / step + 1e-9);
    return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toFixed(1)));
  }
}

/** A score or threshold in print. */
export function round(score) {
  return score.toFixed(2).replace('-', '−');
}

function lane(scale, score, threshold) {
  const isAbove = score >= threshold;
  return makeSvg(
    'svg',
    { class: `lane ${isAbove ? 'above' : 'below'}`, role: 'img' },
    makeSvg('rect', {
      class: 'same', x: scale.position(threshold), y: 0, width: percent(1 - scale.fraction(threshold)), height: '100%', rx: 3,
    }),
    makeSvg('line', { class: 'track', x1: '0%', x2: '100%', y1: 14, y2: 14 }),
    makeSvg('line', { class: 'stem', x1: scale.position(0), x2: scale.position(score), y1: 14, y2: 14 }),
    makeSvg('line', { class: 'threshold', x1: scale.position(threshold), x2: scale.position(threshold), y1: 0, y2: 28 }),
    makeSvg('circle', { class: 'dot', cx: scale.position(score), cy: 14, r: 6 }),
  );
}

function axis(scale, threshold) {
  const svg = makeSvg('svg', { class: 'axis', 'aria-hidden': 'true' });
  const isFree = (tick) => Math.abs(scale.fraction(tick) - scale.fraction(threshold)) > CLOSE;
  for (const tick of scale.ticks.filter(isFree)) {
    const x = scale.position(tick);
    const anchor = tick === scale.high ? 'end' : 'middle';
    svg.append(
      makeSvg('line', { class: 'tick', x1: x, x2: x, y1: 0, y2: 5 }),
      makeSvg('text', { x, y: '1.6em', 'text-anchor': anchor }, String(tick)),
    );
  }
  const x = scale.position(threshold);
  const words = makeSvg('text', { class: 'threshold-text', x, y: '3.2em', 'text-anchor': 'middle' });
  svg.append(
    makeSvg('line', { class: 'threshold', x1: x, x2: x, y1: 0, y2: '2.1em' }),
    say(words, 'scale_threshold', { threshold: round(threshold) }),
  );
  return svg;
}

/**
 * Draws scores on one scale.
 *
 * @param {number} threshold
 * @param {{ name: string | () => string, score: number, probability?: () => string }[]} rows
 * @returns {HTMLElement}
 */
export function makeScale(threshold, rows) {
  const scale = new Scale([threshold, ...rows.map(({ score }) => score)]);
  const list = make('ul', { class: 'rows' });
  for (const row of rows) {
    const picture = lane(scale, row.score, threshold);
    label(picture, 'scale_row', {
      name: row.name, score: round(row.score), threshold: round(threshold),
    });
    const figures = make('span', { class: 'figures' }, make('b', {}, round(row.score)));
    if (row.probability) figures.append(' ', made('small', '', 'echo', { text: row.probability }));
    list.append(
      make('li', {}, made('span', 'who', 'echo', { text: row.name }), picture, figures),
    );
  }
  return make('div', { class: 'scale' }, list, make('div', { class: 'axis-row' }, axis(scale, threshold)));
}
