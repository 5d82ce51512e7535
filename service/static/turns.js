// Turns as a table, and as files: the formats that other programs read.

import { button, made, make, relabel } from './dom.js';
import { clock } from './clock.js';
import { label, say } from './language.js';
import { round } from './scale.js';

const ROWS_AT_ONCE = 50;
const DIGITS = 1; // of seconds

/** A table of turns that grows on request. It sends 'pick' ({ detail: turn }) when one is to be played. */
export class TurnTable extends EventTarget {
  /**
   * @param {HTMLElement} place Is filled.
   * @param {{ start_s: number, end_s: number, speaker: string, score: ?number, is_overlapped: boolean }[]} turns
   * @param {(label: string) => () => string} nameOf
   * @param {(label: string) => string} colourOf
   */
  constructor(place, turns, nameOf, colourOf) {
    super();
    Object.assign(this, { turns, nameOf, colourOf });
    this.rows = new Map(); // turn -> its row
    this.body = make('tbody');
    this.canPlay = false;
    this.heard = null;
    const heads = ['turn_time', 'turn_speaker', 'turn_score', 'play'].map((key) => {
      const head = make('th', { scope: 'col' });
      head.append(made('span', key === 'play' ? 'unseen' : '', key));
      return head;
    });
    const table = make('table', { class: 'turn-table' }, make('thead', {}, make('tr', {}, ...heads)), this.body);
    label(table, 'turns');
    this.more = button('more', () => this.grow());
    place.replaceChildren(table, this.more);
    this.grow();
  }

  grow() {
    const next = this.turns.slice(this.rows.size, this.rows.size + ROWS_AT_ONCE);
    for (const turn of next) this.body.append(this.makeRow(turn));
    const left = this.turns.length - this.rows.size;
    this.more.hidden = left === 0;
    say(this.more.querySelector('span'), 'more', { left });
  }

  makeRow(turn) {
    const { start, end, name } = this.wordsOf(turn);
    const who = make('td', { class: this.colourOf(turn.speaker) }, make('i', { class: 'swatch', 'aria-hidden': 'true' }));
    who.append(made('span', 'turn-name', 'echo', { text: name }));
    if (turn.is_overlapped) who.append(' ', made('small', 'hint', 'turn_overlapped'));
    const play = button('play', () => this.dispatchEvent(new CustomEvent('pick', { detail: turn })), { iconName: 'play' });
    label(play, 'turn_play', this.wordsOf(turn));
    play.hidden = !this.canPlay;
    const score = turn.score === null ? '–' : round(turn.score);
    const row = make('tr', {}, make('td', { class: 'turn-time' }, `${start} – ${end}`), who, make('td', {}, score), make('td', {}, play));
    this.rows.set(turn, row);
    return row;
  }

  wordsOf(turn) {
    const [start, end] = [turn.start_s, turn.end_s].map((seconds) => clock(seconds, DIGITS));
    return { start, end, name: this.nameOf(turn.speaker) };
  }

  /** Shows or hides the buttons that play. */
  setPlayable(canPlay) {
    this.canPlay = canPlay;
    for (const row of this.rows.values()) row.querySelector('button').hidden = !canPlay;
  }

  /** Marks the turn that is heard, or none (null). */
  mark(turn) {
    if (turn === this.heard) return;
    const before = this.heard;
    this.heard = turn;
    for (const [each, word] of [[before, 'play'], [turn, 'stop']]) {
      const row = this.rows.get(each);
      if (!row) continue;
      if (word === 'stop') row.setAttribute('aria-current', 'true');
      else row.removeAttribute('aria-current');
      const press = row.querySelector('button');
      relabel(press, word, word);
      label(press, `turn_${word}`, this.wordsOf(each));
    }
  }
}

/** Turns as RTTM (NIST): a line a turn; a name has no space in it. */
export function toRttm(recording, turns, nameOf) {
  const word = (text) => text.trim().replace(/\s+/g, '_');
  return turns
    .map(({ start_s: start, end_s: end, speaker }) => {
      const length = (end - start).toFixed(3);
      return `SPEAKER ${word(recording)} 1 ${start.toFixed(3)} ${length} <NA> <NA> ${word(nameOf(speaker))} <NA> <NA>\n`;
    })
    .join('');
}

/** Hands a text to the user as a file. */
export function saveFile(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const link = make('a', { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
