// Samples at the device's rate, such as 48 kHz, to those at another, block by block.

const NUM_CROSSINGS = 16; // of the sinc on each side: steep enough to keep speech and cut what would alias
const CUTOFF = 0.9; // of the lower Nyquist frequency

function greatestCommonDivisor(a, b) {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}

const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

/** A polyphase filter: a sinc under a Hann window, one set of weights for each fraction of a sample. */
export class Resampler {
  /** @param {number} from Rate of the blocks, in Hz. @param {number} to Rate of what comes out, in Hz. */
  constructor(from, to) {
    const divisor = greatestCommonDivisor(from, to);
    this.up = to / divisor;
    this.down = from / divisor;
    const cutoff = CUTOFF * Math.min(1, to / from); // of the Nyquist frequency of the blocks
    this.reach = Math.ceil(NUM_CROSSINGS / cutoff); // samples on each side
    this.phases = Array.from({ length: this.up }, (_, phase) => this.weights(phase / this.up, cutoff));
    this.kept = new Float32Array(this.reach); // the last samples; before the first there is silence
    this.first = -this.reach; // number of the first sample that is kept
    this.next = 0; // number of the next sample that comes out
  }

  weights(fraction, cutoff) {
    return Float32Array.from({ length: 2 * this.reach }, (_, tap) => {
      const x = tap - this.reach + 1 - fraction;
      const window = 0.5 + 0.5 * Math.cos((Math.PI * x) / this.reach);
      return Math.abs(x) < this.reach ? cutoff * sinc(cutoff * x) * window : 0;
    });
  }

  /** Takes a block, and returns what can be told by now; the rest comes with the next blocks. */
  push(block) {
    const samples = new Float32Array(this.kept.length + block.length);
    samples.set(this.kept);
    samples.set(block, this.kept.length);
    const out = [];
    for (;;) {
      const position = this.next * this.down;
      const start = Math.floor(position / this.up) - this.reach + 1 - this.first;
      if (start + 2 * this.reach > samples.length) {
        const dropped = Math.min(samples.length, Math.max(0, start));
        this.kept = samples.slice(dropped);
        this.first += dropped;
        return Float32Array.from(out);
      }
      const weights = this.phases[position % this.up];
      let sum = 0;
      for (let tap = 0; tap < weights.length; tap += 1) sum += weights[tap] * samples[start + tap];
      out.push(sum);
      this.next += 1;
    }
  }
}
