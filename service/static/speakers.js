// The enrolled speakers: list, search, playback, renaming, deletion.

import * as api from './api.js';
import { button, byId, icon, made, make } from './dom.js';
import { date, label, say } from './language.js';
import { decode, playOnPress, stopPlaying } from './player.js';
import { describe, showError } from './problem.js';
import { service } from './service.js';

const PAGE_SIZE = 20;
const TYPING_PAUSE_MS = 250;
const ROW_ID = /^[0-9a-f]{32}$/; // how the database names a recording

let offset = 0;
let asked = 0; // answers to older questions are not shown
let chosen = null; // the speaker that a dialog is about
let confirmed = null; // what the dialog that asks is to do

export function set() {
  let typing;
  byId('search').addEventListener('input', () => {
    clearTimeout(typing);
    typing = setTimeout(() => turnTo(0), TYPING_PAUSE_MS);
  });
  byId('previous-page').addEventListener('click', () => turnTo(Math.max(0, offset - PAGE_SIZE)));
  byId('next-page').addEventListener('click', () => turnTo(offset + PAGE_SIZE));
  byId('rename-form').addEventListener('submit', submitRename);
  byId('delete-form').addEventListener('submit', submitDelete);
  for (const dialog of document.querySelectorAll('dialog')) {
    dialog.querySelector('[data-close]').addEventListener('click', () => dialog.close());
  }
}

export async function show() {
  byId('speakers-message').hidden = true;
  await turnTo(0);
}

async function turnTo(newOffset) {
  stopPlaying();
  asked += 1;
  const mine = asked;
  const query = byId('search').value.trim();
  try {
    const page = await api.speakers(query, newOffset, PAGE_SIZE);
    if (mine !== asked) return;
    offset = newOffset;
    if (offset > 0 && !page.speakers.length) {
      await turnTo(Math.max(0, offset - PAGE_SIZE)); // the last one of a page was deleted
      return;
    }
    showPage(page, query);
  } catch (error) {
    if (mine === asked) tellError(error);
  }
}

function showPage({ speakers, total }, query) {
  if (!query) service.numSpeakers = total;
  const isEmpty = !query && total === 0;
  say(byId('speakers-total'), isEmpty ? 'speakers_none' : query ? 'speakers_found' : 'speakers_total', { total });
  byId('people').replaceChildren(...speakers.map(makeRow));
  byId('pages').hidden = total <= PAGE_SIZE;
  const last = offset + speakers.length;
  say(byId('page-range'), 'page_range', { first: offset + 1, last, total });
  byId('previous-page').disabled = offset === 0;
  byId('next-page').disabled = last >= total;
}

function makeRow(speaker) {
  const { name, recordings } = speaker;
  const facts = { recordings: recordings.length, date: date(speaker.created_at) };
  const renameButton = button('rename', () => openRename(speaker));
  const deleteButton = button('delete', () => askToDelete(name), { className: 'danger-quiet' });
  label(renameButton, 'rename_label', { name });
  label(deleteButton, 'delete_label', { name });
  const summary = made('summary', '', 'recordings_show');
  label(summary, 'recordings', { name });
  return make(
    'li',
    { class: 'card person' },
    make(
      'div',
      { class: 'person-head' },
      make('div', { class: 'person-name' }, make('h2', {}, name), made('p', 'hint', 'speaker_facts', facts), ...warn(speaker)),
      make('div', { class: 'buttons' }, renameButton, deleteButton),
    ),
    make('details', {}, summary, make('ul', { class: 'recordings' }, ...recordings.map((r) => makeRecording(name, r, recordings.length)))),
  );
}

/** What stands in the way of recognising a speaker. */
function warn({ is_damaged: isDamaged, recordings }) {
  const isOfOtherModel = recordings.length > 0 && recordings.every((each) => each.is_comparable === false);
  if (!isDamaged && !isOfOtherModel) return [];
  const words = isDamaged ? 'speaker_damaged' : 'speaker_other_model';
  return [make('p', { class: 'poor' }, icon('warning'), made('span', '', words))];
}

function makeRecording(name, recording, numRecordings) {
  const when = date(recording.created_at, true);
  const item = make('li', {}, made('span', '', 'recording_facts', { date: when, seconds: recording.speech_s.toFixed(1) }));
  const buttons = make('div', { class: 'buttons' });
  if (recording.has_audio) {
    const play = button('play', () => {}, { iconName: 'play' });
    label(play, 'recording_play', { date: when });
    playOnPress(play, async () => decode(await api.recordingAudio(name, recording.id)), tellError);
    buttons.append(play);
  } else {
    buttons.append(made('span', 'hint', 'recording_no_audio'));
  }
  if (numRecordings > 1) {
    const remove = button('recording_remove', () => askToRemove(name, recording.id, when));
    buttons.append(label(remove, 'recording_remove_label', { date: when }));
  }
  item.append(buttons);
  return item;
}

/** Shows what was done, and brings the focus there: what had it may be gone. */
function tell(key, values, ...more) {
  const message = byId('speakers-message');
  message.className = 'notice';
  message.hidden = false;
  message.replaceChildren(made('p', '', key, values), ...more);
  message.focus({ preventScroll: true });
  message.scrollIntoView({ block: 'nearest' });
}

function tellError(error) {
  const [key, values] = describe(error);
  tell(key, values);
  byId('speakers-message').className = 'notice error';
}

function openRename(speaker) {
  chosen = speaker;
  say(byId('rename-title'), 'rename_title', { name: speaker.name });
  byId('rename-wrong').hidden = true;
  byId('new-name').value = speaker.name;
  byId('rename-dialog').showModal();
  byId('new-name').select();
}

/** Asks before something is removed. `act` does it. */
function confirmRemoval(act, word, title, text) {
  confirmed = act;
  say(byId('delete-title'), ...title);
  say(byId('delete-text'), ...text);
  say(byId('delete-submit'), word);
  byId('delete-wrong').hidden = true;
  byId('delete-dialog').showModal();
  byId('delete-dialog').querySelector('[data-close]').focus(); // the harmless button
}

function askToRemove(name, id, when) {
  const act = async () => {
    await api.removeRecording(name, id);
    return ['recording_removed', { name }];
  };
  const text = ['recording_remove_text', { date: when }];
  confirmRemoval(act, 'recording_remove', ['recording_remove_title', { name }], text);
}

function askToDelete(name) {
  const act = async () => {
    const { removed } = await api.remove(name);
    const { embeddings, recordings, files } = removed;
    return ['deleted', { name, embeddings, recordings }, ...listFiles(name, files)];
  };
  confirmRemoval(act, 'delete', ['delete_title', { name }], ['delete_text', {}]);
}

/** The files among what was removed: the database's own names for its rows tell nobody anything. */
function listFiles(name, things) {
  const isRow = (thing) => thing === name || (thing.startsWith(`${name}/`) && ROW_ID.test(thing.slice(name.length + 1)));
  const files = things.filter((thing) => !isRow(thing));
  if (!files.length) return [];
  const list = make('ul', { class: 'hint' }, ...files.map((file) => make('li', {}, file)));
  return [make('details', {}, made('summary', '', 'deleted_files'), list)];
}

async function submitRename(event) {
  event.preventDefault();
  const newName = byId('new-name').value.trim();
  const wrong = byId('rename-wrong');
  wrong.hidden = true;
  if (!newName) {
    say(wrong, 'name_missing');
    byId('new-name').focus();
    return;
  }
  try {
    const { name } = await api.rename(chosen.name, newName);
    byId('rename-dialog').close();
    await turnTo(offset);
    tell('renamed', { name: chosen.name, new_name: name });
  } catch (error) {
    showError(wrong, error);
  }
}

async function submitDelete(event) {
  event.preventDefault();
  try {
    const words = await confirmed();
    byId('delete-dialog').close();
    await turnTo(offset);
    tell(...words);
  } catch (error) {
    showError(byId('delete-wrong'), error);
  }
}
