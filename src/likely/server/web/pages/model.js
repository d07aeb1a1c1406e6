// Model: its card and report, versions, drift and predictions by status.

import { ask } from './api.js';
import { badge, make, percent, pValue, notify, attempt } from './dom.js';

const linkTo = (shown, page, text) => make('a', { class: 'button quiet', href: `/v1/models/${encodeURIComponent(shown.name)}/${page}`, target: '_blank', rel: 'noopener' }, text);

export function model(page, { me, model: shown, reload }) {
  const table = make('table', {}, make('tbody', {}, [
    ['Name', `${shown.name}@${shown.version}`],
    ['Family', shown.family],
    ['Loaded versions', shown.versions.join(', ')],
    ['Images', `${shown.size[0]} × ${shown.size[1]} pixels, ${shown.channels === 1 ? 'gray' : 'color'}`],
    ['Classes', shown.labels.join(', ')],
  ].map(([name, value]) => make('tr', {}, make('th', { scope: 'row' }, name), make('td', {}, value)))));
  const drift = make('p', { class: 'soft' }), predictions = make('div', {});
  async function change(action, question) {
    if (!confirm(question)) return;
    const response = await ask(`/v1/models/${encodeURIComponent(shown.name)}/${action}`, { method: 'POST' });
    notify(`${response.name}@${response.version} is served now.`);
    await reload();
  }
  const button = (text, action, question) => make('button', { type: 'button', class: 'quiet', onclick: () => attempt(() => change(action, question)) }, text);
  page.append(
    make('h1', {}, 'Model'),
    make('div', { class: 'card' }, table,
      make('div', { class: 'row' }, linkTo(shown, 'report', 'Report'), linkTo(shown, 'card', 'Model card'),
        me.scopes.includes('admin') && [
          button('Reload', 'reload', `Load the folder of ${shown.name} again? Classes that were added here stay.`),
          button('Roll back', 'rollback', `Return to the version of ${shown.name} before the last class was added?`)])),
    make('h2', {}, 'Drift'), drift,
    make('h2', {}, 'Predictions by status'), predictions);
  attempt(async () => {
    const response = await ask(`/v1/models/${encodeURIComponent(`${shown.name}@${shown.version}`)}/drift`);
    if (response.drifted === null) drift.textContent = response.n ? `The last ${response.n} images are too few to detect drift.` : 'There are no data to detect drift yet.';
    else drift.replaceChildren(badge(response.drifted ? 'unknown' : 'known', response.drifted ? 'drift' : 'no drift'), ` The last ${response.n} images are ${response.drifted ? 'unlike' : 'like'} the validation images (Kolmogorov-Smirnov statistic ${response.difference.toFixed(2)}, p = ${pValue(response.p_value)}).`);
  });
  attempt(async () => {
    const { counts } = await ask('/v1/predictions', { query: { model: shown.name, limit: 1 } });
    const all = Object.values(counts).reduce((a, b) => a + b, 0);
    predictions.append(all ? make('table', { class: 'card' }, make('tbody', {}, Object.entries(counts).map(([status, n]) => make('tr', {}, make('th', { scope: 'row' }, status), make('td', {}, n.toLocaleString()), make('td', {}, percent(n / all)))))) : make('p', { class: 'soft' }, 'None yet.'));
  });
}
