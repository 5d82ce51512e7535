// A recording's quality as the service measured it: four figures, and what to do better.

import { icon, made, make } from './dom.js';
import { STRINGS } from './strings.js';
import { t } from './language.js';

/** The service's warnings, each with the figure that it is about. */
const FIGURES = [
  ['short', 'quality_speech', (q) => t('quality_seconds', { seconds: q.speech_s.toFixed(1) })],
  ['quiet', 'quality_level', (q) => decibels(q.level_dbfs)],
  ['clipped', 'quality_clipping', clipping],
  ['noisy', 'quality_noise', noise],
];

const GOOD_SPEECH_S = 3;

function decibels(level) {
  return level === null ? '–' : t('quality_dbfs', { level: Math.round(level).toString().replace('-', '−') });
}

function clipping(q) {
  if (q.clipped_fraction === 0) return t('quality_none');
  return t('quality_percent', { percent: Math.max(0.1, 100 * q.clipped_fraction).toFixed(1) });
}

function noise(q) {
  if (q.snr_db === null || q.snr_db === undefined) return decibels(q.noise_dbfs);
  return t('quality_snr', { snr: Math.round(q.snr_db) });
}

/** What to advise on a recording: first that nobody speaks, then the service's warnings. */
export function adviceCodes(quality) {
  return quality.heard === 'speech' ? quality.warnings : ['no_speech', ...quality.warnings];
}

/** Shows a quality in an element. */
export function showQuality(element, quality) {
  const codes = adviceCodes(quality);
  const warned = new Set(codes);
  const list = make('dl', { class: 'quality' });
  for (const [code, name, value] of FIGURES) {
    const isPoor = warned.delete(code);
    const mark = icon(isPoor ? 'warning' : 'check');
    list.append(
      make(
        'div',
        { class: isPoor ? 'poor' : 'good' },
        make('dt', {}, mark, made('span', '', name)),
        make(
          'dd',
          {},
          made('span', '', 'echo', { text: () => value(quality) }),
          made('span', 'unseen', isPoor ? 'quality_poor' : 'quality_good'),
        ),
      ),
    );
  }
  element.replaceChildren(list);
  if (codes.length) {
    const advice = make('ul', { class: 'advice' });
    for (const code of codes) advice.append(made('li', '', ...adviceFor(code)));
    element.append(advice);
  }
  element.hidden = false;
}

/** Key and values of the advice on a code. */
export function adviceFor(code) {
  const key = `advice_${code}`;
  return key in STRINGS.en ? [key, { seconds: GOOD_SPEECH_S }] : ['advice_other', { code }];
}
