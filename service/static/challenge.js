// Digits to be read aloud while they count: so that a recording made before won't do.

import * as api from './api.js';
import { announce, byId } from './dom.js';
import { language, say } from './language.js';

const TICK_MS = 250;

/** Shows the digits of a challenge and how long they count. */
export class Challenge {
  constructor() {
    this.made = null; // what the service made, until a recording used it up
    this.timer = null;
  }

  /** The challenge to send a recording with, or undefined. */
  get id() {
    return this.made?.id;
  }

  /** Gets digits for a speaker, unless there are some that still count; shows them. */
  async ask(speaker) {
    if (this.made?.speaker === speaker && this.secondsLeft > 0) return;
    this.drop();
    this.made = { ...(await api.makeChallenge(speaker, language())), speaker };
    this.until = performance.now() + 1000 * this.made.expires_in_s;
    byId('challenge').hidden = false;
    byId('challenge-digits').textContent = [...this.made.digits].join(' ');
    byId('challenge-words').textContent = this.made.text;
    byId('challenge-words').lang = this.made.language;
    byId('challenge-bar').max = this.made.expires_in_s;
    announce('challenge_read', { text: this.made.text });
    this.show();
    this.timer = setInterval(() => this.show(), TICK_MS);
  }

  get secondsLeft() {
    return Math.max(0, (this.until - performance.now()) / 1000);
  }

  show() {
    const left = this.secondsLeft;
    byId('challenge-bar').value = left;
    if (left > 0) {
      say(byId('challenge-time'), 'challenge_left', { seconds: Math.ceil(left) });
      return;
    }
    say(byId('challenge-time'), 'challenge_over');
    clearInterval(this.timer);
    this.made = null;
  }

  /** Takes the digits away: they are used, or no longer wanted. */
  drop() {
    clearInterval(this.timer);
    this.made = null;
    byId('challenge').hidden = true;
  }
}
