// Runs on the browser's audio thread: collects its quanta of 128 samples into larger blocks.

const BLOCK = 1024; // samples: 21 ms at 48 kHz, fine enough for a level meter

class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Float32Array(BLOCK);
    this.filled = 0;
  }

  process([input]) {
    const channel = input[0];
    if (channel) {
      this.block.set(channel, this.filled);
      this.filled += channel.length;
      if (this.filled === BLOCK) {
        this.port.postMessage(this.block, [this.block.buffer]);
        this.block = new Float32Array(BLOCK);
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor('microphone', Microphone);
