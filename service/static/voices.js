// The list of the voices of a conversation: each with its colour, name, figures and buttons.

import { made, make } from './dom.js';

/**
 * Makes one voice of the list.
 *
 * @param {{ name: () => string, colour: string, facts: [string, object], buttons: Element[] }} voice
 */
export function makeVoice({ name, colour, facts, buttons }) {
  return make(
    'li',
    { class: `voice ${colour}` },
    make('i', { class: 'swatch', 'aria-hidden': 'true' }),
    make('div', { class: 'voice-text' }, made('p', 'voice-name', 'echo', { text: name }), made('p', 'hint', ...facts)),
    make('div', { class: 'buttons' }, ...buttons),
  );
}
