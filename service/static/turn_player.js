// Plays stretches of a long recording from the browser's own file, without decoding all of it.

import { stopPlaying } from './player.js';

const START_TIMEOUT_MS = 5000;

/** The browser cannot play this file; the service may well read it. */
export class UnplayableError extends Error {}

export class TurnPlayer {
  /**
   * @param {Blob} file
   * @param {(seconds: number | null) => void} onMove Hears where it plays, and null when it stopped.
   */
  constructor(file, onMove) {
    this.address = URL.createObjectURL(file);
    this.audio = new Audio(this.address);
    this.audio.preload = 'metadata';
    this.onMove = onMove;
    this.turn = null; // the one that is heard
  }

  /** Plays a turn, or stops it if it is being played. */
  async toggle(turn) {
    const isOver = this.turn === turn;
    this.stop();
    if (isOver) return;
    stopPlaying();
    this.turn = turn;
    try {
      this.audio.currentTime = turn.start_s;
      await Promise.race([this.audio.play(), this.giveUp()]);
    } catch (error) {
      if (this.turn === turn) this.stop();
      if (error.name !== 'AbortError') throw new UnplayableError(error.message); // another was chosen
      return;
    }
    this.follow(turn);
  }

  giveUp() {
    return new Promise((_, reject) => setTimeout(() => reject(new Error('no sound')), START_TIMEOUT_MS));
  }

  /** Tells where it plays, and stops at the end of the turn. */
  follow(turn) {
    if (this.turn !== turn) return;
    const { currentTime, ended, paused } = this.audio;
    if (ended || paused || currentTime >= turn.end_s) {
      this.stop();
      return;
    }
    this.onMove(currentTime);
    requestAnimationFrame(() => this.follow(turn));
  }

  stop() {
    this.audio.pause();
    if (this.turn === null) return;
    this.turn = null;
    this.onMove(null);
  }

  /** Lets go of the file. */
  close() {
    this.stop();
    this.audio.removeAttribute('src');
    URL.revokeObjectURL(this.address);
  }
}
