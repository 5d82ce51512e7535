// Records mono samples from the microphone at the rate of the device.

import { peak } from './waveform.js';

const WORKLET_URL = new URL('microphone-worklet.js', import.meta.url);
const START_TIMEOUT_S = 4; // a microphone that has sent nothing by then sends nothing
const SCRIPT_BLOCK = 2048; // samples, for browsers without AudioWorklet

// What makes a telephone call pleasant changes the voice: echo cancellation and noise suppression
// cut parts of it, automatic gain makes a whisper of a neighbour as loud as the speaker.
const CONSTRAINTS = {
  channelCount: 1,
  echoCancellation: false,
  noiseSuppression: false,
  autoGainControl: false,
};

/** reason: insecure, unsupported, refused, absent, busy, lost, silent or failed. */
export class MicrophoneError extends Error {
  constructor(reason, detail = '') {
    super(detail || reason);
    this.reason = reason;
  }
}

const REASONS = {
  NotAllowedError: 'refused',
  SecurityError: 'refused',
  NotFoundError: 'absent',
  OverconstrainedError: 'absent', // so WebKit calls it
  NotReadableError: 'busy',
  AbortError: 'busy',
};

async function openStream() {
  if (!window.isSecureContext) throw new MicrophoneError('insecure');
  if (!navigator.mediaDevices?.getUserMedia) throw new MicrophoneError('unsupported');
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: CONSTRAINTS });
  } catch (error) {
    throw new MicrophoneError(REASONS[error.name] ?? 'failed', error.name);
  }
}

/** A node that hands blocks of samples to onBlock. */
async function makeTap(context, onBlock) {
  if (context.audioWorklet) {
    await context.audioWorklet.addModule(WORKLET_URL);
    const node = new AudioWorkletNode(context, 'microphone', {
      channelCount: 1, channelCountMode: 'explicit', // two channels are mixed to one
    });
    node.port.onmessage = (event) => onBlock(event.data);
    return node;
  }
  const node = context.createScriptProcessor(SCRIPT_BLOCK, 1, 1);
  node.onaudioprocess = (event) => onBlock(event.inputBuffer.getChannelData(0).slice());
  return node;
}

function letGo(stream) {
  for (const track of stream.getTracks()) track.stop();
}

/**
 * A recording in progress.
 *
 *   const recording = new Recording(8, (block, sampleRate, seconds) => ...);
 *   const { samples, sampleRate } = await recording.run();   // null when cancelled
 *
 * finish() ends it early and keeps it, cancel() drops it. The microphone is let go in every case.
 * With { keeps: false }, only onBlock gets the samples, and run() returns null; it may last for ever.
 */
export class Recording {
  constructor(maxSeconds, onBlock, { keeps = true } = {}) {
    this.maxSeconds = maxSeconds;
    this.keeps = keeps;
    this.onBlock = onBlock;
    this.blocks = [];
    this.numSamples = 0;
    this.outcome = new Promise((resolve, reject) => {
      this.finish = () => resolve('finished');
      this.cancel = () => resolve('cancelled');
      this.fail = reject;
    });
    this.outcome.catch(() => {}); // it may fail before run() waits for it
  }

  async run() {
    let stream = null;
    let context = null;
    try {
      if (typeof AudioContext === 'undefined') throw new MicrophoneError('unsupported');
      // Made at once, inside the press of the button: Safari starts it only there.
      context = new AudioContext();
      stream = await this.openUnlessCancelled();
      if (stream === null) return null;
      for (const track of stream.getTracks()) {
        track.addEventListener('ended', () => this.fail(new MicrophoneError('lost')));
      }
      context.resume().catch(() => {}); // waits for ever where there is nothing to play sound on
      const tap = await makeTap(context, (block) => this.take(block, context.sampleRate));
      const mute = new GainNode(context, { gain: 0 });
      // Browsers run a node only if its sound goes somewhere.
      context.createMediaStreamSource(stream).connect(tap).connect(mute).connect(context.destination);
      const start = setTimeout(() => {
        if (this.numSamples === 0) this.fail(new MicrophoneError('busy'));
      }, 1000 * START_TIMEOUT_S);
      this.outcome.catch(() => {}).then(() => clearTimeout(start));
      if ((await this.outcome) === 'cancelled' || !this.keeps) return null;
      return this.result(context.sampleRate);
    } catch (error) {
      if (error instanceof MicrophoneError) throw error;
      throw new MicrophoneError('failed', error.name);
    } finally {
      this.isOver = true;
      if (stream) letGo(stream);
      await context?.close();
    }
  }

  /** Opens the microphone; null when the user changed her mind before answering the browser. */
  async openUnlessCancelled() {
    const opening = openStream();
    const stream = await Promise.race([opening, this.outcome.then(() => null)]);
    if (stream === null) opening.then(letGo, () => {});
    return stream;
  }

  take(block, sampleRate) {
    if (this.isOver) return;
    const room = Math.round(this.maxSeconds * sampleRate) - this.numSamples;
    const kept = block.length > room ? block.subarray(0, room) : block;
    if (this.keeps) this.blocks.push(kept);
    this.numSamples += kept.length;
    this.onBlock(kept, sampleRate, this.numSamples / sampleRate);
    if (block.length >= room) {
      this.isOver = true;
      this.finish();
    }
  }

  result(sampleRate) {
    const samples = new Float32Array(this.numSamples);
    let position = 0;
    for (const block of this.blocks) {
      samples.set(block, position);
      position += block.length;
    }
    if (peak(samples) === 0) throw new MicrophoneError('silent');
    return { samples, sampleRate };
  }
}
