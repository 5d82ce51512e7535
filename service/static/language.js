// The page's language: chosen by the browser's, switched by hand, remembered.
//
// Static text carries its key in the page: data-t (content), data-t-label (aria-label).
// Text that a script sets goes through say() and label(), which remember key and values, so that a
// switch of the language changes every word in place and no recording or result is lost.

import { STRINGS } from './strings.js';

const STORAGE_KEY = 'voiceprint.language';
const HTML_LANGUAGE = { en: 'en', zh: 'zh-CN' };
const DATE_STYLE = { en: 'en-GB', zh: 'zh-CN' }; // day, month, year, and 24 hours

/** Values of each element's text and label: Element -> { text, label }. */
const remembered = new WeakMap();

let current = chosen();

/** @returns {'en' | 'zh'} */
export function language() {
  return current;
}

function chosen() {
  try {
    const stored = localStorage.getItem(STORAGE_KEY);
    if (stored in STRINGS) return stored;
  } catch {
    // Storage is forbidden: the browser's language it is.
  }
  const wanted = navigator.languages.map((tag) => tag.toLowerCase().split('-')[0]);
  return wanted.find((tag) => tag in STRINGS) ?? 'en';
}

/**
 * Returns a text in the current language.
 *
 * @param {string} key One of strings.js.
 * @param {Object<string, unknown>} values For {names} in it; functions are called, so that dates and
 *   nested texts follow the language too.
 */
export function t(key, values = {}) {
  const template = STRINGS[current][key];
  if (template === undefined) throw new Error(`no text ${key}`);
  return template.replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name];
    return String(typeof value === 'function' ? value() : value);
  });
}

/** Sets an element's text, and keeps it translated. Shows the element if it was hidden. */
export function say(element, key, values = {}) {
  element.dataset.t = key;
  remembered.set(element, { ...remembered.get(element), text: values });
  element.textContent = t(key, values);
  element.hidden = false;
  return element;
}

/** Sets an element's aria-label, and keeps it translated. */
export function label(element, key, values = {}) {
  element.dataset.tLabel = key;
  remembered.set(element, { ...remembered.get(element), label: values });
  element.setAttribute('aria-label', t(key, values));
  return element;
}

/** Translates everything below (and including) an element. */
export function translate(root = document.documentElement) {
  for (const element of root.querySelectorAll('[data-t]')) {
    element.textContent = t(element.dataset.t, remembered.get(element)?.text);
  }
  for (const element of root.querySelectorAll('[data-t-label]')) {
    element.setAttribute('aria-label', t(element.dataset.tLabel, remembered.get(element)?.label));
  }
}

/** Says a page's language to the browser, and translates it. */
export function showLanguage() {
  document.documentElement.lang = HTML_LANGUAGE[current];
  translate();
}

export function switchLanguage() {
  current = current === 'en' ? 'zh' : 'en';
  try {
    localStorage.setItem(STORAGE_KEY, current);
  } catch {
    // Not remembered, then.
  }
  showLanguage();
}

/** The language that the switch leads to, as its button names it. */
export function otherLanguageTag() {
  return HTML_LANGUAGE[current === 'en' ? 'zh' : 'en'];
}

/** A date as a function of the language: for the values of say(). */
export function date(iso, withTime = false) {
  const options = { year: 'numeric', month: 'short', day: 'numeric' };
  if (withTime) Object.assign(options, { hour: '2-digit', minute: '2-digit', second: '2-digit' });
  return () => new Intl.DateTimeFormat(DATE_STYLE[current], options).format(new Date(iso));
}

/** A probability in [0, 1] in words: never 0 or 100 %, since nothing is certain. */
export function percent(probability) {
  if (probability > 0.999) return () => t('probability_over', { percent: '99.9' });
  if (probability < 0.001) return () => t('probability_under', { percent: '0.1' });
  const digits = probability > 0.99 || probability < 0.01 ? 1 : 0;
  return () => t('probability_is', { percent: (100 * probability).toFixed(digits) });
}
