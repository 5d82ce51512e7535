// "Who is speaking now?": the microphone, streamed to the service; the name follows who speaks.

import { announce, button, byId, made } from './dom.js';
import { clock } from './clock.js';
import { label, say } from './language.js';
import { Meter } from './meter.js';
import { Recording } from './microphone.js';
import { askName, stopAsking } from './naming.js';
import { stopPlaying } from './player.js';
import { showError } from './problem.js';
import { Resampler } from './resampler.js';
import { round } from './scale.js';
import { SAMPLE_RATE, Stream } from './stream.js';
import { Talk } from './talk.js';
import { Timeline } from './timeline.js';
import { makeVoice } from './voices.js';

const SEEN_S = 60; // of the timeline, while it runs
const DRAW_EVERY_S = 0.25;

let session = null;
let timeline;

/** One stretch of listening, from Start to Stop. */
class Session {
  constructor() {
    this.talk = new Talk();
    this.stream = new Stream();
    this.resampler = null;
    this.error = null;
    this.isListening = this.isDone = false;
    this.begun = new Promise((resolve) => {
      this.begin = resolve;
    });
    this.heard = 0; // seconds
    this.drawn = 0;
    this.voices = ''; // what the list of voices shows
    this.meter = new Meter({ level: byId('live-level'), peak: byId('live-peak'), loudness: byId('live-loudness') });
    this.microphone = new Recording(Infinity, (...block) => this.hear(...block), { keeps: false });
    this.stream.addEventListener('heard', (event) => {
      this.talk.take(event.detail);
      this.showSpeaker();
      this.draw();
    });
    this.stream.addEventListener('over', (event) => {
      this.error ??= event.detail;
      this.microphone.cancel();
    });
  }

  /** Listens until it is stopped; throws what went wrong. */
  async run() {
    const awake = keepAwake();
    try {
      // The stream is opened once the microphone gives sound: the user may take long to allow it.
      const listening = this.microphone.run();
      await Promise.race([this.begun, listening]);
      if (this.isListening) await Promise.race([this.stream.open(), listening]);
      await listening;
      await this.settle();
      if (this.error) throw this.error;
    } finally {
      this.microphone.cancel();
      this.stream.end();
      (await awake)?.release();
    }
  }

  /** Waits for the events that are still due. */
  settle() {
    if (this.stream.isOver) return null;
    return new Promise((resolve) => {
      this.stream.addEventListener('over', resolve);
      this.stream.end();
    });
  }

  hear(block, rate, seconds) {
    if (!this.isListening) {
      this.isListening = true;
      this.begin();
      showState('listening');
    }
    this.resampler ??= new Resampler(rate, SAMPLE_RATE);
    this.stream.send(this.resampler.push(block));
    this.meter.add(block, seconds);
    this.heard = seconds;
    this.talk.advance(seconds);
    if (seconds - this.drawn >= DRAW_EVERY_S) this.draw();
  }

  /** Shows who is speaking. */
  showSpeaker() {
    const { current } = this.talk;
    const place = byId('live-name');
    if (!current) {
      byId('live-card').className = 'card live';
      say(place, 'live_silence');
      say(byId('live-detail'), 'live_waits');
      return;
    }
    if (current.speaker === null) {
      byId('live-card').className = 'card live';
      say(place, 'live_somebody');
      say(byId('live-detail'), 'live_somebody_detail');
      return;
    }
    const speaker = this.talk.speakers.get(current.speaker);
    byId('live-card').className = `card live speaks ${speaker.colour}`;
    say(place, 'echo', { text: this.talk.nameOf(current.speaker) });
    if (speaker.name === null) say(byId('live-detail'), 'live_unknown');
    else say(byId('live-detail'), 'live_score', { score: current.score === null ? '–' : round(current.score) });
  }

  draw() {
    this.drawn = this.heard;
    const speakers = [...this.talk.speakers.values()].map(({ key, colour }) => ({ key, colour, name: this.talk.nameOf(key) }));
    const from = this.isDone ? 0 : Math.max(0, this.heard - SEEN_S);
    timeline.show(speakers, this.talk.drawn, from, this.isDone ? this.heard : from + SEEN_S);
    if (!this.isDone) timeline.mark(this.heard);
    this.showVoices();
  }

  showVoices() {
    const shown = JSON.stringify([this.isDone, [...this.talk.speakers.keys()]]);
    if (shown !== this.voices) {
      this.voices = shown;
      byId('live-voices').replaceChildren(...[...this.talk.speakers.keys()].map((key) => this.makeVoice(key)));
    }
    for (const [key, item] of [...this.talk.speakers.keys()].map((key, i) => [key, byId('live-voices').children[i]])) {
      say(item.querySelector('.hint'), 'live_facts', this.factsOf(key));
    }
  }

  factsOf(key) {
    const { turns, seconds } = this.talk.figures(key);
    return { turns, time: clock(seconds) };
  }

  makeVoice(key) {
    const { name, number, colour } = this.talk.speakers.get(key);
    const buttons = [];
    if (name === null && this.isDone) buttons.push(made('span', 'hint', 'live_too_late'));
    else if (name === null) {
      const enrol = button('voice_enrol', () => this.ask(key, number));
      buttons.push(label(enrol, 'voice_enrol_label', { name: this.talk.nameOf(key) }));
    }
    return makeVoice({ name: this.talk.nameOf(key), colour, facts: ['live_facts', this.factsOf(key)], buttons });
  }

  ask(key, number) {
    askName(['naming_title', { name: this.talk.nameOf(key) }], null, async (name, ifExists) => {
      const enrolled = await this.stream.enrol(number, name, ifExists);
      announce('enrolled', { name: enrolled });
    });
  }

  stop() {
    this.microphone.cancel();
  }

  /** Shows the whole, once it is over. */
  close() {
    this.isDone = true;
    this.talk.current = null;
    this.draw();
    stopAsking();
  }
}

/** Keeps a phone's screen on, where the browser can: without it the page would stop listening. */
async function keepAwake() {
  try {
    return await navigator.wakeLock?.request('screen');
  } catch {
    return null; // it's a comfort only
  }
}

export function set() {
  timeline = new Timeline(byId('live-timeline'), false);
  byId('live-start').addEventListener('click', start);
  byId('live-stop').addEventListener('click', () => session?.stop());
}

export function show() {
  if (!session) showState('idle');
}

/** Lets go of the microphone when the view is left. */
export function leave() {
  session?.stop();
}

function showState(state) {
  const isRunning = state !== 'idle';
  byId('live-start').hidden = isRunning;
  byId('live-stop').hidden = !isRunning;
  byId('live-meter').hidden = byId('live-loudness').hidden = state !== 'listening';
  if (state === 'opening') say(byId('live-busy'), 'microphone_opening');
  else byId('live-busy').hidden = true;
}

async function start() {
  if (session) return;
  stopPlaying();
  showError(byId('live-error'), null);
  session = new Session();
  showState('opening');
  session.showSpeaker();
  byId('live-stop').focus();
  try {
    await session.run();
    announce('live_stopped');
  } catch (error) {
    showError(byId('live-error'), error);
  }
  session.close();
  session = null;
  showState('idle');
  byId('live-card').className = 'card live';
  say(byId('live-name'), 'live_over');
  byId('live-detail').hidden = true;
  byId('live-start').focus();
}
