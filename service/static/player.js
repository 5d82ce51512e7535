// Plays recordings through Web Audio: sound that needs a token to fetch, or was never a file, has no
// address that an <audio> element could have.

import { relabel } from './dom.js';

let context;
let stopCurrent = () => {};

/**
 * Makes a button play and stop a sound. One sound plays at a time.
 *
 * @param {HTMLButtonElement} button With a span for its text.
 * @param {() => Promise<AudioBuffer>} load
 * @param {(error: Error) => void} onError
 */
export function playOnPress(button, load, onError) {
  let isPlaying = false;
  const show = (playing) => {
    isPlaying = playing;
    const word = playing ? 'stop' : 'play';
    relabel(button, word, word);
  };
  button.addEventListener('click', async () => {
    if (isPlaying) {
      stopCurrent();
      return;
    }
    stopCurrent();
    try {
      context ??= new AudioContext();
      await context.resume();
      const source = new AudioBufferSourceNode(context, { buffer: await load() });
      source.connect(context.destination);
      stopCurrent();
      stopCurrent = () => source.stop();
      source.addEventListener('ended', () => show(false));
      show(true);
      source.start();
    } catch (error) {
      show(false);
      onError(error);
    }
  });
}

/** Stops what is playing, as when a recording begins. */
export function stopPlaying() {
  stopCurrent();
  stopCurrent = () => {};
}

/** Decodes a sound file; rejects where the browser cannot. */
export function decode(bytes) {
  return new OfflineAudioContext(1, 1, 48000).decodeAudioData(bytes);
}

/** Makes an AudioBuffer of mono samples. */
export function toAudioBuffer(samples, sampleRate) {
  const buffer = new AudioBuffer({ length: samples.length, sampleRate, numberOfChannels: 1 });
  buffer.copyToChannel(samples, 0);
  return buffer;
}
