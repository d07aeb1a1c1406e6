// Elements without a framework, and no text ever read as HTML.

export function make(tag, options = {}, ...inside) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'class') element.className = value;
    else if (name in element && typeof value !== 'string') element[name] = value;
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...inside.flat(Infinity).filter((each) => each !== null && each !== undefined && each !== false));
  return element;
}

const SMALL = 64; // pixels, up to which an image is shown in squares rather than blurred

export function image(options) {
  return make('img', { ...options, onload: ({ target }) => target.classList.toggle('pixel', Math.max(target.naturalWidth, target.naturalHeight) <= SMALL) });
}

export function say(sentence, wrong = false) {
  const said = document.getElementById('said');
  for (const line of said.children) if (line.textContent === sentence) return;
  const line = make('p', { class: wrong ? 'wrong' : '' }, sentence);
  said.append(line);
  setTimeout(() => line.remove(), wrong ? 9000 : 4000);
}

// What was said belongs to what was there before.
export const hush = () => document.getElementById('said').replaceChildren();

export async function trying(work) {
  try {
    return await work();
  } catch (error) {
    say(error.message, true);
    if (!('status' in error)) console.error(error);
    return undefined;
  }
}

export const percent = (p) => (p > 0.9995 && p < 1 ? '> 99.9 %' : p > 0 && p < 0.0005 ? '< 0.1 %' : `${(100 * p).toFixed(1)} %`);
export const pValue = (p) => (p === null ? 'none' : p < 0.001 ? '< 0.001' : p.toFixed(3));
export const png = (base64) => `data:image/png;base64,${base64}`;

export function badge(status, words = status) {
  return make('span', { class: `badge ${status}` }, words);
}

// The most probable classes as bars; the numbers stand beside them for those who cannot see bars.
export function bars(classes, most = 5) {
  const shown = classes.slice(0, most);
  return make('div', { class: 'bars' }, shown.map((each) => [
    make('span', { class: 'what' }, each.label),
    make('span', { class: 'bar', 'aria-hidden': 'true' }, wide(make('i'), each.probability)),
    make('span', { class: 'number' }, percent(each.probability)),
  ]));
}

function wide(element, share) {
  element.style.width = `${Math.max(0.5, 100 * share)}%`;
  return element;
}
