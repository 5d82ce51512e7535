// Asks whose a voice is that was found in a recording or heard live, and enrols it under that name.

import { ServiceError } from './api.js';
import { byId } from './dom.js';
import { say } from './language.js';
import { showError } from './problem.js';

let enrol = null; // what enrols the voice that is asked about
let isBusy = false;

export function set() {
  byId('name-form').addEventListener('submit', (event) => {
    event.preventDefault();
    submit('error');
  });
  byId('name-add').addEventListener('click', () => submit('add'));
  byId('voice-name').addEventListener('input', showNothing);
}

/**
 * Opens the dialog.
 *
 * @param {[string, object]} title Whose voice it is about.
 * @param {[string, object] | null} note What speaks against another name.
 * @param {(name: string, ifExists: 'error' | 'add') => Promise<void>} enrolAs
 */
export function askName(title, note, enrolAs) {
  enrol = enrolAs;
  say(byId('name-title'), ...title);
  if (note) say(byId('name-note'), ...note);
  else byId('name-note').hidden = true;
  showNothing();
  byId('voice-name').value = '';
  byId('name-dialog').showModal();
  byId('voice-name').focus();
}

/** Closes the dialog, as when the voice it is about is gone. */
export function stopAsking() {
  byId('name-dialog').close();
}

function showNothing() {
  byId('name-wrong').hidden = true;
  byId('name-exists').hidden = true;
}

async function submit(ifExists) {
  const name = byId('voice-name').value.trim();
  if (isBusy) return;
  showNothing();
  if (!name) {
    say(byId('name-wrong'), 'name_missing');
    byId('voice-name').focus();
    return;
  }
  isBusy = true;
  try {
    await enrol(name, ifExists);
    byId('name-dialog').close();
  } catch (error) {
    if (error instanceof ServiceError && error.code === 'speaker-exists' && ifExists === 'error') {
      say(byId('name-exists-text'), 'naming_exists', { name });
      byId('name-exists').hidden = false;
      byId('name-add').focus();
    } else {
      showError(byId('name-wrong'), error);
    }
  } finally {
    isBusy = false;
  }
}
