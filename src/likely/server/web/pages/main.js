// Routing: one page at a time, by the fragment of the URL.

import { ask, logIn, logOut, session } from './api.js';
import { classes } from './classes.js';
import { classify } from './classify.js';
import { clearNotifications, make, notify, attempt } from './dom.js';
import { map } from './map.js';
import { model } from './model.js';
import { review } from './review.js';

const PAGES = { classify, classes, map, review, model };
const page = document.getElementById('page');
const which = document.getElementById('which');
const state = { me: null, models: [] };
let leaving = new AbortController();

export const chosen = () => state.models.find((each) => each.name === which.value) ?? state.models[0];

async function begin() {
  try {
    state.me = await session();
  } catch (error) {
    if (error.status !== 401) notify(error.message, true);
    return showLogIn();
  }
  for (const element of document.querySelectorAll('header [hidden]')) element.hidden = false;
  await reload();
}

async function reload() {
  const before = which.value;
  state.models = (await ask('/v1/models')).models;
  which.replaceChildren(...state.models.map((each) => make('option', { value: each.name, selected: each.name === before }, `${each.name}@${each.version}`)));
  show();
}

function show() {
  const name = location.hash.slice(1) in PAGES ? location.hash.slice(1) : 'classify';
  for (const link of document.querySelectorAll('nav a'))
    if (link.hash === `#${name}`) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  document.title = `${name[0].toUpperCase()}${name.slice(1)} · Likely`;
  page.replaceChildren();
  leaving.abort(); // end listeners and timers of the previous page
  leaving = new AbortController();
  PAGES[name](page, { me: state.me, model: chosen(), reload, signal: leaving.signal });
}

function showLogIn() {
  const key = make('input', { type: 'password', id: 'key', autocomplete: 'current-password', required: true, placeholder: 'lk_…' });
  const send = async (event) => {
    event.preventDefault();
    if (await attempt(() => logIn(key.value.trim()))) {
      clearNotifications();
      begin();
    }
  };
  page.replaceChildren(
    make('form', { class: 'card login', onsubmit: send },
      make('h1', {}, 'Log in'),
      make('p', { class: 'soft' }, 'Use an API key. The first one was printed when the service was first started; without a terminal, it is in the file initial-admin-key in the store folder.'),
      make('label', { for: 'key' }, 'Key', key),
      make('button', {}, 'Log in')));
  key.focus();
}

addEventListener('hashchange', () => {
  if (!state.me) return;
  clearNotifications();
  show();
  page.focus({ preventScroll: true });
  scrollTo(0, 0);
});
which.addEventListener('change', show);
document.getElementById('out').addEventListener('click', () => attempt(async () => {
  await logOut();
  location.reload();
}));
begin();
