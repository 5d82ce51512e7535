// Errors in words of the page's language. The service's own words are English: a reader of another
// language opens them on request.

import { CancelledError, OfflineError, ServiceError } from './api.js';
import { made, make } from './dom.js';
import { say } from './language.js';
import { MicrophoneError } from './microphone.js';
import { SlowNetworkError } from './stream.js';
import { STRINGS } from './strings.js';

/** Key and values of what went wrong. */
export function describe(error) {
  if (error instanceof MicrophoneError) {
    return [`microphone_${error.reason}`, { origin: location.origin, reason: error.message }];
  }
  if (error instanceof SlowNetworkError) return ['error_slow_network', {}];
  if (error instanceof OfflineError) return ['error_offline', {}];
  if (error instanceof CancelledError) return [error.mayHaveChanged ? 'cancelled_change' : 'cancelled', {}];
  if (error instanceof ServiceError) {
    const key = `error_${error.code.replaceAll('-', '_')}`;
    if (key in STRINGS.en) return [key, { seconds: error.retryAfter }];
    return ['error_other', { status: error.status }];
  }
  return ['error_page', { reason: error?.message ?? String(error) }];
}

/** Shows an error in an element with role="alert"; null hides it. */
export function showError(element, error) {
  element.hidden = error === null;
  element.replaceChildren();
  if (error === null) return;
  const [key, values] = describe(error);
  element.append(made('p', '', key, values));
  if (error instanceof ServiceError && error.detail) {
    element.append(
      made('p', 'detail english', 'error_detail', { detail: error.detail }),
      make(
        'details',
        { class: 'detail foreign' },
        made('summary', '', 'error_detail_foreign'),
        make('p', { lang: 'en' }, error.detail),
      ),
    );
  }
}

/** Shows one sentence in an element with role="alert". */
export function showWords(element, key, values) {
  element.replaceChildren();
  say(element, key, values);
}
