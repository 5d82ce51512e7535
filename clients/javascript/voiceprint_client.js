/**
 * Client of the voiceprint service: one ES module without dependencies, for Node 18 or later and
 * browsers.
 *
 *     import { readFile } from 'node:fs/promises';
 *     import { VoiceprintClient } from './voiceprint_client.js';
 *
 *     const client = new VoiceprintClient('https://voice.example.com', { token: '...' });
 *     await client.enrol('xiaoming', [await readFile('monday.wav'), await readFile('tuesday.wav')]);
 *     console.log((await client.identify(await readFile('unknown.wav'))).name);
 *
 * A recording is the content of a file (Blob, File, Buffer, Uint8Array or ArrayBuffer) in any format
 * that the service reads. Answers are the documents of the service (docs/service.md). A refusal is a
 * ServiceProblem, no answer at all a ServiceUnreachable; both are VoiceprintError.
 *
 * Redirects are not followed: recordings go to the given address only.
 */

/**
 * @typedef {Blob | ArrayBuffer | ArrayBufferView} Recording
 *
 * @typedef {object} Quality  Lengths in seconds, levels in dB relative to full scale.
 * @property {number} duration_s
 * @property {number} speech_s
 * @property {number} level_dbfs
 * @property {number} peak_dbfs
 * @property {number} clipped_fraction
 * @property {number} noise_dbfs
 * @property {number} snr_db
 * @property {string} heard
 * @property {string[]} warnings
 *
 * @typedef {object} Rates  What a threshold led to where it was found; rates are fractions.
 * @property {number} threshold
 * @property {number} false_accept_rate
 * @property {number} worst_rate
 * @property {string} worst_group
 * @property {number} miss_rate
 * @property {number} num_trials
 *
 * @typedef {object} Info  Without a valid token only auth_required and version.
 * @property {boolean} auth_required
 * @property {string} version
 * @property {string} [token]
 * @property {string[]} [scopes]
 * @property {string} [group]
 * @property {string[]} [groups]
 * @property {string} [model_id]
 * @property {number} [embedding_size]
 * @property {number} [threshold]
 * @property {number} [strict_threshold]
 * @property {string} [score_norm]
 * @property {{slope: number, offset: number}} [calibration]
 * @property {Rates[]} [rates]
 * @property {number} [min_speech_s]
 * @property {number} [max_duration_s]
 * @property {number} [max_upload_bytes]
 * @property {number} [max_recordings]
 * @property {boolean} [keep_audio]
 * @property {'off' | 'optional' | 'required'} [challenge]
 * @property {number} [num_speakers]
 *
 * @typedef {object} Comparison
 * @property {number} score
 * @property {number} threshold
 * @property {boolean} is_same_speaker
 * @property {number} probability
 * @property {Quality[]} quality
 *
 * @typedef {object} Embedding  Unit length, comparable within one model_id.
 * @property {number[]} embedding
 * @property {string} model_id
 * @property {Quality} quality
 *
 * @typedef {object} ProposedThreshold  Rates are [rate, lower limit, upper limit], fractions.
 * @property {number} promised
 * @property {boolean} is_promised
 * @property {number} in_use
 * @property {number} found
 * @property {number} proposed
 * @property {number[]} false_accepts
 * @property {number[]} misses
 *
 * @typedef {object} Proposal  Thresholds for certain people; `file` is for tools/calibrate.py.
 * @property {number} num_people
 * @property {number} num_pairs
 * @property {number} num_recordings
 * @property {number} confidence
 * @property {ProposedThreshold} strict
 * @property {ProposedThreshold} default
 * @property {{thresholds: number[], false_accepts: number[][], misses: number[][]}} curve
 * @property {Record<string, unknown>} file
 * @property {string[]} commands
 *
 * @typedef {object} Verification
 * @property {string} name
 * @property {number} score
 * @property {number} threshold
 * @property {boolean} is_same_speaker
 * @property {number} probability
 * @property {boolean} challenge_passed
 * @property {Quality} quality
 *
 * @typedef {object} Challenge  Digits to be read aloud, until expires_at; text has them in words.
 * @property {string} id
 * @property {string} digits
 * @property {string} text
 * @property {string} language
 * @property {string | null} speaker
 * @property {string} expires_at
 * @property {number} expires_in_s
 * @property {number} min_speech_s
 *
 * @typedef {object} Identification
 * @property {string | null} name  null if nobody's score reaches the threshold.
 * @property {number | null} score
 * @property {number} threshold
 * @property {{name: string, score: number, probability: number}[]} matches
 * @property {Quality} quality
 *
 * @typedef {object} StoredRecording
 * @property {string} id
 * @property {string} created_at
 * @property {number} speech_s
 * @property {number} duration_s
 * @property {boolean} has_audio
 * @property {boolean} is_comparable
 *
 * @typedef {object} Speaker  Times are UTC, ISO 8601.
 * @property {string} name
 * @property {string} created_at
 * @property {string} updated_at
 * @property {boolean} is_damaged
 * @property {StoredRecording[]} recordings
 *
 * @typedef {object} Enrolment  One that is under way; completeness from 0 to 1.
 * @property {string} id
 * @property {string | null} name
 * @property {string} created_at
 * @property {string} expires_at
 * @property {number} speech_s
 * @property {number} needed_speech_s
 * @property {number} needed_recordings
 * @property {number} completeness
 * @property {'record' | 'decide' | 'finish'} next
 * @property {number[][]} similarity
 * @property {{number: number, agrees: boolean, confirmed: boolean, quality: Quality}[]} recordings
 *
 * @typedef {object} BulkReport  While some are left, send the zip again.
 * @property {number} enrolled
 * @property {number} present
 * @property {number} skipped
 * @property {number} left
 * @property {{recording: string, speaker: string, outcome: string, reason: string}[]} recordings
 *
 * @typedef {object} Job  A long recording that is worked on; progress from 0 to 1.
 * @property {string} id
 * @property {'queued' | 'running' | 'done' | 'failed' | 'cancelled' | 'lost'} state
 * @property {number} progress
 * @property {string} created_at
 * @property {string} expires_at
 * @property {Record<string, unknown> | null} error
 *
 * @typedef {object} FoundSpeaker  name is null for nobody who is enrolled.
 * @property {string} label
 * @property {string | null} name
 * @property {number | null} score
 * @property {number} speech_s
 * @property {number} num_turns
 * @property {boolean} can_be_enrolled
 *
 * @typedef {object} Turn  A stretch of speech of one speaker, whose label is `speaker`.
 * @property {number} start_s
 * @property {number} end_s
 * @property {string} speaker
 * @property {string | null} name
 * @property {number | null} score
 * @property {boolean} is_overlapped
 *
 * @typedef {object} Turns  Who spoke when; times in seconds.
 * @property {string} recording
 * @property {number} duration_s
 * @property {number | null} overlap_share
 * @property {number} threshold
 * @property {FoundSpeaker[]} speakers
 * @property {Turn[]} turns
 *
 * @typedef {Job & {result: Turns | null}} Diarization  result is there once state is "done".
 *
 * @typedef {Speaker & {looks_like: string[]}} NewSpeaker  Others' names that look the same.
 *
 * @typedef {NewSpeaker & {similarity: number[][], quality: Quality[]}} EnrolledSpeaker
 *
 * @typedef {object} SpeakerPage
 * @property {Speaker[]} speakers
 * @property {number} total
 * @property {number} offset
 * @property {number} limit
 * @property {{waiting: number, without_sound: number}} other_models  Recordings of other models.
 *
 * @typedef {{id: number, at: string, actor: string, action: string, speaker: string, outcome: string}} Event
 * @typedef {{events: Event[], next: number}} Events
 * @typedef {{name: string, removed: {embeddings: number, recordings: number, files: string[]}}} Deletion
 */

/** Statuses with which the service asks for a later try; such a request has changed nothing. */
const RETRIED = [429, 503];

/** A stream that is refused closes with this plus the problem's status. */
const CLOSE_BASE = 4000;

/** Whatever the client throws about the service. */
export class VoiceprintError extends Error {
  constructor(message, options) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** No answer: nothing listens, the connection broke, or `timeoutMs` passed. */
export class ServiceUnreachable extends VoiceprintError {}

/** An answer that is no success. */
export class ServiceProblem extends VoiceprintError {
  /**
   * @param {number} status
   * @param {Record<string, unknown>} document
   * @param {Headers} headers
   * @param {string} [text]
   */
  constructor(status, document, headers, text = '') {
    const detail = String(document.detail || document.title || text || `status ${status}`);
    super(detail);
    /** HTTP status. */
    this.status = status;
    /** What to branch on, such as "unknown-speaker"; "" if the answer names none. */
    this.code = String(document.type ?? '').split('/').pop();
    /** What kind of problem it is, a sentence. */
    this.title = String(document.title ?? '');
    /** What happened, a sentence that may be shown. */
    this.detail = detail;
    /** The whole problem document (RFC 9457), {} if the answer was none. */
    this.document = document;
    /** Seconds after which the service asks to try again, else null. */
    this.retryAfterS = seconds(headers.get('Retry-After'));
    /** The request's id in the log of the service, "" if unknown. */
    this.requestId = headers.get('X-Request-Id') ?? '';
  }
}

/** The service at one address. */
export class VoiceprintClient {
  #url;
  #token;
  #group;
  #timeoutMs;
  #maxTries;
  #maxWaitS;
  #fetch;

  /**
   * @param {string | URL} [url] Address of the service; what is in its path comes before /v1.
   * @param {object} [options]
   * @param {string} [options.token] Sent as `Authorization: Bearer`.
   * @param {string} [options.group] Whose speakers requests are about, if the token reaches all groups.
   * @param {number} [options.timeoutMs] Longest time until the whole answer is there.
   * @param {number} [options.maxTries] How often a request is sent at most if the service is too
   *   busy (429, 503).
   * @param {number} [options.maxWaitS] Longest `Retry-After` that is waited for; a longer one is
   *   thrown at once.
   * @param {typeof fetch} [options.fetch] Another than the global one.
   */
  constructor(url = 'http://127.0.0.1:8005', options = {}) {
    const address = new URL(url);
    if (!['http:', 'https:'].includes(address.protocol) || address.search || address.hash) {
      throw new TypeError(`url: received ${url}, expected an address like https://HOST:PORT`);
    }
    const { token, group, timeoutMs = 60_000, maxTries = 4, maxWaitS = 30 } = options;
    if (!Number.isInteger(maxTries) || maxTries < 1) {
      throw new TypeError(`maxTries: received ${maxTries}, expected at least 1`);
    }
    this.#url = address.href.replace(/\/+$/, '');
    this.#token = token;
    this.#group = group;
    this.#timeoutMs = timeoutMs;
    this.#maxTries = maxTries;
    this.#maxWaitS = maxWaitS;
    this.#fetch = options.fetch ?? ((...args) => globalThis.fetch(...args));
  }

  /** The address of the service. */
  get url() {
    return this.#url;
  }

  /**
   * Returns model, thresholds and limits.
   * @returns {Promise<Info>}
   */
  info() {
    return this.#ask('GET', '/v1/info');
  }

  /**
   * Measures a recording; one without speech is measured too.
   * @param {Recording} recording
   * @returns {Promise<Quality>}
   */
  quality(recording) {
    return this.#ask('POST', '/v1/quality', form({ file: [recording] }));
  }

  /**
   * Decides whether two recordings are of one speaker.
   * @param {Recording} first
   * @param {Recording} second
   * @returns {Promise<Comparison>}
   */
  compare(first, second) {
    return this.#ask('POST', '/v1/compare', form({ file1: [first], file2: [second] }));
  }

  /**
   * Returns the embedding of a recording.
   * @param {Recording} recording
   * @returns {Promise<Embedding>}
   */
  embed(recording) {
    return this.#ask('POST', '/v1/embed', form({ file: [recording] }));
  }

  /**
   * Proposes thresholds for certain people and their microphone; nothing is changed or kept.
   * @param {Record<string, Recording[]>} people Several, with several recordings each.
   * @returns {Promise<Proposal>}
   */
  async calibrate(people) {
    const recordings = [];
    let modelId = '';
    for (const [speaker, own] of Object.entries(people)) {
      for (const recording of several(own)) {
        const answer = await this.#ask('POST', '/v1/calibrations/recordings', form({ file: [recording] }));
        recordings.push({ speaker, cuts: answer.cuts });
        modelId = answer.model_id;
      }
    }
    return this.#ask('POST', '/v1/calibrations', JSON.stringify({ model_id: modelId, recordings }));
  }

  /**
   * Says whose voice it is, among all speakers or the candidates (1:N).
   * @param {Recording} recording
   * @param {{candidates?: string[], topK?: number, threshold?: number}} [options]
   * @returns {Promise<Identification>}
   */
  identify(recording, { candidates, topK, threshold } = {}) {
    const fields = { candidates, top_k: topK, threshold };
    return this.#ask('POST', '/v1/identify', form({ file: [recording] }, fields));
  }

  /**
   * Asks for digits to be read: one recording of them may be sent, within a time.
   * @param {string | null} [speaker] The only name that they may be used for.
   * @param {'en' | 'zh'} [language] Of the words.
   * @returns {Promise<Challenge>}
   */
  challenge(speaker = null, language = 'en') {
    return this.#ask('POST', '/v1/challenges', JSON.stringify({ speaker, language }));
  }

  /**
   * Decides whether a recording is of the claimed speaker (1:1).
   * @param {string} name
   * @param {Recording} recording
   * @param {{threshold?: number, challenge?: string}} [options] With the `id` of the challenge
   *   whose digits were read, an old recording is refused (`replayed`, `bad-challenge`).
   * @returns {Promise<Verification>}
   */
  verify(name, recording, { threshold, challenge } = {}) {
    const body = form({ file: [recording] }, { threshold, challenge });
    return this.#ask('POST', `${path(name)}/verify`, body);
  }

  /**
   * Enrols a speaker; a name that is enrolled already is refused (`speaker-exists`).
   * @param {string} name Any name that can be a file name.
   * @param {Recording[]} recordings One or more; several from different days work best.
   * @param {{idempotencyKey?: string, challenge?: string}} [options] A key names this enrolment, so that sending it
   *   again enrols once. Default: one made up for this call, which its own further tries share.
   *   A challenge is as in `verify`, for a single recording.
   * @returns {Promise<EnrolledSpeaker>}
   */
  enrol(name, recordings, { idempotencyKey, challenge } = {}) {
    const body = form({ file: several(recordings) }, { name, challenge });
    return this.#ask('POST', '/v1/speakers', body, onceOnly(idempotencyKey));
  }

  /**
   * Enrols the recordings of a zip, SPEAKER.wav or in folders of speakers, and reports on each.
   * @param {Recording} file
   * @returns {Promise<BulkReport>}
   */
  enrolZip(file) {
    return this.#ask('POST', '/v1/bulk_enrolments', form({ file: [file] }));
  }

  /**
   * Adds recordings to a speaker.
   * @param {string} name
   * @param {Recording[]} recordings
   * @param {{idempotencyKey?: string}} [options] As in `enrol`.
   * @returns {Promise<EnrolledSpeaker>}
   */
  addRecordings(name, recordings, { idempotencyKey } = {}) {
    const body = form({ file: several(recordings) });
    return this.#ask('POST', `${path(name)}/recordings`, body, onceOnly(idempotencyKey));
  }

  /**
   * Replaces all recordings of a speaker.
   * @param {string} name
   * @param {Recording[]} recordings
   * @returns {Promise<EnrolledSpeaker>}
   */
  replaceRecordings(name, recordings) {
    return this.#ask('PUT', `${path(name)}/recordings`, form({ file: several(recordings) }));
  }

  /**
   * Lists a page of the speakers whose names contain `query`.
   * @param {{offset?: number, limit?: number, query?: string}} [options]
   * @returns {Promise<SpeakerPage>}
   */
  speakers({ offset = 0, limit = 50, query = '' } = {}) {
    return this.#ask('GET', `/v1/speakers?${new URLSearchParams({ offset, limit, query })}`);
  }

  /**
   * Yields all speakers whose names contain `query`, page by page.
   * @param {string} [query]
   * @returns {AsyncGenerator<Speaker>}
   */
  async *allSpeakers(query = '') {
    for (let offset = 0; ; ) {
      const page = await this.speakers({ offset, limit: 500, query });
      yield* page.speakers;
      offset += page.speakers.length;
      if (page.speakers.length === 0 || offset >= page.total) return;
    }
  }

  /**
   * Returns what happened after a number; begin with 0, go on with the last `next`.
   * @param {{after?: number, limit?: number}} [options]
   * @returns {Promise<Events>}
   */
  events({ after = 0, limit = 100 } = {}) {
    return this.#ask('GET', `/v1/events?${new URLSearchParams({ after, limit })}`);
  }

  /**
   * Returns a speaker with the enrolled recordings.
   * @param {string} name
   * @returns {Promise<Speaker>}
   */
  speaker(name) {
    return this.#ask('GET', path(name));
  }

  /**
   * Gives a speaker another name.
   * @param {string} name
   * @param {string} newName
   * @returns {Promise<Speaker>}
   */
  rename(name, newName) {
    return this.#ask('PATCH', path(name), JSON.stringify({ name: newName }));
  }

  /**
   * Removes a speaker with all recordings.
   * @param {string} name
   * @returns {Promise<Deletion>}
   */
  delete(name) {
    return this.#ask('DELETE', path(name));
  }

  /**
   * Removes one recording; the last one goes only with the speaker (`only-recording`).
   * @param {string} name
   * @param {string} recordingId
   * @returns {Promise<Speaker>}
   */
  deleteRecording(name, recordingId) {
    return this.#ask('DELETE', path(name, recordingId));
  }

  /**
   * Returns a recording as a wav file, if the service keeps it (else `no-audio-kept`).
   * @param {string} name
   * @param {string} recordingId
   * @returns {Promise<ArrayBuffer>}
   */
  recordingAudio(name, recordingId) {
    return this.#send('GET', `${path(name, recordingId)}/audio`);
  }

  /**
   * Begins the enrolment of a speaker, to which recordings are added one by one.
   * @param {string | null} [name] May be told at the end.
   * @param {{ifExists?: 'error' | 'add' | 'replace'}} [options]
   * @returns {Promise<Enrolment>}
   */
  beginEnrolment(name = null, { ifExists = 'error' } = {}) {
    return this.#ask('POST', '/v1/enrolments', JSON.stringify({ name, if_exists: ifExists }));
  }

  /**
   * Returns how complete an enrolment is, and what to do next.
   * @param {string} enrolmentId
   * @returns {Promise<Enrolment>}
   */
  enrolment(enrolmentId) {
    return this.#ask('GET', enrolmentPath(enrolmentId));
  }

  /**
   * Adds a recording to an enrolment; the answer tells how complete it is now.
   * @param {string} enrolmentId
   * @param {Recording} recording
   * @returns {Promise<Enrolment>}
   */
  addToEnrolment(enrolmentId, recording) {
    const body = form({ file: [recording] });
    return this.#ask('POST', `${enrolmentPath(enrolmentId)}/recordings`, body);
  }

  /**
   * Lets a recording count whose voice differs from the others', or not any more.
   * @param {string} enrolmentId
   * @param {number} number
   * @param {boolean} [confirmed]
   * @returns {Promise<Enrolment>}
   */
  confirmInEnrolment(enrolmentId, number, confirmed = true) {
    const place = `${enrolmentPath(enrolmentId)}/recordings/${number}`;
    return this.#ask('PATCH', place, JSON.stringify({ confirmed }));
  }

  /**
   * Takes a recording out of an enrolment.
   * @param {string} enrolmentId
   * @param {number} number
   * @returns {Promise<Enrolment>}
   */
  removeFromEnrolment(enrolmentId, number) {
    return this.#ask('DELETE', `${enrolmentPath(enrolmentId)}/recordings/${number}`);
  }

  /**
   * Enrols the speaker, if the recordings are enough and of one voice, or confirmed.
   * @param {string} enrolmentId
   * @param {string | null} [name] Whom, instead of what was told at the beginning.
   * @param {{ifExists?: 'error' | 'add' | 'replace' | null}} [options] Also instead of that.
   * @returns {Promise<NewSpeaker>}
   */
  finishEnrolment(enrolmentId, name = null, { ifExists = null } = {}) {
    const body = JSON.stringify({ name, if_exists: ifExists });
    return this.#ask('POST', `${enrolmentPath(enrolmentId)}/finish`, body);
  }

  /**
   * Removes an enrolment that is under way, with all its recordings.
   * @param {string} enrolmentId
   * @returns {Promise<void>}
   */
  async giveUpEnrolment(enrolmentId) {
    await this.#send('DELETE', enrolmentPath(enrolmentId));
  }

  /**
   * Sends a recording of several people; returns the job that finds who spoke when.
   * @param {Recording} recording Up to four hours, unless the service is set otherwise.
   * @param {{numSpeakers?: number, minSpeakers?: number, maxSpeakers?: number,
   *   candidates?: string[]}} [options] How many people speak, if that is known; name these enrolled
   *   speakers only.
   * @returns {Promise<Job>}
   */
  startDiarization(recording, { numSpeakers, minSpeakers, maxSpeakers, candidates } = {}) {
    const counts = { num_speakers: numSpeakers, min_speakers: minSpeakers, max_speakers: maxSpeakers };
    const body = form({ file: [recording] }, { ...counts, candidates });
    return this.#ask('POST', '/v1/diarizations', body);
  }

  /**
   * Returns state and progress of a job, and the result once it is done.
   * @param {string} jobId
   * @returns {Promise<Diarization>}
   */
  diarization(jobId) {
    return this.#ask('GET', jobPath(jobId));
  }

  /**
   * Returns a job once it is done; throws the job's own error as a ServiceProblem if it failed or
   * was lost.
   * @param {string} jobId
   * @param {{pollMs?: number, onProgress?: (progress: number) => void}} [options] Milliseconds
   *   between two looks; told the progress, from 0 to 1, at each.
   * @returns {Promise<Diarization>}
   */
  async waitForDiarization(jobId, { pollMs = 1000, onProgress = () => {} } = {}) {
    for (;;) {
      const job = await this.diarization(jobId);
      if (job.state === 'done') return job;
      if (job.state !== 'queued' && job.state !== 'running') {
        const document = job.error ?? { detail: `the job is ${job.state}` };
        throw new ServiceProblem(Number(document.status ?? 0), document, new Headers());
      }
      onProgress(job.progress);
      await new Promise((resolve) => setTimeout(resolve, pollMs));
    }
  }

  /**
   * Lists the jobs of this token, the newest first.
   * @returns {Promise<Job[]>}
   */
  async diarizations() {
    return (await this.#ask('GET', '/v1/diarizations')).diarizations;
  }

  /**
   * Returns the turns as RTTM, a line a turn.
   * @param {string} jobId
   * @returns {Promise<string>}
   */
  async diarizationRttm(jobId) {
    return new TextDecoder().decode(await this.#send('GET', `${jobPath(jobId)}/rttm`));
  }

  /**
   * Enrols a speaker of a recording from the turns in which nobody else speaks.
   * @param {string} jobId
   * @param {string} label
   * @param {string} name
   * @param {{ifExists?: 'error' | 'add'}} [options]
   * @returns {Promise<Speaker>}
   */
  enrolFoundSpeaker(jobId, label, name, { ifExists = 'error' } = {}) {
    const where = `${jobPath(jobId)}/speakers/${encodeURIComponent(label)}/enrol`;
    return this.#ask('POST', where, JSON.stringify({ name, if_exists: ifExists }));
  }

  /**
   * Ends a job if it is not over, and removes all that it found.
   * @param {string} jobId
   * @returns {Promise<Job>}
   */
  removeDiarization(jobId) {
    return this.#ask('DELETE', jobPath(jobId));
  }

  /**
   * Opens a live stream: who is speaking now.
   * @param {{WebSocket?: typeof WebSocket}} [options] Another than the global one, which Node has
   *   from version 22 on (the package ws, for example).
   * @returns {Promise<LiveStream>}
   */
  async stream({ WebSocket = globalThis.WebSocket } = {}) {
    if (WebSocket === undefined) {
      throw new TypeError('WebSocket: there is none in this version of Node; give one as an option');
    }
    const address = `${this.#url.replace(/^http/, 'ws')}/v1/stream`;
    const stream = new LiveStream(new WebSocket(address), address);
    await stream.open({ token: this.#token, group: this.#group }, this.#timeoutMs);
    return stream;
  }

  /** Returns the JSON document that a request is answered with. */
  async #ask(method, where, body, headers) {
    const content = await this.#send(method, where, body, headers);
    try {
      return JSON.parse(new TextDecoder().decode(content));
    } catch (error) {
      throw new ServiceUnreachable(`${this.#url}${where}: the answer is not JSON`, { cause: error });
    }
  }

  /**
   * Returns the content of the answer; tries again while the service is too busy. Without an answer
   * it is not known whether a change took place, so the request is not sent again.
   */
  async #send(method, where, body, headers = {}) {
    for (let tries = 1; ; tries += 1) {
      const { response, content } = await this.#sendOnce(method, where, body, headers);
      if (response.ok) return content;
      const problem = toProblem(response, content);
      const waitS = problem.retryAfterS ?? 1;
      const isOver = tries >= this.#maxTries || waitS > this.#maxWaitS;
      if (isOver || !RETRIED.includes(response.status)) throw problem;
      await new Promise((resolve) => setTimeout(resolve, 1000 * waitS));
    }
  }

  /** Sends a request once; returns the answer with its content. */
  async #sendOnce(method, where, body, headers) {
    const all = { Accept: 'application/json', ...headers };
    if (this.#token !== undefined) all.Authorization = `Bearer ${this.#token}`;
    if (this.#group !== undefined) all['Voiceprint-Group'] = this.#group;
    if (typeof body === 'string') all['Content-Type'] = 'application/json';
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(), this.#timeoutMs);
    try {
      const response = await this.#fetch(this.#url + where, {
        method,
        headers: all,
        body,
        redirect: 'error',
        cache: 'no-store',
        credentials: 'omit',
        signal: controller.signal,
      });
      return { response, content: await response.arrayBuffer() };
    } catch (error) {
      const reason = controller.signal.aborted
        ? `nothing came within ${this.#timeoutMs} ms`
        : (error.cause?.message ?? error.message);
      throw new ServiceUnreachable(`${this.#url} does not answer: ${reason}`, { cause: error });
    } finally {
      clearTimeout(timer);
    }
  }
}

/**
 * A stream of samples whose speakers the service follows. Events are the documents of the service
 * ("speech-start", "speaker", ...):
 *
 *     for await (const event of stream) console.log(event.event, event.name);
 *
 * The loop ends after `end`, or throws a ServiceProblem if the service refuses to go on, a
 * ServiceUnreachable if the connection breaks.
 */
export class LiveStream {
  #socket;
  #address;
  #events = [];
  #wake = () => {};
  #refusal = {};
  #isOver = false;
  #failure = null;

  /** Use `VoiceprintClient.stream`. */
  constructor(socket, address) {
    this.#socket = socket;
    this.#address = address;
    /** What the service said first: sample_rate, threshold and max_duration_s. */
    this.ready = null;
    socket.onmessage = ({ data }) => {
      const event = JSON.parse(data);
      if (event.event === 'error') this.#refusal = event;
      this.#events.push(event);
      this.#wake();
    };
    socket.onerror = ({ message }) => {
      // A connection that never opened: not every version of Node tells of its close.
      this.#isOver = true;
      this.#failure = new ServiceUnreachable(`${address} does not answer: ${message ?? ''}`.trim());
      this.#wake();
    };
    socket.onclose = ({ code, reason }) => {
      this.#isOver = true;
      this.#failure = this.#toError(code, reason);
      this.#wake();
    };
  }

  /** Sends the options, and waits until the service is ready; `VoiceprintClient.stream` does it. */
  async open(options, timeoutMs) {
    const timer = setTimeout(() => this.close(), timeoutMs);
    this.#socket.onopen = () => this.#socket.send(JSON.stringify(options));
    try {
      const { value, done } = await this[Symbol.asyncIterator]().next();
      if (done) throw new ServiceUnreachable(`${this.#address}: the stream ended at once`);
      if (value.event === 'error') throw new ServiceProblem(value.status, value, new Headers());
      this.ready = value;
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * Sends samples, 16 kHz, mono, up to 2 s; 0.1 s is a good length.
   * @param {Int16Array | ArrayBuffer | ArrayBufferView} samples 16-bit little-endian.
   */
  send(samples) {
    this.#socket.send(samples);
  }

  /**
   * Enrols an unknown speaker; an event "enrolled" or "error" answers.
   * @param {number} number
   * @param {string} name
   * @param {{ifExists?: 'error' | 'add'}} [options]
   */
  enrol(number, name, { ifExists = 'error' } = {}) {
    this.#socket.send(JSON.stringify({ enrol: number, name, if_exists: ifExists }));
  }

  /** Says that no more samples come; the events that are due still follow. */
  end() {
    this.#socket.send(JSON.stringify({ end: true }));
  }

  /** Ends the connection at once. */
  close() {
    this.#socket.close();
  }

  async *[Symbol.asyncIterator]() {
    for (;;) {
      while (this.#events.length > 0) yield this.#events.shift();
      if (this.#isOver) break;
      await new Promise((resolve) => {
        this.#wake = resolve;
      });
    }
    if (this.#failure !== null) throw this.#failure;
  }

  /** What the code of a close stands for; null if the stream ended as it should. */
  #toError(code, reason) {
    if (code === 1000) return null;
    if (code < CLOSE_BASE) {
      return new ServiceUnreachable(`${this.#address}: the stream was closed: ${code} ${reason}`.trim());
    }
    const document = this.#refusal.type === undefined ? { detail: reason } : this.#refusal;
    return new ServiceProblem(code - CLOSE_BASE, document, new Headers());
  }
}

/** A multipart form of recordings by field, and of words; undefined ones are left out. */
function form(files, words = {}) {
  const data = new FormData();
  for (const [field, recordings] of Object.entries(files)) {
    // The service goes by the content; a name of the user's machine is nobody's business.
    for (const recording of recordings) data.append(field, toBlob(recording), 'recording');
  }
  for (const [field, word] of Object.entries(words)) {
    for (const value of Array.isArray(word) ? word : [word]) {
      if (value !== undefined && value !== null) data.append(field, String(value));
    }
  }
  return data;
}

/** A recording as a Blob. */
function toBlob(recording) {
  if (recording instanceof Blob) return recording;
  if (recording instanceof ArrayBuffer || ArrayBuffer.isView(recording)) return new Blob([recording]);
  throw new TypeError('recording: expected a Blob, File, Buffer, Uint8Array or ArrayBuffer');
}

/** Recordings; a single one is refused, whose bytes would be taken for some. */
function several(recordings) {
  if (Array.isArray(recordings)) return recordings;
  throw new TypeError('recordings: expected an array: [recording]');
}

/** The header that keeps a request from taking effect twice. */
function onceOnly(key) {
  if (key !== undefined) return { 'Idempotency-Key': key };
  // Node 18 has no global crypto. A key must differ from the others of the token, not be secret.
  const numbers =
    globalThis.crypto?.getRandomValues(new Uint8Array(16)) ??
    Uint8Array.from({ length: 16 }, () => 256 * Math.random());
  return { 'Idempotency-Key': Array.from(numbers, (n) => n.toString(16).padStart(2, '0')).join('') };
}

/** The path of a speaker, or of one of the recordings. */
function path(name, recordingId) {
  const speaker = `/v1/speakers/${encodeURIComponent(name)}`;
  if (recordingId === undefined) return speaker;
  return `${speaker}/recordings/${encodeURIComponent(recordingId)}`;
}

/** The path of an enrolment that is under way. */
function enrolmentPath(enrolmentId) {
  return `/v1/enrolments/${encodeURIComponent(enrolmentId)}`;
}

/** The path of a job. */
function jobPath(jobId) {
  return `/v1/diarizations/${encodeURIComponent(jobId)}`;
}

/** What an answer that is no success says. */
function toProblem(response, content) {
  const text = new TextDecoder().decode(content.slice(0, 200)).trim();
  let document = {};
  try {
    const value = JSON.parse(new TextDecoder().decode(content));
    if (value !== null && typeof value === 'object') document = value;
  } catch {
    // A proxy's page, or an answer before anything was understood.
  }
  return new ServiceProblem(response.status, document, response.headers, text);
}

/** The seconds of a Retry-After header; null without one, or for a date. */
function seconds(retryAfter) {
  const value = retryAfter === null || retryAfter.trim() === '' ? NaN : Number(retryAfter);
  return Number.isFinite(value) ? Math.max(value, 0) : null;
}
