// Small helpers for building and finding elements. Text is always set as text, never as HTML.

import { say } from './language.js';

const SVG = 'http://www.w3.org/2000/svg';

/** The element with an id. */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`no element #${id}`);
  return element;
}

/** Makes an element with attributes and children (elements or strings). */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Makes an SVG element. */
export function makeSvg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Makes an icon of index.html, invisible to screen readers. */
export function icon(name) {
  const use = makeSvg('use', { href: `#icon-${name}` });
  return makeSvg('svg', { class: 'icon', 'aria-hidden': 'true' }, use);
}

/** Makes an element with a translated text. */
export function made(tag, className, key, values) {
  return say(make(tag, className ? { class: className } : {}), key, values);
}

/** Makes a button with a translated text. */
export function button(key, onPress, { className = '', iconName } = {}) {
  const text = made('span', '', key);
  const element = make('button', { type: 'button', ...(className && { class: className }) });
  if (iconName) element.append(icon(iconName));
  element.append(text);
  element.addEventListener('click', onPress);
  return element;
}

/** Gives a button with an icon another text and icon. */
export function relabel(element, key, iconName) {
  say(element.querySelector('span'), key);
  element.querySelector('svg').replaceWith(icon(iconName));
}

/** Says something to screen readers that can be seen elsewhere on the page. */
export function announce(key, values) {
  say(byId('announcer'), key, values);
}

/** Scrolls to an element gently, or at once for those who want no motion. */
export function reveal(element) {
  const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
  element.scrollIntoView({ block: 'nearest', behavior: calm ? 'instant' : 'smooth' });
}

/** Hands the files that are dropped on an element to `take`, and marks it while one is held above. */
export function takeDrops(element, take) {
  let depth = 0; // dragenter and dragleave come for every child
  const mark = (change) => {
    depth = Math.max(0, depth + change);
    element.classList.toggle('dropping', depth > 0);
  };
  element.addEventListener('dragenter', () => mark(+1));
  element.addEventListener('dragleave', () => mark(-1));
  element.addEventListener('drop', (event) => {
    mark(-depth);
    event.preventDefault();
    take(event.dataTransfer.files);
  });
}
