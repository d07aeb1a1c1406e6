// Classes: generated samples beside recent images that were classified as each class.

import { ask, formOf } from './api.js';
import { image, make, notify, attempt } from './dom.js';

const N = 6;
const MIN_IMAGES = 5; // of a new class

export function classes(page, { me, model, reload }) {
  page.append(
    make('h1', {}, 'Classes'),
    make('p', { class: 'intro' }, `The ${model.labels.length} classes of ${model.name}: generated images, and recent images that were classified as each class.`));
  if (me.scopes.includes('admin')) page.append(adding(model, reload));
  const gallery = make('div', { class: 'gallery' });
  page.append(gallery);
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((each) => each.isIntersecting)) {
      seen.unobserve(entry.target);
      attempt(() => fill(entry.target, model));
    }
  }, { rootMargin: '300px' });
  for (const [index, label] of model.labels.entries()) {
    const card = make('section', { class: 'card class', 'data-index': String(index), 'aria-label': label },
      make('div', {}, make('h2', {}, label), make('ul', { class: 'statistics' })), make('div', { class: 'pictures' }));
    gallery.append(card);
    seen.observe(card);
  }
  attempt(async () => {
    const response = await ask(`/v1/models/${encodeURIComponent(`${model.name}@${model.version}`)}/classes`);
    const lists = gallery.querySelectorAll('.statistics');
    for (const [index, each] of response.classes.entries()) lists[index].append(...statistics(each).map((line) => make('li', {}, line)));
  });
}

const images = (n) => `${n.toLocaleString()} image${n === 1 ? '' : 's'}`;

// Training images, predictions and corrections of a class.
function statistics(each) {
  const predicted = each.n_known + each.n_ambiguous, checked = each.n_right + each.n_wrong;
  return [
    each.n_training === null ? null : `${images(each.n_training)} in training`,
    predicted ? `predicted for ${images(predicted)}${each.n_ambiguous ? `, ${each.n_ambiguous.toLocaleString()} of them ambiguous` : ''}` : null,
    checked ? `${each.n_right.toLocaleString()} of ${checked.toLocaleString()} reviewed predictions correct` : null,
    each.n_missed ? `${images(each.n_missed)} missed` : null,
  ].filter(Boolean);
}

// Form to add a class from a few images.
function adding(model, reload) {
  let files = [];
  const name = make('input', { type: 'text', required: true, maxlength: '255', placeholder: 'name', 'aria-label': 'Name of the new class' });
  const file = make('input', { type: 'file', accept: 'image/*', multiple: true, hidden: true, onchange: () => chosen(file.files) });
  const count = make('span', { class: 'soft', role: 'status' }, `at least ${MIN_IMAGES} images`);
  const send = make('button', { disabled: true }, 'Add');
  const chosen = (some) => {
    files = [...some];
    count.textContent = files.length < MIN_IMAGES ? `${images(files.length)}; at least ${MIN_IMAGES} are needed` : images(files.length);
    send.disabled = files.length < MIN_IMAGES;
  };
  const form = make('form', { class: 'card row add', 'aria-label': 'Add a class', onsubmit: (event) => {
    event.preventDefault();
    const busy = make('progress', { 'aria-label': 'adding the class' });
    form.append(busy);
    send.disabled = true;
    attempt(async () => {
      const response = await ask(`/v1/models/${encodeURIComponent(model.name)}/classes`, { method: 'POST', query: { label: name.value.trim() }, form: formOf(files) });
      notify(`${response.name}@${response.version} now has the class ${name.value.trim()}.`);
      await reload();
    }).finally(() => { busy.remove(); send.disabled = false; });
  } }, make('strong', {}, 'Add a class'), name,
  make('button', { type: 'button', class: 'quiet', onclick: () => file.click() }, 'Choose images'), count, file, send);
  for (const kind of ['dragover', 'drop']) form.addEventListener(kind, (event) => {
    event.preventDefault();
    if (kind === 'drop') chosen(event.dataTransfer.files);
  });
  return form;
}

async function fill(card, model) {
  const index = Number(card.dataset.index), label = model.labels[index], pictures = card.querySelector('.pictures');
  const generated = Array.from({ length: N }, (_, seed) => image({ alt: `${label}, generated`, loading: 'lazy', src: `/v1/models/${encodeURIComponent(`${model.name}@${model.version}`)}/classes/${index}/sample?seed=${seed}` }));
  generated[0].addEventListener('error', () => generated[0].closest('.samples').parentElement.remove()); // the model cannot generate images
  pictures.append(titled('Generated', generated));
  const found = await ask('/v1/predictions', { query: { label, status: 'known', model: model.name, limit: 4 * N } });
  const different = [...new Map(found.predictions.map((each) => [each.image, each])).values()].slice(0, N);
  const real = different.map((each) => image({ alt: each.prediction.input, loading: 'lazy', src: `/v1/images/${each.image}` }));
  pictures.append(titled('Recent matches', real));
}

const titled = (title, some) => make('div', {}, make('h3', {}, title), some.length ? make('div', { class: 'samples' }, some) : make('p', { class: 'soft' }, 'None yet.'));
