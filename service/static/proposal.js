// What a calibration found: a picture, sentences, and how to apply it.

import { button, made, make } from './dom.js';
import { label, t } from './language.js';
import { makeRateChart, signOf } from './rate_chart.js';
import { round } from './scale.js';
import { saveFile } from './turns.js';

const FILE_NAME = 'calibration.json';
const NAMES = { strict: 'calibrate_strict', balanced: 'calibrate_balanced' };

/** A rate in words: two digits that count. */
const rate = (fraction) => () => t('probability_is', { percent: String(Number((100 * fraction).toPrecision(2))) });

const nameOf = (key) => () => t(NAMES[key]);

/**
 * Shows a proposal.
 *
 * @param {HTMLElement} place Is filled.
 * @param {object} proposal Of POST /v1/calibrations.
 * @returns {HTMLElement} The heading.
 */
export function showProposal(place, proposal) {
  const { strict, default: balanced } = proposal;
  const heading = made('h2', '', 'calibrate_found');
  heading.tabIndex = -1;
  place.replaceChildren(
    make(
      'div',
      { class: 'card' },
      heading,
      certainty(proposal),
      picture(proposal),
      legend(proposal),
      ...advice('strict', strict),
      ...advice('balanced', balanced),
    ),
    application(proposal),
  );
  return heading;
}

function certainty({ num_people: people, confidence, strict }) {
  const [, , limit] = strict.false_accepts;
  return made('p', '', strict.is_promised ? 'calibrate_promised' : 'calibrate_too_few', {
    people, promised: rate(strict.promised), limit: rate(limit), confidence: 100 * confidence,
  });
}

const isChanged = ({ in_use: used, proposed }) => used !== proposed;

/** The lines of the picture that stand for thresholds: what is proposed, and what is in use if that differs. */
const marksOf = ({ strict, default: balanced }) =>
  [['strict', strict], ['balanced', balanced]].flatMap(([name, found]) => [
    { name, threshold: found.proposed, kind: `mark ${name}`, words: 'calibrate_line' },
    ...(isChanged(found)
      ? [{ name, threshold: found.in_use, kind: 'mark used', words: 'calibrate_line_used' }]
      : []),
  ]);

function picture(proposal) {
  const { curve, strict, default: balanced } = proposal;
  const chart = makeRateChart(curve, marksOf(proposal));
  label(chart.firstChild, 'calibrate_chart', {
    strict: round(strict.proposed),
    strict_wrong: rate(strict.false_accepts[0]),
    strict_missed: rate(strict.misses[0]),
    balanced: round(balanced.proposed),
    balanced_wrong: rate(balanced.false_accepts[0]),
    balanced_missed: rate(balanced.misses[0]),
  });
  return make('div', {}, chart, made('p', 'hint chart-x', 'calibrate_chart_x'));
}

function legend(proposal) {
  const rows = [
    ['wrong', 'calibrate_wrong'],
    ['missed', 'calibrate_missed'],
    ...marksOf(proposal).map(({ name, threshold, kind, words }) => [
      kind, words, { name: nameOf(name), threshold: round(threshold) },
    ]),
  ];
  const items = rows.map(([kind, ...words]) => make('li', {}, signOf(kind), made('span', '', ...words)));
  const bands = made('li', '', 'calibrate_bands', { confidence: 100 * proposal.confidence });
  return make('ul', { class: 'signs hint' }, ...items, bands);
}

/** What to do with a threshold, and what it leads to. */
function advice(name, found) {
  const { in_use: used, proposed, promised } = found;
  let words = 'calibrate_keep';
  if (proposed > used) words = 'calibrate_raise';
  else if (proposed < used) words = 'calibrate_lower';
  else if (found.found < used) words = 'calibrate_keep_few';
  const values = {
    name: nameOf(name), used: round(used), proposed: round(proposed), found: round(found.found), promised: rate(promised),
  };
  const [wrong, , wrongLimit] = found.false_accepts;
  const [missed, , missedLimit] = found.misses;
  const rates = {
    wrong: rate(wrong), wrong_limit: rate(wrongLimit), missed: rate(missed), missed_limit: rate(missedLimit),
  };
  return [make('div', {}, made('p', 'advice-head', words, values), made('p', 'hint', 'calibrate_rates', rates))];
}

function application({ strict, default: balanced, file, commands }) {
  const card = make('div', { class: 'card' }, made('h2', '', 'calibrate_apply'));
  if (!isChanged(strict) && !isChanged(balanced)) {
    card.append(made('p', '', 'calibrate_nothing'));
    return card;
  }
  const save = () => saveFile(FILE_NAME, 'application/json', `${JSON.stringify(file, null, 1)}\n`);
  card.append(
    made('p', '', 'calibrate_apply_text'),
    make('div', { class: 'buttons' }, button('calibrate_save', save, { className: 'primary' })),
    make('pre', { class: 'code' }, commands.join('\n')),
  );
  return card;
}
