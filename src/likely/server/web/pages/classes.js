// What the model thinks that its classes look like, beside images that were classified as such.

import { ask, formOf } from './api.js';
import { image, make, say, trying } from './make.js';

const N = 6;
const FEWEST = 5; // images that a class is learned from

export function classes(page, { me, model, reload }) {
  page.append(
    make('h1', {}, 'Classes'),
    make('p', { class: 'lead' }, `What each of the ${model.labels.length} classes looks like to ${model.name}: drawn by it, and beside that images that it was shown of late and knew.`));
  if (me.scopes.includes('admin')) page.append(adding(model, reload));
  const gallery = make('div', { class: 'gallery' });
  page.append(gallery);
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((each) => each.isIntersecting)) {
      seen.unobserve(entry.target);
      trying(() => fill(entry.target, model));
    }
  }, { rootMargin: '300px' });
  for (const [index, label] of model.labels.entries()) {
    const card = make('section', { class: 'card class', 'data-index': String(index), 'aria-label': label },
      make('div', {}, make('h2', {}, label), make('ul', { class: 'figures' })), make('div', { class: 'pictures' }));
    gallery.append(card);
    seen.observe(card);
  }
  trying(async () => {
    const told = await ask(`/v1/models/${encodeURIComponent(`${model.name}@${model.version}`)}/classes`);
    const lists = gallery.querySelectorAll('.figures');
    for (const [index, each] of told.classes.entries()) lists[index].append(...figures(each).map((line) => make('li', {}, line)));
  });
}

const images = (n) => `${n.toLocaleString()} image${n === 1 ? '' : 's'}`;

// What is known of a class by numbers: what it was learned from, what was answered, and what people found of that.
function figures(each) {
  const answered = each.n_known + each.n_ambiguous, checked = each.n_right + each.n_wrong;
  return [
    each.n_training === null ? null : `learned from ${images(each.n_training)}`,
    answered ? `answered for ${images(answered)}${each.n_ambiguous ? `, ${each.n_ambiguous.toLocaleString()} of them ambiguous` : ''}` : null,
    checked ? `${each.n_right.toLocaleString()} of ${checked.toLocaleString()} that people looked at are right` : null,
    each.n_missed ? `${images(each.n_missed)} that people say show it, not known as such` : null,
  ].filter(Boolean);
}

// A class more from a few images: the model learns it by itself, and keeps what it knows of the others.
function adding(model, reload) {
  let files = [];
  const name = make('input', { type: 'text', required: true, maxlength: '255', placeholder: 'its name', 'aria-label': 'Name of the new class' });
  const file = make('input', { type: 'file', accept: 'image/*', multiple: true, hidden: true, onchange: () => chosen(file.files) });
  const count = make('span', { class: 'soft', role: 'status' }, `${FEWEST} images of it or more`);
  const send = make('button', { disabled: true }, 'Add');
  const chosen = (some) => {
    files = [...some];
    count.textContent = files.length < FEWEST ? `${images(files.length)}; ${FEWEST} are needed at least` : images(files.length);
    send.disabled = files.length < FEWEST;
  };
  const form = make('form', { class: 'card row add', 'aria-label': 'Add a class', onsubmit: (event) => {
    event.preventDefault();
    const busy = make('progress', { 'aria-label': 'learning' });
    form.append(busy);
    send.disabled = true;
    trying(async () => {
      const told = await ask(`/v1/models/${encodeURIComponent(model.name)}/classes`, { method: 'POST', query: { label: name.value.trim() }, form: formOf(files) });
      say(`${told.name}@${told.version} knows ${name.value.trim()} now.`);
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
  const drawn = Array.from({ length: N }, (_, seed) => image({ alt: `${label}, drawn by the model`, loading: 'lazy', src: `/v1/models/${encodeURIComponent(`${model.name}@${model.version}`)}/classes/${index}/sample?seed=${seed}` }));
  drawn[0].addEventListener('error', () => drawn[0].closest('.samples').parentElement.remove()); // it draws none
  pictures.append(beside('Drawn by the model', drawn));
  const found = await ask('/v1/predictions', { query: { label, status: 'known', model: model.name, limit: 4 * N } });
  const different = [...new Map(found.predictions.map((each) => [each.image, each])).values()].slice(0, N);
  const real = different.map((each) => image({ alt: each.prediction.input, loading: 'lazy', src: `/v1/images/${each.image}` }));
  pictures.append(beside('Known of late', real));
}

const beside = (what, some) => make('div', {}, make('h3', {}, what), some.length ? make('div', { class: 'samples' }, some) : make('p', { class: 'soft' }, 'None yet.'));
