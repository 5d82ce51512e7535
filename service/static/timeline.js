// Who spoke when, drawn: a lane a speaker, time from left to right. Positions are percentages.

import { button, made, make, makeSvg } from './dom.js';
import { clock } from './clock.js';
import { label } from './language.js';

const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];
const TICKS_AT_ONCE = 5; // across the part that is seen, so that they fit a phone
const LAST_TICK = 0.93; // of the width: the time beside a later one would be cut off
const MOST_ZOOM = 64;
const FEWEST_S = 10; // as much is always seen
const NUM_COLOURS = 8;

/** The class that gives the speaker with a number, from 0, a colour. */
export const colourOf = (number) => `voice-${number % NUM_COLOURS}`;

const share = (part) => `${(100 * part).toFixed(3)}%`;

/** A timeline. It sends 'pick' ({ detail: turn }) when a turn is clicked. */
export class Timeline extends EventTarget {
  /** @param {HTMLElement} place Is filled. @param {boolean} canZoom Whether it gets buttons for that. */
  constructor(place, canZoom = true) {
    super();
    this.zoom = 1;
    this.lanes = make('div', { class: 'lanes' });
    this.scroller = make('div', { class: 'scroller', tabindex: '0', role: 'region' }, this.lanes);
    label(this.scroller, 'timeline');
    this.wider = button('zoom_in', () => this.setZoom(2));
    this.narrower = button('zoom_out', () => this.setZoom(0.5));
    this.zooming = make('div', { class: 'buttons' }, this.wider, this.narrower);
    this.zooming.hidden = !canZoom;
    place.replaceChildren(this.scroller, this.zooming);
    this.scroller.addEventListener('click', (event) => {
      const turn = this.drawn.get(event.target);
      if (turn) this.dispatchEvent(new CustomEvent('pick', { detail: turn }));
    });
  }

  /**
   * Draws turns.
   *
   * @param {{ key: string, name: () => string, colour: string }[]} speakers A lane each, in this order.
   * @param {{ speaker: string, start_s: number, end_s: number }[]} turns
   * @param {number} from_s What is at the left edge.
   * @param {number} to_s What is at the right edge.
   */
  show(speakers, turns, from_s, to_s) {
    this.span = Math.max(1e-3, to_s - from_s);
    this.from = from_s;
    this.drawn = new Map();
    const seen = turns.filter((turn) => turn.end_s > from_s && turn.start_s < to_s);
    const rows = speakers.map((speaker) => this.makeRow(speaker, seen.filter((turn) => turn.speaker === speaker.key)));
    this.cursor = make('i', { class: 'cursor' });
    this.cursor.hidden = true;
    this.axis = makeSvg('svg', { class: 'ticks', 'aria-hidden': 'true' });
    this.lanes.replaceChildren(...rows, this.axis, this.cursor);
    this.setZoom(1);
  }

  makeRow({ name, colour }, turns) {
    const lane = makeSvg('svg', { class: 'turns', role: 'img' });
    let sum = 0;
    for (const turn of turns) {
      const start = Math.max(turn.start_s, this.from);
      sum += turn.end_s - start;
      const rect = makeSvg('rect', {
        x: share((start - this.from) / this.span), width: share((turn.end_s - start) / this.span), height: '100%', rx: 2,
      });
      this.drawn.set(rect, turn);
      lane.append(rect);
    }
    label(lane, 'timeline_lane', { name, turns: turns.length, time: clock(sum) });
    return make('div', { class: `row ${colour}` }, this.makeName(name), lane);
  }

  makeName(name) {
    return make('span', { class: 'row-name', 'aria-hidden': 'true' }, make('i', { class: 'swatch' }), made('span', '', 'echo', { text: name }));
  }

  /** Shows a part only, to be scrolled: so much less than before. */
  setZoom(factor) {
    const most = Math.max(1, Math.min(MOST_ZOOM, this.span / FEWEST_S));
    const middle = (this.scroller.scrollLeft + this.scroller.clientWidth / 2) / (this.lanes.clientWidth || 1);
    this.zoom = Math.min(most, Math.max(1, this.zoom * factor));
    this.lanes.style.width = share(this.zoom);
    this.wider.setAttribute('aria-disabled', String(this.zoom >= most));
    this.narrower.setAttribute('aria-disabled', String(this.zoom <= 1));
    this.zooming.classList.toggle('useless', most === 1);
    this.scroller.scrollLeft = middle * this.lanes.clientWidth - this.scroller.clientWidth / 2;
    this.drawTicks();
  }

  drawTicks() {
    const wanted = this.span / this.zoom / TICKS_AT_ONCE;
    const step = STEPS_S.find((each) => each >= wanted) ?? STEPS_S.at(-1);
    const ticks = [];
    for (let at = Math.ceil(this.from / step) * step; at < this.from + LAST_TICK * this.span; at += step) {
      const x = share((at - this.from) / this.span);
      ticks.push(makeSvg('line', { x1: x, x2: x, y1: 0, y2: 5 }), makeSvg('text', { x, y: '1.6em' }, clock(at)));
    }
    this.axis.replaceChildren(...ticks);
  }

  /** Marks a moment, or none (null). */
  mark(seconds) {
    this.cursor.hidden = seconds === null;
    if (seconds !== null) this.cursor.style.left = share((seconds - this.from) / this.span);
  }
}
