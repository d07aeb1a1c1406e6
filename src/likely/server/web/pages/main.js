// One page at a time, by what stands behind the # of the address.

import { ask, logIn, logOut, whoAmI } from './api.js';
import { classes } from './classes.js';
import { classify } from './classify.js';
import { hush, make, say, trying } from './make.js';
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
    state.me = await whoAmI();
  } catch (error) {
    if (error.status !== 401) say(error.message, true);
    return showLogIn();
  }
  for (const part of document.querySelectorAll('header [hidden]')) part.hidden = false;
  await reload();
}

// The models may have changed.
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
  leaving.abort(); // what the page before listens to and waits for
  leaving = new AbortController();
  PAGES[name](page, { me: state.me, model: chosen(), reload, left: leaving.signal });
}

function showLogIn() {
  const key = make('input', { type: 'password', id: 'key', autocomplete: 'current-password', required: true, placeholder: 'lk_…' });
  const send = async (event) => {
    event.preventDefault();
    if (await trying(() => logIn(key.value.trim()))) {
      hush();
      begin();
    }
  };
  page.replaceChildren(
    make('form', { class: 'card login', onsubmit: send },
      make('h1', {}, 'Log in'),
      make('p', { class: 'soft' }, 'With an API key. The first one was printed where the service was first started; without a terminal there, it is in the file initial-admin-key of its store.'),
      make('label', { for: 'key' }, 'Key', key),
      make('button', {}, 'Log in')));
  key.focus();
}

addEventListener('hashchange', () => {
  if (!state.me) return;
  hush();
  show();
  page.focus({ preventScroll: true });
  scrollTo(0, 0);
});
which.addEventListener('change', show);
document.getElementById('out').addEventListener('click', () => trying(async () => {
  await logOut();
  location.reload();
}));
begin();
