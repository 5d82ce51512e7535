// Doubts that stand in the way of an enrolment until a new recording clears them, or the user does.

import { byId, icon, made, make } from './dom.js';

/** A list of doubts, each with a box to tick. It sends 'change' when one is ticked. */
export class Doubts extends EventTarget {
  constructor() {
    super();
    this.place = byId('enrol-doubts');
    this.cleared = new Set(); // keys of the doubts that the user doesn't share
    this.keys = [];
    this.shown = '';
  }

  /**
   * Shows the doubts that there are now.
   *
   * @param {{ key: string, about?: string, text?: [string, object], confirm: [string, object] }[]} doubts
   *   A doubt with the same key stays cleared. Without a text, only the box is shown.
   */
  show(doubts) {
    this.keys = doubts.map(({ key }) => key);
    for (const key of this.cleared) if (!this.keys.includes(key)) this.cleared.delete(key);
    const shown = JSON.stringify(doubts.map(({ key, about }) => [key, about]));
    if (shown === this.shown) return; // what has the focus keeps it
    this.shown = shown;
    this.place.hidden = doubts.length === 0;
    for (const old of this.place.querySelectorAll('.doubt')) old.remove();
    this.place.append(...doubts.map((doubt) => this.makeRow(doubt)));
  }

  makeRow({ key, text, confirm }) {
    const box = make('input', { type: 'checkbox' });
    box.checked = this.cleared.has(key);
    box.addEventListener('change', () => {
      if (box.checked) this.cleared.add(key);
      else this.cleared.delete(key);
      this.dispatchEvent(new Event('change'));
    });
    const row = make('div', { class: 'doubt' });
    if (text) row.append(make('p', { class: 'poor', role: 'alert' }, icon('warning'), made('span', '', ...text)));
    row.append(make('label', {}, box, made('span', '', ...confirm)));
    return row;
  }

  isCleared(key) {
    return this.cleared.has(key);
  }

  /** Whether every doubt is cleared. */
  get areCleared() {
    return this.keys.every((key) => this.cleared.has(key));
  }
}
