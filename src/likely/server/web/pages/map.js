// Map: the 2-D projection of class embeddings and images, updated as images arrive.

import { ask } from './api.js';
import { badge, make, percent, attempt } from './dom.js';

const SVG = 'http://www.w3.org/2000/svg';
const MAX_IMAGES = 300; // on the map
const REFRESH_MS = 3000;
const SIDE = 28; // pixels of a thumbnail

export function map(page, { model, signal }) {
  const svg = svgElement('svg', { class: 'map', role: 'application', tabindex: '0', 'aria-label': 'Map of classes and images; arrows move it, plus and minus zoom' });
  const layer = svgElement('g'), about = make('div', { class: 'card about-image', hidden: true });
  const state = { x: 0, y: 0, scale: 1, newest: null, shown: new Map() };
  svg.append(layer);
  page.append(
    make('h1', {}, 'Map'),
    make('p', { class: 'intro' }, 'Class embeddings and recent images, projected to two dimensions. Drag to move, ', make('span', { class: 'mouse' }, 'scroll'), make('span', { class: 'touch' }, 'pinch'), ' to zoom; new images appear automatically.'),
    make('p', { class: 'row legend' }, make('span', { class: 'dot' }, 'a class'), badge('known'), badge('ambiguous'), badge('unknown')),
    make('div', { class: 'row' },
      make('button', { type: 'button', class: 'quiet', onclick: () => zoom(1.4) }, 'Zoom in'),
      make('button', { type: 'button', class: 'quiet', onclick: () => zoom(1 / 1.4) }, 'Zoom out'),
      make('button', { type: 'button', class: 'quiet', onclick: fit }, 'Show all')),
    svg, about);

  const size = () => svg.getBoundingClientRect();
  const at = ({ x, y }) => [state.x + x * state.scale, state.y - y * state.scale];

  function position(element, point, side = 0) {
    const [x, y] = at(point);
    element.setAttribute('transform', `translate(${x - side / 2} ${y - side / 2})`);
  }

  function draw() {
    for (const child of layer.children) position(child, child.point, child.side ?? 0);
  }

  function zoom(by, x = size().width / 2, y = size().height / 2) {
    state.x = x + (state.x - x) * by;
    state.y = y + (state.y - y) * by;
    state.scale *= by;
    draw();
  }

  function fit() {
    const points = [...layer.children].map((child) => child.point);
    if (!points.length) return;
    const range = (name) => [Math.min(...points.map((point) => point[name])), Math.max(...points.map((point) => point[name]))];
    const [left, right] = range('x'), [low, high] = range('y'), { width, height } = size();
    state.scale = 0.84 * Math.min(width / Math.max(right - left, 1e-9), height / Math.max(high - low, 1e-9));
    state.x = width / 2 - state.scale * (left + right) / 2;
    state.y = height / 2 + state.scale * (low + high) / 2;
    draw();
  }

  function addClass(each) {
    const group = svgElement('g', { class: 'marker' }, svgElement('circle', { r: '5' }), svgElement('text', { y: '-10', 'text-anchor': 'middle' }));
    group.lastChild.textContent = each.label;
    group.point = each;
    layer.append(group);
  }

  function addImage(each) {
    const picture = svgElement('image', { href: `/v1/images/${each.image}`, width: SIDE, height: SIDE, class: `shown ${each.prediction.status}`, tabindex: '0', role: 'img', 'aria-label': `${each.prediction.input}: ${each.prediction.status}, ${each.prediction.label}` });
    const frame = svgElement('rect', { width: SIDE, height: SIDE, rx: '4', class: `frame ${each.prediction.status}` });
    const group = svgElement('g', {}, picture, frame);
    group.point = { x: each.embedding_2d[0], y: each.embedding_2d[1] };
    group.side = SIDE;
    group.addEventListener('click', () => describe(each));
    group.addEventListener('focusin', () => describe(each));
    layer.prepend(group);
    state.shown.set(each.id, group);
    if (state.shown.size > MAX_IMAGES) {
      const [oldest] = [...state.shown.keys()].sort();
      state.shown.get(oldest).remove();
      state.shown.delete(oldest);
    }
  }

  function describe({ prediction, image }) {
    about.hidden = false;
    about.replaceChildren(make('div', { class: 'row' }, make('img', { class: 'thumb pixel', src: `/v1/images/${image}`, alt: prediction.input }),
      make('div', {}, make('strong', {}, prediction.status === 'unknown' ? 'Unknown' : prediction.label), make('div', { class: 'soft' }, prediction.status === 'unknown' ? `${prediction.input}, nearest class ${prediction.label}` : `${prediction.input}, ${prediction.status}, ${percent(prediction.probability)}`))));
  }

  async function look() {
    const found = await ask('/v1/predictions', { query: { model: `${model.name}@${model.version}`, limit: state.newest ? 50 : MAX_IMAGES } });
    const fresh = found.predictions.filter((each) => each.embedding_2d && (!state.newest || each.id > state.newest));
    for (const each of fresh.reverse()) addImage(each);
    state.newest = found.predictions[0]?.id ?? state.newest;
    draw();
    return fresh.length;
  }

  const held = new Map(); // active pointers and their positions
  const middle = () => [...held.values()].reduce(([x, y], [u, v]) => [x + u / held.size, y + v / held.size], [0, 0]);
  const apart = () => { const [a, b] = [...held.values()]; return Math.hypot(a[0] - b[0], a[1] - b[1]); };
  svg.addEventListener('pointerdown', (event) => held.set(event.pointerId, [event.clientX, event.clientY]));
  svg.addEventListener('pointermove', (event) => {
    if (!held.has(event.pointerId)) return;
    const [x, y] = middle(), before = held.size === 2 ? apart() : 1;
    held.set(event.pointerId, [event.clientX, event.clientY]);
    const [nowX, nowY] = middle(), { left, top } = size();
    state.x += nowX - x;
    state.y += nowY - y;
    zoom(held.size === 2 && before ? apart() / before : 1, nowX - left, nowY - top);
  });
  for (const kind of ['pointerup', 'pointercancel', 'pointerleave']) svg.addEventListener(kind, (event) => held.delete(event.pointerId));
  svg.addEventListener('wheel', (event) => {
    event.preventDefault();
    const { left, top } = size();
    zoom(Math.exp(-event.deltaY / 400), event.clientX - left, event.clientY - top);
  }, { passive: false });
  svg.addEventListener('keydown', (event) => {
    const moves = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] };
    if (event.key in moves) { state.x += moves[event.key][0]; state.y += moves[event.key][1]; draw(); }
    else if (event.key === '+') zoom(1.2);
    else if (event.key === '-') zoom(1 / 1.2);
    else return;
    event.preventDefault();
  });

  attempt(async () => {
    const { classes } = await ask(`/v1/models/${encodeURIComponent(`${model.name}@${model.version}`)}/map`);
    if (!classes.length) {
      svg.replaceWith(make('p', { class: 'empty' }, `Models of the family ${model.family} have no embedding, so there is no map.`));
      return;
    }
    classes.forEach(addClass);
    await look();
    fit();
    addEventListener('resize', fit, { signal });
    if (signal.aborted) return;
    const timer = setInterval(() => attempt(look), REFRESH_MS);
    signal.addEventListener('abort', () => clearInterval(timer));
  });
}

function svgElement(tag, attributes = {}, ...inside) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...inside);
  return element;
}
