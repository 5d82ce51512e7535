// The level of what the microphone hears: a bar, the peaks, and words on how loud it is.

import { say } from './language.js';
import { decibels, levelDb, peak } from './waveform.js';

// In dB relative to full scale.
const FLOOR_DB = -60;
const HEARD_DB = -50;
const GOOD_DB = -35;
const LOUD_PEAK_DB = -1;
const PEAK_FALL_DB = 0.6; // a block
const WORDS_EVERY_S = 0.5;

const across = (db) => Math.min(1, Math.max(0, 1 - db / FLOOR_DB));

export class Meter {
  /** @param {{ level: HTMLElement, peak: HTMLElement, loudness?: HTMLElement }} parts */
  constructor(parts) {
    this.parts = parts;
    this.peakDb = FLOOR_DB;
    this.heard = { until: 0, level: FLOOR_DB, peak: FLOOR_DB };
  }

  /** Shows a block that ends so many seconds after the beginning. */
  add(block, seconds) {
    const level = levelDb(block);
    const blockPeak = decibels(peak(block));
    this.peakDb = Math.max(blockPeak, this.peakDb - PEAK_FALL_DB);
    this.parts.level.style.transform = `scaleX(${across(level).toFixed(3)})`;
    this.parts.peak.style.left = `${(100 * across(this.peakDb)).toFixed(1)}%`;
    if (this.parts.loudness) this.judge(level, blockPeak, seconds);
  }

  /** Says how loud it was in the last half second. */
  judge(level, blockPeak, seconds) {
    const { heard } = this;
    heard.level = Math.max(heard.level, level);
    heard.peak = Math.max(heard.peak, blockPeak);
    if (seconds < heard.until) return;
    let words = 'loudness_good';
    if (heard.peak > LOUD_PEAK_DB) words = 'loudness_high';
    else if (heard.level < HEARD_DB) words = 'loudness_none';
    else if (heard.level < GOOD_DB) words = 'loudness_low';
    say(this.parts.loudness, words);
    this.heard = { until: seconds + WORDS_EVERY_S, level: FLOOR_DB, peak: FLOOR_DB };
  }
}
