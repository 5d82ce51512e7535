// The live stream: samples to the service, events back (WS /v1/stream of docs/service.md).

import * as api from './api.js';

export const SAMPLE_RATE = 16000;
const FRAME = 1600; // samples: 0.1 s
const MOST_BEHIND_BYTES = 8 * 2 * SAMPLE_RATE; // 8 s that the network hasn't taken: it's too slow
const OPEN_TIMEOUT_MS = 8000;
const END_TIMEOUT_MS = 5000;
const CLOSE_BASE = 4000; // and the problem's status: the code of a close
const STOPPING = 1012;

/** The network takes the samples more slowly than they come. */
export class SlowNetworkError extends Error {}

/**
 * One stream. It sends 'heard' ({ detail: event of the service }) and, once, 'over' ({ detail: error or
 * null }).
 */
export class Stream extends EventTarget {
  constructor() {
    super();
    this.rest = new Int16Array(0); // what isn't sent yet
    this.isReady = false;
    this.enrolment = null; // { resolve, reject } of the one that is asked for
    this.problem = null;
    this.isOver = false;
  }

  /** Resolves once the service listens. */
  open() {
    return new Promise((resolve, reject) => {
      this.opened = { resolve, reject };
      this.socket = api.openStream();
      this.socket.binaryType = 'arraybuffer';
      this.socket.addEventListener('open', () => {
        this.socket.send(JSON.stringify({ ...api.credentials(), sample_rate: SAMPLE_RATE }));
      });
      this.socket.addEventListener('message', (message) => this.take(JSON.parse(message.data)));
      this.socket.addEventListener('close', (event) => this.finish(this.reasonOf(event)));
      this.timer = setTimeout(() => this.finish(new api.OfflineError('stream')), OPEN_TIMEOUT_MS);
    });
  }

  take(event) {
    if (event.event === 'ready') {
      clearTimeout(this.timer);
      this.isReady = true;
      this.send(new Float32Array(0)); // what came meanwhile
      this.opened.resolve(event);
    } else if (event.event === 'enrolled') {
      this.dispatchEvent(new CustomEvent('heard', { detail: event }));
      this.enrolment?.resolve(event.name);
      this.enrolment = null;
    } else if (event.event === 'error') {
      const error = new api.ServiceError(event.status, event, event.retry_after_s ?? 1);
      if (this.enrolment) this.enrolment.reject(error);
      else this.problem = error;
      this.enrolment = null;
    } else if (event.event === 'end') {
      this.finish(null);
    } else {
      this.dispatchEvent(new CustomEvent('heard', { detail: event }));
    }
  }

  /** Why the connection was closed. */
  reasonOf({ code, reason }) {
    if (this.problem) return this.problem;
    if (code > CLOSE_BASE) {
      const [type] = /[a-z-]+$/.exec(reason.split(/[:\s]/)[0]) ?? ['']; // "/problems/busy: ..." -> "busy"
      return new api.ServiceError(code - CLOSE_BASE, { type, detail: reason }, 1);
    }
    if (code === STOPPING) return new api.ServiceError(503, { type: 'stopping' }, 1);
    return new api.OfflineError('stream');
  }

  finish(error) {
    if (this.isOver) return;
    this.isOver = true;
    clearTimeout(this.timer);
    this.socket?.close();
    this.enrolment?.reject(error ?? new api.OfflineError('stream'));
    this.opened?.reject(error ?? new api.OfflineError('stream'));
    this.dispatchEvent(new CustomEvent('over', { detail: error }));
  }

  /** Sends samples in [-1, 1] at SAMPLE_RATE; those that come before the service listens wait for it. */
  send(samples) {
    if (this.isOver) return;
    const all = new Int16Array(this.rest.length + samples.length);
    all.set(this.rest);
    samples.forEach((sample, i) => {
      all[this.rest.length + i] = Math.max(-32768, Math.min(32767, Math.round(32768 * sample)));
    });
    const whole = this.isReady ? all.length - (all.length % FRAME) : 0;
    for (let start = 0; start < whole; start += FRAME) this.socket.send(all.slice(start, start + FRAME));
    this.rest = all.slice(whole);
    if (this.socket?.bufferedAmount > MOST_BEHIND_BYTES) this.finish(new SlowNetworkError());
  }

  /** Enrols an unknown speaker from what was heard; resolves with the name. */
  enrol(number, name, ifExists) {
    if (this.isOver) return Promise.reject(new api.OfflineError('stream'));
    return new Promise((resolve, reject) => {
      this.enrolment = { resolve, reject };
      this.socket.send(JSON.stringify({ enrol: number, name, if_exists: ifExists }));
    });
  }

  /** Ends the stream; what is still due comes before 'over'. */
  end() {
    if (this.isOver) return;
    if (!this.isReady) {
      this.finish(null);
      return;
    }
    if (this.rest.length) this.socket.send(this.rest);
    this.socket.send(JSON.stringify({ end: true }));
    this.timer = setTimeout(() => this.finish(null), END_TIMEOUT_MS);
  }
}
