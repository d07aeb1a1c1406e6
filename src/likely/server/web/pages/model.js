// What is known of the model itself.

import { ask } from './api.js';
import { badge, make, percent, pValue, say, trying } from './make.js';

const pageOf = (shown, what, words) => make('a', { class: 'button quiet', href: `/v1/models/${encodeURIComponent(shown.name)}/${what}`, target: '_blank', rel: 'noopener' }, words);

export function model(page, { me, model: shown, reload }) {
  const table = make('table', {}, make('tbody', {}, [
    ['Name', `${shown.name}@${shown.version}`],
    ['Family', shown.family],
    ['Loaded versions', shown.versions.join(', ')],
    ['Images', `${shown.size[0]} × ${shown.size[1]} pixels, ${shown.channels === 1 ? 'gray' : 'color'}`],
    ['Classes', shown.labels.join(', ')],
  ].map(([what, value]) => make('tr', {}, make('th', { scope: 'row' }, what), make('td', {}, value)))));
  const answers = make('div', {});
  async function again() {
    if (!confirm(`Read the folder of ${shown.name} again? Classes that were added here are set aside.`)) return;
    const told = await ask(`/v1/models/${encodeURIComponent(shown.name)}/reload`, { method: 'POST' });
    say(`${told.name}@${told.version} answers now.`);
    await reload();
  }
  page.append(
    make('h1', {}, 'Model'),
    make('div', { class: 'card' }, table, 
      make('div', { class: 'row' }, pageOf(shown, 'report', 'Its report'), pageOf(shown, 'card', 'Its card'),
        me.scopes.includes('admin') && make('button', { type: 'button', class: 'quiet', onclick: () => trying(again) }, 'Load again'))),
    make('h2', {}, 'What it has answered'), answers);
  const drift = make('p', { class: 'soft' });
  answers.before(drift);
  trying(async () => {
    const told = await ask(`/v1/models/${encodeURIComponent(`${shown.name}@${shown.version}`)}/drift`);
    if (told.drifted === null) drift.textContent = told.n ? `Its last ${told.n} images are too few to tell whether they drift.` : 'Whether its images drift is not known yet.';
    else drift.replaceChildren(badge(told.drifted ? 'unknown' : 'known', told.drifted ? 'drifting' : 'steady'), ` The last ${told.n} images are ${told.drifted ? 'unlike' : 'like'} those that it was validated on (difference ${told.difference.toFixed(2)}, p = ${pValue(told.p_value)}).`);
  });
  trying(async () => {
    const { counts } = await ask('/v1/predictions', { query: { model: shown.name, limit: 1 } });
    const all = Object.values(counts).reduce((a, b) => a + b, 0);
    answers.append(all ? make('table', { class: 'card' }, make('tbody', {}, Object.entries(counts).map(([status, n]) => make('tr', {}, make('th', { scope: 'row' }, status), make('td', {}, n.toLocaleString()), make('td', {}, percent(n / all)))))) : make('p', { class: 'soft' }, 'Nothing yet.'));
  });
}
