// Gets one recording of a voice: from the microphone, or from a file that is chosen or dropped.

import * as api from './api.js';
import { announce, byId, takeDrops } from './dom.js';
import { label, say, t, translate } from './language.js';
import { Meter } from './meter.js';
import { Recording } from './microphone.js';
import { decode, playOnPress, stopPlaying, toAudioBuffer } from './player.js';
import { showError, showWords } from './problem.js';
import { adviceCodes, showQuality } from './quality.js';
import { Wave, encodeWav } from './waveform.js';

let current = null; // one recording at a time
let refused = null; // the card that said so

/**
 * A card that holds one recording.
 *
 * Its `recording` is null or { blob, name }. It sends 'change' when that changed and 'begin' when a
 * recording begins.
 */
export class Capture extends EventTarget {
  /**
   * @param {HTMLElement} place Where to put the card.
   * @param {object} options
   * @param {[string, object]} options.title Key and values of its accessible name.
   * @param {number} options.maxSeconds Where a recording ends by itself.
   * @param {string} [options.sentence] Key of a sentence to read.
   * @param {boolean} [options.showTitle] Whether the title is seen too.
   * @param {boolean} [options.takesMany] Whether several files may be chosen or dropped: one after the other
   *   becomes the recording, each once `handled` of the one before, a promise of the view's, is done.
   * @param {() => number} options.maxBytes Upload limit of the service.
   */
  constructor(place, { title, maxSeconds, sentence, showTitle, takesMany = false, maxBytes }) {
    super();
    this.takesMany = takesMany;
    this.takesFiles = true;
    this.handled = null;
    this.maxSeconds = maxSeconds;
    this.maxBytes = maxBytes;
    this.recording = null;
    this.element = byId('capture-template').content.firstElementChild.cloneNode(true);
    this.parts = {};
    for (const part of this.element.querySelectorAll('[data-part]')) this.parts[part.dataset.part] = part;
    this.parts.file.multiple = takesMany;
    translate(this.element);
    label(this.element, ...title);
    if (showTitle) {
      this.heading = document.createElement('h2');
      this.element.prepend(say(this.heading, ...title));
    }
    if (sentence) say(this.parts.sentence, sentence);
    place.append(this.element);
    this.listen();
  }

  /** Lets files be chosen and dropped, or not. */
  allowFiles(isAllowed) {
    this.takesFiles = isAllowed;
    this.show(this.element.dataset.state ?? 'idle');
  }

  /** Gives the card another title. */
  retitle(key, values) {
    label(this.element, key, values);
    say(this.heading, key, values);
  }

  listen() {
    const { record, done, cancel, choose, file, play } = this.parts;
    record.addEventListener('click', () => this.record());
    done.addEventListener('click', () => current?.finish());
    cancel.addEventListener('click', () => current?.cancel());
    choose.addEventListener('click', () => file.click());
    file.addEventListener('change', () => {
      this.takeFiles([...file.files]);
      file.value = ''; // the same file can be chosen again
    });
    playOnPress(play, async () => this.sound, (error) => this.fail(error));
    this.element.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') current?.cancel();
    });
    takeDrops(this.element, (files) => {
      if (!this.takesFiles) return;
      if (files.length === 1 || (files.length && this.takesMany)) this.takeFiles([...files]);
      else showWords(this.parts.error, files.length ? 'drop_one' : 'drop_no_file');
    });
  }

  /** Shows the buttons of a state: idle, opening, recording or ready. */
  show(state) {
    const { record, done, cancel, play, choose, drop, recording, sound } = this.parts;
    const isRecording = state === 'recording';
    const isFree = state === 'idle' || state === 'ready';
    this.element.dataset.state = state;
    recording.hidden = done.hidden = !isRecording;
    cancel.hidden = isFree;
    record.hidden = !isFree;
    choose.hidden = drop.hidden = !(isFree && this.takesFiles);
    play.hidden = !(state === 'ready' && this.sound);
    sound.hidden = !(isRecording || (state === 'ready' && this.sound));
    say(this.parts['record-text'], state === 'ready' ? 'record_again' : 'record');
  }

  /** Whether the keyboard's focus is in here, and has to stay when buttons come and go. */
  hasFocus() {
    return this.element.contains(document.activeElement);
  }

  clear() {
    this.recording = null;
    this.file = null;
    this.sound = null;
    this.parts.quality.hidden = true;
    this.parts.busy.hidden = true;
    showError(this.parts.error, null);
  }

  reset() {
    this.clear();
    this.show('idle');
  }

  fail(error) {
    showError(this.parts.error, error);
  }

  /** Whether a recording is in progress, here or in another card; says so. */
  isRefused() {
    if (!current) return false;
    refused = this;
    showWords(this.parts.error, 'recording_in_progress');
    return true;
  }

  async record() {
    if (this.isRefused()) return;
    stopPlaying();
    this.clear();
    this.dispatchEvent(new Event('begin'));
    this.dispatchEvent(new Event('change'));
    this.show('opening');
    say(this.parts.busy, 'microphone_opening');
    this.parts.cancel.focus();
    current = new Recording(this.maxSeconds, (...block) => this.meter(...block));
    let result = null;
    let failure = null;
    try {
      result = await current.run();
    } catch (error) {
      failure = error;
    }
    current = null;
    if (refused) showError(refused.parts.error, null);
    refused = null;
    if (failure) this.fail(failure);
    this.parts.busy.hidden = true;
    const hadFocus = this.hasFocus();
    if (result === null) {
      this.show('idle');
      if (this.parts.error.hidden) announce('recording_cancelled');
      if (hadFocus) this.parts.record.focus();
      return;
    }
    const { samples, sampleRate } = result;
    const seconds = (samples.length / sampleRate).toFixed(1);
    this.keep({ blob: encodeWav(samples, sampleRate), name: 'recording.wav' }, toAudioBuffer(samples, sampleRate));
    announce('recording_done', { seconds });
    if (hadFocus) this.parts.play.focus();
  }

  /** Shows a block of a recording in progress. */
  meter(block, sampleRate, seconds) {
    if (this.element.dataset.state !== 'recording') {
      const hadFocus = this.hasFocus();
      this.show('recording');
      this.parts.busy.hidden = true;
      if (hadFocus) this.parts.done.focus();
      this.wave = new Wave(this.parts.wave, this.maxSeconds * sampleRate);
      this.levels = new Meter(this.parts);
      announce('recording_now', { seconds: this.maxSeconds });
    }
    this.wave.add(block);
    const left = Math.max(0, this.maxSeconds - seconds).toFixed(1);
    say(this.parts.seconds, 'seconds_left', { seconds: left });
    this.levels.add(block, seconds);
  }

  /** Takes files one after the other, until one can't be used. */
  async takeFiles(files) {
    for (const file of files) {
      await this.takeFile(file);
      await this.handled;
      if (!this.parts.error.hidden) break;
    }
  }

  async takeFile(file) {
    if (this.isRefused()) return;
    stopPlaying();
    this.clear();
    this.file = file;
    this.dispatchEvent(new Event('change'));
    this.show('idle');
    const limit = this.maxBytes();
    const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
    if (file.size > limit) {
      const values = { size: megabytes(file.size), limit: megabytes(limit) };
      return showWords(this.parts.error, 'file_too_large', values);
    }
    let blob;
    let sound = null;
    try {
      blob = new Blob([await file.arrayBuffer()]); // later the file may have changed
    } catch {
      if (this.file === file) showWords(this.parts.error, 'file_unreadable');
      return;
    }
    if (blob.size > 0) {
      try {
        sound = await decode(await blob.arrayBuffer());
      } catch {
        // The browser can't play it; the service may well read it.
      }
    }
    if (this.file !== file) return; // another one was taken meanwhile
    if (blob.size === 0) showWords(this.parts.error, 'file_empty');
    else this.keep({ blob, name: file.name }, sound);
  }

  /** Takes a recording, draws it and tells the page. */
  keep(recording, sound) {
    this.recording = recording;
    this.sound = sound;
    this.show('ready');
    if (sound) {
      const samples = sound.getChannelData(0);
      new Wave(this.parts.wave, samples.length).add(samples);
    }
    const seconds = sound?.duration.toFixed(1);
    say(this.parts.seconds, 'seconds', { seconds });
    this.dispatchEvent(new Event('change'));
  }

  /** Shows that the service is at work on it, until `work` is done; returns what that returns. */
  async during(work) {
    say(this.parts.busy, 'working');
    try {
      return await work;
    } finally {
      this.parts.busy.hidden = true;
    }
  }

  showQuality(quality) {
    showQuality(this.parts.quality, quality);
  }

  /** After a recording was refused: what is wrong with it, below the refusal. */
  async explain() {
    const { error } = this.parts;
    const kept = [...error.childNodes];
    await this.checkQuality();
    error.replaceChildren(...kept);
    error.hidden = false;
  }

  /** Shows the quality of the recording, measured by the service; false if it can't be used. */
  async checkQuality() {
    const { recording } = this;
    try {
      const quality = await this.during(api.quality(recording));
      if (recording !== this.recording) return false; // another one was made meanwhile
      this.showQuality(quality);
      const [code] = adviceCodes(quality);
      announce(code ? `advice_${code}` : 'quality_is_good', { seconds: 3 });
      return true;
    } catch (error) {
      if (recording === this.recording) this.fail(error);
      return false;
    }
  }
}

/** Ends a recording in progress, as when the page is left. */
export function abandonRecording() {
  current?.cancel();
  stopPlaying();
}
