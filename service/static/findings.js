// Who spoke when in a recording: the speakers, a timeline, a table of the turns, and files of them.

import * as api from './api.js';
import { announce, button, byId, made, make } from './dom.js';
import { clock } from './clock.js';
import { date, label, t, translate } from './language.js';
import { askName } from './naming.js';
import { showError, showWords } from './problem.js';
import { round } from './scale.js';
import { Timeline, colourOf } from './timeline.js';
import { TurnPlayer } from './turn_player.js';
import { TurnTable, saveFile, toRttm } from './turns.js';
import { makeVoice } from './voices.js';

/** Shows a finished job. It sends 'removed' once the service has removed it. */
export class Findings extends EventTarget {
  /**
   * @param {HTMLElement} place Is filled.
   * @param {object} job With its result, as the service answers it.
   * @param {File | null} file The recording, if it is at hand.
   */
  constructor(place, job, file) {
    super();
    this.place = place;
    this.job = job;
    this.result = job.result;
    this.names = new Map(this.result.speakers.map(({ label: key, name }) => [key, name]));
    this.numbers = new Map(this.result.speakers.map(({ label: key }, number) => [key, number]));
    this.player = null;
    this.build();
    if (file) this.takeFile(file);
  }

  nameOf(key) {
    return () => this.names.get(key) ?? t('speaker_number', { number: key });
  }

  colourOf(key) {
    return colourOf(this.numbers.get(key));
  }

  build() {
    const { recording, duration_s: duration, speakers, turns } = this.result;
    const values = { name: recording, time: clock(duration), speakers: speakers.length, turns: turns.length };
    this.heading = make('h2', { tabindex: '-1' }, made('span', '', 'found', values));
    this.error = make('div', { class: 'notice error', role: 'alert' });
    this.error.hidden = true;
    this.chooser = button('found_choose', () => byId('heard-file').click(), { iconName: 'file' });
    this.voices = make('ul', { class: 'voices' });
    const timelinePlace = make('div', { class: 'timeline' });
    const tablePlace = make('div', { class: 'table-place' });
    this.timeline = new Timeline(timelinePlace);
    this.table = new TurnTable(tablePlace, turns, (key) => this.nameOf(key), (key) => this.colourOf(key));
    for (const source of [this.timeline, this.table]) {
      source.addEventListener('pick', (event) => this.play(event.detail));
    }
    const files = make(
      'div',
      { class: 'buttons' },
      button('save_rttm', () => saveFile(`${recording}.rttm`, 'text/plain', this.toRttm())),
      button('save_json', () => saveFile(`${recording}.json`, 'application/json', this.toJson())),
      button('found_remove', () => this.remove(), { className: 'danger-quiet' }),
    );
    const expiry = made('p', 'hint', 'found_expires', { date: date(this.job.expires_at, true) });
    this.place.replaceChildren(
      make('div', { class: 'card' }, this.heading, this.error, this.chooser, this.voices, timelinePlace),
      make('div', { class: 'card' }, make('details', { open: '' }, made('summary', '', 'turns'), tablePlace)),
      make('div', { class: 'card' }, files, expiry),
    );
    const lanes = speakers.map(({ label: key }) => ({ key, name: this.nameOf(key), colour: this.colourOf(key) }));
    this.timeline.show(lanes, turns, 0, duration);
    this.showVoices();
  }

  showVoices() {
    this.voices.replaceChildren(...this.result.speakers.map((speaker) => this.makeVoice(speaker)));
  }

  makeVoice(speaker) {
    const { label: key, score, speech_s: speech, num_turns: turns } = speaker;
    const isNamed = this.names.get(key) !== null;
    const values = { time: clock(speech), turns, score: score === null ? '–' : round(score) };
    const buttons = [];
    if (this.player) {
      const play = button('play', () => this.play(this.longest(key)), { iconName: 'play' });
      buttons.push(label(play, 'voice_play', { name: this.nameOf(key) }));
    }
    if (speaker.can_be_enrolled) {
      const enrol = button(isNamed ? 'voice_rename' : 'voice_enrol', () => this.ask(key));
      buttons.push(label(enrol, isNamed ? 'voice_rename_label' : 'voice_enrol_label', { name: this.nameOf(key) }));
    } else {
      buttons.push(made('span', 'hint', 'voice_too_short'));
    }
    const facts = [speaker.name !== null ? 'voice_facts_known' : 'voice_facts', values];
    return makeVoice({ name: this.nameOf(key), colour: this.colourOf(key), facts, buttons });
  }

  /** The longest turn of a speaker, if there is one in which nobody else speaks. */
  longest(key) {
    const length = ({ start_s: start, end_s: end }) => end - start;
    const own = this.result.turns.filter(({ speaker }) => speaker === key);
    const alone = own.filter((turn) => !turn.is_overlapped);
    return (alone.length ? alone : own).reduce((best, turn) => (length(turn) > length(best) ? turn : best));
  }

  ask(key) {
    const known = this.names.get(key);
    const note = known === null ? null : ['naming_known', { name: known }];
    askName(['naming_title', { name: this.nameOf(key) }], note, async (name, ifExists) => {
      const speaker = await api.enrolFound(this.job.id, key, name, ifExists);
      this.names.set(key, speaker.name);
      this.retell();
      announce('enrolled', { name: speaker.name });
    });
  }

  /** Shows the names anew, wherever they are. */
  retell() {
    translate(this.place);
    this.showVoices();
  }

  takeFile(file) {
    this.player?.close();
    this.player = new TurnPlayer(file, (seconds) => {
      this.timeline.mark(seconds);
      this.table.mark(seconds === null ? null : this.player.turn);
    });
    this.chooser.hidden = true;
    this.table.setPlayable(true);
    this.showVoices();
  }

  async play(turn) {
    if (!this.player) return;
    showError(this.error, null);
    try {
      await this.player.toggle(turn);
    } catch {
      showWords(this.error, 'unplayable');
    }
  }

  toRttm() {
    const { recording, turns } = this.result;
    return toRttm(recording, turns, (key) => this.names.get(key) ?? `speaker_${key}`);
  }

  toJson() {
    const named = (entry, key) => ({ ...entry, name: this.names.get(key) });
    const speakers = this.result.speakers.map((speaker) => named(speaker, speaker.label));
    const turns = this.result.turns.map((turn) => named(turn, turn.speaker));
    return `${JSON.stringify({ ...this.result, speakers, turns }, null, 1)}\n`;
  }

  async remove() {
    try {
      await api.removeDiarization(this.job.id);
    } catch (error) {
      showError(this.error, error);
      return;
    }
    this.dispatchEvent(new Event('removed'));
  }

  /** Stops the sound and lets go of the file. */
  close() {
    this.player?.close();
  }

  /** Stops the sound. */
  hush() {
    this.player?.stop();
  }
}
