// What the service says of itself (GET /v1/info), for all parts of the page.

import * as api from './api.js';

export const service = {
  isOpen: false, // whether requests are let in: without a token that it wants, they aren't
  threshold: 0,
  strictThreshold: 0,
  rates: [], // what the thresholds led to where they were found, the strict one's first
  maxUploadBytes: Infinity,
  maxRecordings: Infinity, // of a speaker
  numSpeakers: 0,
  version: '',
  challenge: 'off', // whether verifications may, or have to, come with digits that were read
  scopes: [], // what the token allows
  group: '', // whose speakers are seen
  groups: [], // that the token may choose
  modelId: '',
};

export async function refresh() {
  const info = await api.info().catch((error) => {
    if (error instanceof api.ServiceError && error.status === 401) return {}; // a wrong token
    if (!(error instanceof api.ServiceError && error.code === 'unknown-group')) throw error;
    api.setGroup(null); // it is gone
    return api.info();
  });
  service.version = info.version ?? '';
  service.isOpen = typeof info.threshold === 'number';
  if (!service.isOpen) return;
  service.challenge = info.challenge ?? 'off';
  service.scopes = info.scopes ?? [];
  service.group = info.group ?? '';
  service.groups = info.groups ?? [];
  service.threshold = info.threshold;
  service.strictThreshold = info.strict_threshold;
  service.rates = info.rates ?? [];
  service.maxUploadBytes = info.max_upload_bytes;
  service.maxRecordings = info.max_recordings;
  service.numSpeakers = info.num_speakers;
  service.modelId = info.model_id;
}
