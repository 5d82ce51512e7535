// Scores against the threshold, on a scale: an SVG lane a score, the axis below.
//
// Positions are percentages, so the picture fits any width and its text is never stretched.

import { made, make, makeSvg } from './dom.js';
import { label, say } from './language.js';

const LOW = -0.2; // two strangers hardly ever score less; what does is drawn at the edge
const HIGH = 1;
const TICKS = [0, 0.2, 0.4, 0.6, 0.8, 1];
const CLOSE = 0.06; // a tick so close to the threshold's line would be crossed by it

const fraction = (score) => Math.min(1, Math.max(0, (score - LOW) / (HIGH - LOW)));
const percent = (share) => `${(100 * share).toFixed(2)}%`;
const position = (score) => percent(fraction(score));

/** A score or threshold in print. */
export function round(score) {
  return score.toFixed(2).replace('-', '−');
}

function lane(score, threshold) {
  const isAbove = score >= threshold;
  return makeSvg(
    'svg',
    { class: `lane ${isAbove ? 'above' : 'below'}`, role: 'img' },
    makeSvg('rect', {
      class: 'same', x: position(threshold), y: 0, width: percent(1 - fraction(threshold)), height: '100%', rx: 3,
    }),
    makeSvg('line', { class: 'track', x1: '0%', x2: '100%', y1: 14, y2: 14 }),
    makeSvg('line', { class: 'stem', x1: position(0), x2: position(score), y1: 14, y2: 14 }),
    makeSvg('line', { class: 'threshold', x1: position(threshold), x2: position(threshold), y1: 0, y2: 28 }),
    makeSvg('circle', { class: 'dot', cx: position(score), cy: 14, r: 6 }),
  );
}

function axis(threshold) {
  const svg = makeSvg('svg', { class: 'axis', 'aria-hidden': 'true' });
  for (const tick of TICKS.filter((value) => Math.abs(value - threshold) > CLOSE)) {
    const x = position(tick);
    const anchor = tick === HIGH ? 'end' : 'middle';
    svg.append(
      makeSvg('line', { class: 'tick', x1: x, x2: x, y1: 0, y2: 5 }),
      makeSvg('text', { x, y: '1.6em', 'text-anchor': anchor }, String(tick)),
    );
  }
  const x = position(threshold);
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
  const list = make('ul', { class: 'rows' });
  for (const row of rows) {
    const picture = lane(row.score, threshold);
    label(picture, 'scale_row', {
      name: row.name, score: round(row.score), threshold: round(threshold),
    });
    const figures = make('span', { class: 'figures' }, make('b', {}, round(row.score)));
    if (row.probability) figures.append(' ', made('small', '', 'echo', { text: row.probability }));
    list.append(
      make('li', {}, made('span', 'who', 'echo', { text: row.name }), picture, figures),
    );
  }
  return make('div', { class: 'scale' }, list, make('div', { class: 'axis-row' }, axis(threshold)));
}
