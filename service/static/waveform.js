// Samples: to a WAV file, to the picture of a waveform, to levels.

const PCM = 1;
const BYTES_PER_SAMPLE = 2;
const HEADER_BYTES = 44;

/**
 * Encodes mono samples as a 16-bit WAV file, at the rate they have (the service resamples).
 *
 * @param {Float32Array} samples In [-1, 1].
 * @param {number} sampleRate In Hz.
 * @returns {Blob}
 */
export function encodeWav(samples, sampleRate) {
  const dataBytes = samples.length * BYTES_PER_SAMPLE;
  const view = new DataView(new ArrayBuffer(HEADER_BYTES + dataBytes));
  const tag = (offset, text) => {
    for (let i = 0; i < text.length; i += 1) view.setUint8(offset + i, text.charCodeAt(i));
  };
  tag(0, 'RIFF');
  view.setUint32(4, HEADER_BYTES - 8 + dataBytes, true);
  tag(8, 'WAVE');
  tag(12, 'fmt ');
  view.setUint32(16, 16, true); // bytes of this chunk
  view.setUint16(20, PCM, true);
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, sampleRate, true);
  view.setUint32(28, sampleRate * BYTES_PER_SAMPLE, true);
  view.setUint16(32, BYTES_PER_SAMPLE, true);
  view.setUint16(34, 8 * BYTES_PER_SAMPLE, true);
  tag(36, 'data');
  view.setUint32(40, dataBytes, true);
  for (let i = 0; i < samples.length; i += 1) {
    const sample = Math.round(32768 * samples[i]);
    view.setInt16(HEADER_BYTES + 2 * i, Math.max(-32768, Math.min(32767, sample)), true);
  }
  return new Blob([view], { type: 'audio/wav' });
}

/** The largest absolute sample. */
export function peak(samples) {
  let largest = 0;
  for (const sample of samples) largest = Math.max(largest, Math.abs(sample));
  return largest;
}

/** The level of samples in dB relative to full scale, from -100. */
export function levelDb(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  return decibels(Math.sqrt(sum / Math.max(1, samples.length)));
}

export function decibels(amplitude) {
  return 20 * Math.log10(Math.max(amplitude, 1e-5));
}

/** A waveform's picture while it grows: one bar a time slice, over the longest duration. */
export class Wave {
  /**
   * @param {SVGSVGElement} svg With a viewBox of one unit a bar and a path inside.
   * @param {number} totalSamples What fills the picture.
   */
  constructor(svg, totalSamples) {
    this.path = svg.querySelector('path');
    this.height = svg.viewBox.baseVal.height;
    this.samplesPerBar = Math.max(1, totalSamples / svg.viewBox.baseVal.width);
    this.position = 0;
    this.bars = [];
    this.path.setAttribute('d', '');
  }

  add(samples) {
    for (const sample of samples) {
      const bar = Math.floor(this.position / this.samplesPerBar);
      this.bars[bar] = Math.max(this.bars[bar] ?? 0, Math.abs(sample));
      this.position += 1;
    }
    this.draw();
  }

  draw() {
    const middle = this.height / 2;
    const commands = this.bars.map((value, bar) => {
      // The square root lets quiet speech be seen; the minimum, silence.
      const half = Math.max(0.6, (middle - 1) * Math.sqrt(value));
      return `M${bar + 0.5} ${(middle - half).toFixed(1)}v${(2 * half).toFixed(1)}`;
    });
    this.path.setAttribute('d', commands.join(''));
  }
}
