// What the model thinks that its classes look like, beside images that were classified as such.

import { ask } from './api.js';
import { make, trying } from './make.js';

const N = 6;

export function classes(page, { model }) {
  page.append(
    make('h1', {}, 'Classes'),
    make('p', { class: 'lead' }, `What each of the ${model.labels.length} classes looks like to ${model.name}: drawn by it above, and below images that it was shown of late and knew.`));
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
      make('div', {}, make('h2', {}, label)), make('div', { class: 'pictures' }));
    gallery.append(card);
    seen.observe(card);
  }
}

async function fill(card, model) {
  const index = Number(card.dataset.index), label = model.labels[index], pictures = card.querySelector('.pictures');
  const small = Math.max(...model.size) <= 64 ? 'pixel' : '';
  const drawn = Array.from({ length: N }, (_, seed) => make('img', { class: small, alt: `${label}, drawn by the model`, loading: 'lazy', src: `/v1/models/${encodeURIComponent(`${model.name}@${model.version}`)}/classes/${index}/sample?seed=${seed}` }));
  drawn[0].addEventListener('error', () => drawn.forEach((each) => each.remove()));
  pictures.append(make('div', { class: 'samples' }, drawn));
  const found = await ask('/v1/predictions', { query: { label, status: 'known', model: model.name, limit: N } });
  const real = found.predictions.map((each) => make('img', { class: small, alt: each.answer.input, loading: 'lazy', src: `/v1/images/${each.image}` }));
  pictures.append(real.length ? make('div', { class: 'samples' }, real) : make('p', { class: 'soft' }, 'None was shown to it yet.'));
}
