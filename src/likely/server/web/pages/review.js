// Review unknown, ambiguous and changed predictions, label many at once, and export labeled images for training.

import { ask } from './api.js';
import { badge, image, make, notify, attempt } from './dom.js';

const VIEWS = {
  Unknown: { status: 'unknown', is_labeled: false },
  Ambiguous: { status: 'ambiguous', is_labeled: false },
  Changed: { disagrees_with_previous: true, is_labeled: false },
  Labeled: { is_labeled: true },
  All: {},
};
const PAGE = 60;

export function review(page, { me, model }) {
  const tiles = make('ul', { class: 'tiles' });
  const more = make('button', { type: 'button', class: 'quiet', onclick: () => attempt(() => load(false)) }, 'More');
  const count = make('span', { class: 'soft', role: 'status' });
  const chips = Object.keys(VIEWS).map((name) => make('button', { type: 'button', class: 'chip', 'aria-pressed': 'false', onclick: () => pick(name) }, name));
  const label = make('input', { type: 'text', list: 'labels', placeholder: 'class', 'aria-label': 'Class of the selected images', maxlength: '255' });
  const assign = make('form', { class: 'assign row', hidden: true, onsubmit: (event) => { event.preventDefault(); attempt(() => save(label.value.trim())); } },
    count, label, make('datalist', { id: 'labels' }, model.labels.map((each) => make('option', { value: each }))),
    make('button', {}, 'Assign'),
    make('button', { type: 'button', class: 'quiet', onclick: () => attempt(() => save(null)) }, 'Remove labels'),
    make('button', { type: 'button', class: 'quiet', onclick: () => { for (const box of boxes()) box.checked = false; changed(); } }, 'Select none'));
  const boxes = () => [...tiles.querySelectorAll('input')];
  const chosen = () => boxes().filter((box) => box.checked);
  let view = 'Unknown', before = null, last = null, asked = 0;

  function pick(name) {
    view = name;
    for (const chip of chips) chip.setAttribute('aria-pressed', String(chip.textContent === name));
    attempt(() => load(true));
  }

  async function load(fromStart) {
    if (fromStart) { before = null; tiles.replaceChildren(); }
    const mine = ++asked;
    const found = await ask('/v1/predictions', { query: { ...VIEWS[view], model: model.name, before, limit: PAGE } });
    if (mine !== asked) return; // another view was selected in the meantime
    before = found.before;
    tiles.append(...found.predictions.map(tile));
    more.hidden = !before;
    if (!tiles.childElementCount) tiles.append(make('li', { class: 'empty' }, 'No predictions.'));
    changed();
  }

  function tile(each) {
    const { prediction } = each;
    const box = make('input', { type: 'checkbox', value: each.id, 'aria-label': `${prediction.input}, ${prediction.status}, ${prediction.label}`, onclick: reach });
    return make('li', {}, make('label', { class: 'tile' }, box,
      image({ src: `/v1/images/${each.image}`, alt: '', loading: 'lazy' }),
      make('div', { class: 'about' }, badge(prediction.status), ' ', prediction.status === 'unknown' ? `nearest: ${prediction.label}` : prediction.label,
        each.true_label !== null && make('div', { class: 'true-label' }, `labeled ${each.true_label}`))));
  }

  // With the shift key, select the range from the previous click.
  function reach(event) {
    const all = boxes(), here = all.indexOf(event.target), there = all.indexOf(last);
    if (event.shiftKey && there >= 0) for (const box of all.slice(Math.min(here, there), Math.max(here, there) + 1)) box.checked = event.target.checked;
    last = event.target;
    changed();
  }

  function changed() {
    const n = chosen().length;
    assign.hidden = !n || !me.scopes.some((scope) => ['label', 'admin'].includes(scope));
    count.textContent = `${n} selected`;
  }

  async function save(name) {
    if (name === '') return notify('Enter a label first.', true);
    const ids = chosen().map((box) => box.value);
    const response = await ask('/v1/predictions/label', { method: 'POST', json: { ids, label: name } });
    notify(name === null ? `Labels removed: ${response.ids.length}.` : `${response.ids.length} labeled ${name}.`);
    label.value = '';
    return load(true);
  }

  page.append(
    make('h1', {}, 'Review'),
    make('p', { class: 'intro' }, 'Images that are unknown, ambiguous, or classified differently than before. Select images, ', make('span', { class: 'mouse' }, 'holding Shift for a range, '), 'and label them.'),
    make('div', { class: 'row filters', role: 'group', 'aria-label': 'Filter' }, chips,
      make('button', { type: 'button', class: 'quiet', onclick: () => { for (const box of boxes()) box.checked = true; changed(); } }, 'Select all'),
      make('a', { class: 'button quiet', href: '/v1/predictions/folder', download: '' }, 'Export as a training folder')),
    tiles, make('div', { class: 'row' }, more), assign);
  pick('Unknown');
}
