// DOM elements without a framework; text is never parsed as HTML.

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

const SMALL = 64; // pixels: images up to this size are enlarged without smoothing

export function image(options) {
  return make('img', { ...options, onload: ({ target }) => target.classList.toggle('pixel', Math.max(target.naturalWidth, target.naturalHeight) <= SMALL) });
}

export function notify(message, isError = false) {
  const area = document.getElementById('notifications');
  for (const line of area.children) if (line.textContent === message) return;
  const line = make('p', { class: isError ? 'error' : '' }, message);
  area.append(line);
  setTimeout(() => line.remove(), isError ? 9000 : 4000);
}

export const clearNotifications = () => document.getElementById('notifications').replaceChildren();

// Run an action and show its error, if any, as a notification.
export async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    notify(error.message, true);
    if (!('status' in error)) console.error(error);
    return undefined;
  }
}

export const percent = (p) => (p > 0.9995 && p < 1 ? '> 99.9 %' : p > 0 && p < 0.0005 ? '< 0.1 %' : `${(100 * p).toFixed(1)} %`);
export const pValue = (p) => (p === null ? 'none' : p < 0.001 ? '< 0.001' : p.toFixed(3));
export const png = (base64) => `data:image/png;base64,${base64}`;

export function badge(status, text = status) {
  return make('span', { class: `badge ${status}` }, text);
}

// Bars of the most probable classes, with the numbers beside them.
export function bars(classes, limit = 5) {
  return make('div', { class: 'bars' }, classes.slice(0, limit).map((each) => [
    make('span', { class: 'name' }, each.label),
    make('span', { class: 'bar', 'aria-hidden': 'true' }, withWidth(make('i'), each.probability)),
    make('span', { class: 'number' }, percent(each.probability)),
  ]));
}

function withWidth(element, fraction) {
  element.style.width = `${Math.max(0.5, 100 * fraction)}%`;
  return element;
}
