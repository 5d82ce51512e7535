// What was heard in a live stream: its turns and its speakers, as far as the service told.

import { t } from './language.js';
import { colourOf } from './timeline.js';

const nameKey = (name) => `name ${name}`;
const numberKey = (number) => `number ${number}`;

export class Talk {
  constructor() {
    this.turns = new Map(); // number of the turn -> { start_s, end_s, speaker: key or null, score }
    this.speakers = new Map(); // key -> { key, name, number, colour }
    this.numFound = 0;
    this.current = null; // the turn that is under way
  }

  /** Takes an event of the service. */
  take(event) {
    if (event.event === 'enrolled') {
      this.rename(numberKey(event.number), event.name);
      return;
    }
    const turn = this.turns.get(event.turn) ?? { start_s: event.start_s, end_s: event.start_s, speaker: null, score: null };
    this.turns.set(event.turn, turn);
    // advance() went ahead of what the service had heard; in the end it knows better.
    if (event.event === 'speech-end') turn.end_s = event.end_s;
    if (event.name != null || event.number != null) {
      const before = turn.speaker;
      turn.speaker = this.find(event);
      turn.score = event.score;
      if (before !== turn.speaker) this.forget(before);
    }
    if (event.event === 'speech-end') this.current = null;
    else this.current = turn;
  }

  /** The key of a speaker, who is new if never heard before. */
  find({ name, number }) {
    const key = name == null ? numberKey(number) : nameKey(name);
    if (!this.speakers.has(key)) {
      const colour = colourOf(this.numFound);
      this.numFound += 1;
      this.speakers.set(key, { key, name: name ?? null, number: name == null ? number : null, colour });
    }
    return key;
  }

  /** Forgets a speaker whose only turn turned out to be somebody else's. */
  forget(key) {
    if (![...this.turns.values()].some(({ speaker }) => speaker === key)) this.speakers.delete(key);
  }

  /** Gives an unknown speaker a name, everywhere. */
  rename(key, name) {
    const old = this.speakers.get(key);
    if (!old) return;
    const newKey = nameKey(name);
    const renamed = { ...old, key: newKey, name, number: null };
    const isNew = !this.speakers.has(newKey); // else the voices become one
    const all = [...this.speakers.values()].map((each) => (each === old && isNew ? renamed : each));
    this.speakers = new Map(all.filter((each) => each !== old).map((each) => [each.key, each]));
    for (const turn of this.turns.values()) if (turn.speaker === key) turn.speaker = newKey;
  }

  /** The turn under way is heard up to here. */
  advance(seconds) {
    if (this.current) this.current.end_s = Math.max(this.current.end_s, seconds);
  }

  nameOf(key) {
    const speaker = this.speakers.get(key);
    return () => speaker.name ?? t('speaker_number', { number: speaker.number });
  }

  /** Seconds that a speaker spoke, and in how many turns. */
  figures(key) {
    const own = [...this.turns.values()].filter(({ speaker }) => speaker === key);
    return { turns: own.length, seconds: own.reduce((sum, turn) => sum + turn.end_s - turn.start_s, 0) };
  }

  /** The turns whose speaker is known, for a timeline. */
  get drawn() {
    return [...this.turns.values()].filter(({ speaker }) => speaker !== null);
  }
}
