// "Who spoke when?": a long recording, worked on by the service as a job.

import * as api from './api.js';
import { announce, button, byId, made, make, takeDrops } from './dom.js';
import { Findings } from './findings.js';
import { date, say } from './language.js';
import { showError, showWords } from './problem.js';

const FIRST_PAUSE_S = 0.4; // between questions about a job; it grows with the time the job takes
const LONGEST_PAUSE_S = 3;
const MOST_SILENCES = 5; // questions without an answer before it is given up
const UNDER_WAY = ['queued', 'running'];

let findings = null;
let uploading = null; // AbortController, while a recording is sent
let followed = null; // { id, file, stop } of the job that is waited for

export function set() {
  const file = byId('conversation-file');
  byId('conversation-choose').addEventListener('click', () => file.click());
  file.addEventListener('change', () => {
    if (file.files.length) start(file.files[0]);
    file.value = '';
  });
  takeDrops(byId('conversation-form'), (files) => {
    if (files.length === 1) start(files[0]);
    else showWords(byId('conversation-error'), files.length ? 'drop_one' : 'drop_no_file');
  });
  byId('conversation-form').addEventListener('submit', (event) => event.preventDefault());
  byId('conversation-cancel').addEventListener('click', cancel);
  byId('conversation-again').addEventListener('click', restart);
  const heard = byId('heard-file');
  heard.addEventListener('change', () => {
    if (heard.files.length) findings?.takeFile(heard.files[0]);
    heard.value = '';
  });
}

export async function show() {
  if (!findings && !followed && !uploading) await listJobs();
}

/** Stops the sound when the view is left; the service works on. */
export function leave() {
  findings?.hush();
}

function turnTo(part) {
  byId('conversation-form').hidden = part !== 'form';
  byId('conversation-progress').hidden = part !== 'progress';
  byId('conversation-result').hidden = part !== 'result';
  byId('conversation-again').hidden = part !== 'result';
  if (part !== 'form') byId('conversation-jobs').hidden = true;
}

async function restart() {
  findings?.close();
  findings = null;
  turnTo('form');
  byId('conversation-choose').focus();
  await listJobs().catch(tellError);
}

function tellError(error) {
  turnTo('form');
  showError(byId('conversation-error'), error);
}

function wantedSpeakers() {
  const input = byId('num-speakers');
  return input.value && input.checkValidity() ? input.value : undefined;
}

/** Sends a recording, and follows the job. */
async function start(file) {
  const error = byId('conversation-error');
  showError(error, null);
  if (file.size === 0) return showWords(error, 'file_empty');
  if (!byId('num-speakers').checkValidity()) return showWords(error, 'num_speakers_wrong');
  turnTo('progress');
  showProgress('sending', { name: file.name }, null);
  byId('conversation-cancel').focus();
  uploading = new AbortController();
  try {
    const job = await api.startDiarization({ blob: file, name: file.name }, wantedSpeakers(), uploading.signal);
    uploading = null;
    await follow(job, file);
  } catch (reason) {
    uploading = null;
    tellError(reason);
    byId('conversation-choose').focus();
  }
}

async function cancel() {
  if (uploading) {
    uploading.abort();
    return;
  }
  const job = followed;
  followed = null;
  job?.stop.abort();
  turnTo('form');
  byId('conversation-choose').focus();
  announce('cancelled');
  try {
    if (job) await api.removeDiarization(job.id);
    await listJobs();
  } catch (error) {
    tellError(error);
  }
}

const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

/** Shows how far a job is until it is over, and then what it found. */
async function follow(job, file) {
  const mine = { id: job.id, file, stop: new AbortController() };
  followed = mine;
  turnTo('progress');
  let pause = FIRST_PAUSE_S;
  let silences = 0;
  while (followed === mine && UNDER_WAY.includes(job.state)) {
    showProgress(job.state, { percent: Math.floor(100 * job.progress) }, job.progress);
    await sleep(pause);
    if (followed !== mine) return; // it was cancelled
    pause = Math.min(LONGEST_PAUSE_S, 1.2 * pause);
    try {
      job = await api.diarization(mine.id, mine.stop.signal);
      silences = 0;
    } catch (error) {
      if (followed !== mine) return;
      silences += 1;
      if (!(error instanceof api.OfflineError) || silences > MOST_SILENCES) {
        followed = null;
        throw error;
      }
    }
  }
  if (followed !== mine) return;
  followed = null;
  if (!job.result && job.state === 'done') job = await api.diarization(mine.id);
  if (job.state === 'done') showResult(job, file);
  else tellFailure(job);
}

function tellFailure({ state, error }) {
  if (error) tellError(new api.ServiceError(error.status, error, 1));
  else {
    turnTo('form');
    showWords(byId('conversation-error'), `job_${state}`);
  }
}

function showProgress(state, values, progress) {
  say(byId('conversation-state'), `job_${state}`, values);
  const bar = byId('conversation-bar');
  if (progress === null || state === 'queued') bar.removeAttribute('value');
  else bar.value = progress;
}

function showResult(job, file) {
  findings?.close();
  turnTo('result');
  findings = new Findings(byId('conversation-result'), job, file);
  findings.addEventListener('removed', restart);
  findings.heading.focus();
  announce('job_done');
}

/** Lists the jobs that the service still knows: the page may have been left meanwhile. */
async function listJobs() {
  const found = await api.ifAllowed(api.diarizations());
  const jobs = found?.diarizations ?? [];
  byId('conversation-jobs').hidden = jobs.length === 0;
  byId('job-list').replaceChildren(...jobs.map(makeJob));
}

function makeJob(job) {
  const act = (action) => async () => {
    try {
      await action();
    } catch (error) {
      tellError(error);
    }
  };
  const open = act(async () => follow(await api.diarization(job.id), null));
  const remove = act(async () => {
    await api.removeDiarization(job.id);
    await listJobs();
  });
  const percent = Math.floor(100 * job.progress);
  return make(
    'li',
    {},
    make(
      'span',
      {},
      made('span', '', 'echo', { text: date(job.created_at, true) }),
      ' ',
      made('span', 'hint', `job_${job.state}`, { percent }),
    ),
    make('div', { class: 'buttons' }, button('job_open', open), button('recording_remove', remove)),
  );
}
