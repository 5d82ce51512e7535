// "What happened": enrolments, changes and deletions, the newest first, followed while the view is open.

import * as api from './api.js';
import { byId, made, make } from './dom.js';
import { date, say } from './language.js';
import { showError } from './problem.js';
import { STRINGS } from './strings.js';

const MOST_AT_ONCE = 1000; // as many as the service gives
const MOST_SHOWN = 200;
const MOST_PAGES = 20; // of earlier events that are walked through to the newest
const EVERY_MS = 10_000;

let next = 0;
let timer = null;
let isAsking = false;

export async function show() {
  await ask();
  clearInterval(timer);
  timer = setInterval(askAgain, EVERY_MS);
}

/** Stops following when the view is left. */
export function leave() {
  clearInterval(timer);
}

async function askAgain() {
  try {
    await ask();
    showError(byId('events-error'), null);
  } catch (error) {
    showError(byId('events-error'), error);
    if (error instanceof api.CancelledError || error instanceof api.ServiceError) leave();
  }
}

/** Asks for the events since the last time, and puts them on top. */
async function ask() {
  if (isAsking) return;
  isAsking = true;
  try {
    for (let page = 0; page < MOST_PAGES; page += 1) {
      const answer = await api.eventsAfter(next, MOST_AT_ONCE);
      next = answer.next;
      const list = byId('event-list');
      list.prepend(...answer.events.slice(-MOST_SHOWN).map(makeEvent).reverse());
      for (const old of [...list.children].slice(MOST_SHOWN)) old.remove();
      if (answer.events.length < MOST_AT_ONCE) break;
    }
  } finally {
    isAsking = false;
  }
  say(byId('events-total'), byId('event-list').children.length ? 'events_shown' : 'events_none', { most: MOST_SHOWN });
}

function makeEvent({ at, actor, action, speaker, outcome }) {
  const key = `event_${action.replaceAll(' ', '_')}`;
  const words = key in STRINGS.en ? [key, { speaker }] : ['event_other', { action, speaker }];
  return make(
    'li',
    {},
    make('div', {}, made('p', 'event-words', ...words), make('p', { class: 'hint', lang: 'en' }, outcome)),
    made('p', 'hint event-when', 'event_when', { date: date(at, true), actor }),
  );
}
