// The page: its parts, the address (#recognise, #enrol, ...), the language and the token.

import * as api from './api.js';
import * as calibrate from './calibrate.js';
import { abandonRecording } from './capture.js';
import * as compare from './compare.js';
import * as conversation from './conversation.js';
import { byId } from './dom.js';
import * as enrol from './enrol.js';
import { otherLanguageTag, say, showLanguage, switchLanguage, t } from './language.js';
import { showError } from './problem.js';
import * as happenings from './events.js';
import * as live from './live.js';
import * as naming from './naming.js';
import * as recognise from './recognise.js';
import { refresh, service } from './service.js';
import * as speakers from './speakers.js';

const VIEWS = { recognise, enrol, compare, conversation, live, speakers, events: happenings, calibrate };
const NEEDED = { events: 'read', calibrate: 'administer' }; // views that make no sense without a scope
const MODEL_ID_LENGTH = 8;
const USUAL_GROUP = 'default';

let isFirst = true;

function wantedView() {
  const name = location.hash.slice(1);
  return name in VIEWS ? name : 'recognise';
}

/** Shows the view of the address, or asks for the token first. */
async function route() {
  abandonRecording();
  for (const view of Object.values(VIEWS)) view.leave?.();
  const name = service.isOpen ? wantedView() : 'token';
  for (const view of document.querySelectorAll('.view')) view.hidden = view.id !== `view-${name}`;
  for (const link of document.querySelectorAll('nav a')) {
    if (link.hash === `#${name}`) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  showError(byId('failure'), null);
  showTitle();
  if (!isFirst) byId(`${name}-title`).focus();
  isFirst = false;
  if (name in VIEWS) await attempt(VIEWS[name].show);
}

function showTitle() {
  const heading = document.querySelector('.view:not([hidden]) h1');
  document.title = t('page_title', { view: heading?.textContent ?? t('brand') });
}

/** Runs something, and shows an error on top of the page. */
async function attempt(action) {
  try {
    await action();
    return true;
  } catch (error) {
    showError(byId('failure'), error);
    return false;
  }
}

async function start() {
  await attempt(refresh);
  const model = service.modelId.slice(0, MODEL_ID_LENGTH);
  if (service.isOpen) say(byId('service-version'), 'footer_version', { version: service.version, model });
  byId('forget-token').hidden = !api.hasToken();
  showGroup();
  for (const [view, scope] of Object.entries(NEEDED)) {
    byId('nav').querySelector(`[href="#${view}"]`).hidden = service.isOpen && !service.scopes.includes(scope);
  }
}

/** Says in which group of speakers one works, if there is more to it than the usual one. */
function showGroup() {
  const { group, groups } = service;
  const choice = byId('group-choice');
  const hasChoice = groups.length > 1;
  byId('group').hidden = !service.isOpen || (!hasChoice && group === USUAL_GROUP);
  choice.hidden = !hasChoice;
  choice.replaceChildren(...groups.map((name) => new Option(name, name, false, name === group)));
  if (!hasChoice) say(byId('group-name'), 'group_is', { group });
  else byId('group-name').hidden = true;
}

/** Every view shows what the group has, so that the page begins anew with another one. */
function setGroup() {
  byId('group-choice').addEventListener('change', (event) => {
    api.setGroup(event.target.value);
    location.reload();
  });
}

function showLanguageButton() {
  const button = byId('language');
  button.lang = otherLanguageTag();
  say(button, 'other_language');
  showTitle();
}

function setToken() {
  byId('token-form').addEventListener('submit', async (event) => {
    event.preventDefault();
    const input = byId('token');
    api.setToken(input.value.trim());
    byId('token-wrong').hidden = true;
    await start();
    if (service.isOpen) {
      input.value = '';
      await route();
      return;
    }
    api.setToken(null);
    byId('forget-token').hidden = true;
    say(byId('token-wrong'), 'token_wrong');
    input.select();
  });
  byId('forget-token').addEventListener('click', () => {
    api.setToken(null);
    location.reload();
  });
  api.events.addEventListener('unauthorized', async () => {
    api.setToken(null);
    service.isOpen = false;
    await start();
    await route();
  });
}

/** Says that the page waits for the service, and lets the user give up on it. */
function setWaiting() {
  const tell = (key, values) => {
    say(byId('waiting-text'), key, values);
    byId('waiting').hidden = false;
  };
  const hide = () => {
    byId('waiting').hidden = true;
  };
  api.events.addEventListener('waiting', (event) => tell('waiting', event.detail));
  api.events.addEventListener('slow', () => tell('slow'));
  api.events.addEventListener('resumed', hide);
  api.events.addEventListener('idle', hide);
  byId('stop-waiting').addEventListener('click', api.cancelAll);
}

recognise.set();
enrol.set();
compare.set();
conversation.set();
live.set();
naming.set();
speakers.set();
calibrate.set();
setToken();
setGroup();
showLanguage();
showLanguageButton();

byId('language').addEventListener('click', () => {
  switchLanguage();
  showLanguageButton();
});
setWaiting();
document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault(); // the address names the view
  byId('main').focus();
});
window.addEventListener('hashchange', route);
window.addEventListener('pagehide', abandonRecording);
// A file dropped beside a card must not replace the page.
for (const type of ['dragover', 'drop']) {
  window.addEventListener(type, (event) => event.preventDefault());
}

await start();
if (byId('failure').hidden) await route();
