// An enrolment that is under way on the service: it gets recordings as they come, and says how far it is.

import * as api from './api.js';

const GONE = ['unknown-enrolment', 'other-model']; // codes: it has to be begun anew

export class Enrolment {
  constructor() {
    this.queue = Promise.resolve(); // one request after the other
    this.restart();
  }

  restart() {
    this.document = null; // what the service says of it, once it is begun
    this.numbers = new Map(); // recording -> its number there
  }

  has(recording) {
    return this.numbers.has(recording);
  }

  /** What the service says of a recording. */
  partOf(recording) {
    return this.parts.find(({ number }) => number === this.numbers.get(recording));
  }

  get parts() {
    return this.document?.recordings ?? [];
  }

  /** The recordings that don't have the voice of the others. */
  get apart() {
    return this.parts.filter(({ agrees }) => !agrees);
  }

  /** Puts a recording in the place of another; null stands for none. */
  replace(before, recording) {
    return this.inTurn(async () => {
      if (this.has(before)) {
        const number = this.numbers.get(before);
        this.numbers.delete(before);
        await this.insist(async () => {
          if (!this.parts.some((part) => part.number === number)) return; // gone with all others
          this.document = await api.removePart(this.document.id, number);
        });
      }
      if (recording) await this.insist(() => this.send(recording));
    });
  }

  /** Says whether those that differ are the speaker's all the same. */
  confirm(isConfirmed) {
    return this.inTurn(async () => {
      for (const { number, confirmed } of this.apart) {
        if (confirmed === isConfirmed) continue;
        this.document = await this.insist(() => api.confirmPart(this.document.id, number, isConfirmed));
      }
    });
  }

  /** Enrols; returns the speaker. */
  finish(name, ifExists) {
    return this.inTurn(() => this.insist(() => api.finishEnrolment(this.document.id, name, ifExists)));
  }

  /** Lets go of it; what doesn't reach the service any more, it forgets in time. */
  giveUp() {
    if (this.document) api.giveUpEnrolment(this.document.id).catch(() => {});
    this.restart();
  }

  inTurn(work) {
    const done = this.queue.then(work);
    this.queue = done.catch(() => {});
    return done;
  }

  async send(recording) {
    this.document ??= await api.beginEnrolment();
    this.document = await api.addPart(this.document.id, recording);
    this.numbers.set(recording, this.parts.at(-1).number);
  }

  /** Does something; if the service has the enrolment no more, it is begun anew from what is here. */
  async insist(work) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof api.ServiceError && GONE.includes(error.code))) throw error;
      const sent = [...this.numbers.keys()];
      const confirmed = sent.filter((recording) => this.partOf(recording).confirmed);
      this.restart();
      for (const recording of sent) await this.send(recording);
      for (const recording of confirmed) {
        this.document = await api.confirmPart(this.document.id, this.numbers.get(recording), true);
      }
      return work();
    }
  }
}
