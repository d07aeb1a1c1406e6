// Classify images from a drop, the clipboard, files or the camera; explain and correct predictions.

import { ask, formOf } from './api.js';
import { badge, bars, image, make, png, pValue, percent, notify, attempt } from './dom.js';

const BATCH_SIZE = 16; // images per request

export function classify(page, { me, model, signal }) {
  const results = make('section', { class: 'predictions', 'aria-label': 'Predictions' });
  const file = make('input', { type: 'file', accept: 'image/*', multiple: true, hidden: true, onchange: () => { take(file.files); file.value = ''; } });
  const drop = make('section', { class: 'drop', 'aria-label': 'Images' },
    make('h2', { class: 'mouse' }, 'Drop images here'),
    make('p', { class: 'soft mouse' }, 'or paste one, choose files, or take a picture'),
    make('div', { class: 'row' },
      make('button', { type: 'button', onclick: () => file.click() }, 'Choose files'),
      make('button', { type: 'button', class: 'quiet', onclick: () => attempt(() => takePicture(take)) }, 'Take a picture')),
    file);
  const take = (files) => attempt(() => classifyFiles([...files].filter((each) => each.type.startsWith('image/') || !each.type), results, me, model));
  for (const kind of ['dragover', 'dragleave', 'drop'])
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle('over', kind === 'dragover');
      if (kind === 'drop') take(event.dataTransfer.files);
    });
  const paste = (event) => event.clipboardData?.files.length && take(event.clipboardData.files);
  addEventListener('paste', paste, { signal });
  page.append(
    make('h1', {}, 'Classify images'),
    make('p', { class: 'intro' }, `${model.name} has ${model.labels.length} classes: ${listed(model.labels)}.`),
    drop, results);
}

function countByStatus(predictions) {
  const n = {};
  for (const { status } of predictions) n[status] = (n[status] ?? 0) + 1;
  return Object.entries(n).map(([status, many]) => `${many} ${status}`).join(', ');
}

const listed = (labels) => (labels.length > 12 ? `${labels.slice(0, 10).join(', ')} and ${labels.length - 10} more` : labels.join(', '));

async function classifyFiles(files, results, me, model) {
  if (!files.length) return notify('None of these files is an image.', true);
  const busy = make('progress', { max: files.length, value: 0, 'aria-label': 'Images classified' }), all = [];
  results.before(busy);
  results.setAttribute('aria-busy', 'true');
  try {
    for (let start = 0; start < files.length; start += BATCH_SIZE) {
      const some = files.slice(start, start + BATCH_SIZE);
      const found = await ask('/v1/classify', { method: 'POST', query: { model: model.name }, form: formOf(some) });
      for (const [i, prediction] of found.predictions.entries()) results.prepend(card(prediction, some[i], me, model));
      all.push(...found.predictions);
      busy.value = all.length;
    }
  } finally {
    busy.remove();
    results.removeAttribute('aria-busy');
  }
  return notify(all.length === 1 ? `${all[0].input}: ${title(all[0])}, ${all[0].status}` : `${all.length} images classified: ${countByStatus(all)}`);
}

function card(prediction, file, me, model) {
  const element = make('article', { class: 'card prediction', 'aria-label': prediction.input });
  const thumbnail = prediction.status === 'error' ? make('div', { class: 'thumb none', 'aria-hidden': 'true' }, '?')
    : image({ class: 'thumb', alt: prediction.input, src: URL.createObjectURL(file) });
  const summary = make('div', {},
    badge(prediction.status),
    make('div', { class: 'label' }, title(prediction)),
    make('div', { class: 'name' }, prediction.input));
  element.append(make('div', { class: 'top' }, thumbnail, summary));
  if (prediction.status === 'error') {
    element.append(make('p', { class: 'description' }, prediction.error.replace(`${prediction.input}: `, '')));
    return element;
  }
  const explanation = make('div', { class: 'explanation', hidden: true });
  const why = make('button', { type: 'button', class: 'quiet', 'aria-expanded': 'false', onclick: () => attempt(() => explain(why, explanation, file, model)) }, 'Why?');
  const wrong = make('button', { type: 'button', class: 'quiet', onclick: () => correct(element, prediction, model) }, 'Wrong?');
  element.append(
    make('p', { class: 'description' }, description(prediction)),
    prediction.status === 'unknown' ? '' : bars(prediction.classes),
    make('div', { class: 'row' }, why, me.scopes.some((scope) => ['label', 'admin'].includes(scope)) && wrong),
    explanation);
  return element;
}

const title = ({ status, prediction_set: set, label }) => (status === 'unknown' ? 'Unknown' : status === 'error' ? 'Cannot be read' : status === 'ambiguous' ? set.join(' or ') : label);

function description(prediction) {
  const p = `p = ${pValue(prediction.p_value)}`;
  if (prediction.status === 'unknown') return `Not like the known images (${p}). The nearest class is ${prediction.label}.`;
  if (prediction.status === 'uncalibrated') return 'Too few calibration images to decide whether this image is known.';
  const [own] = prediction.classes;
  const of = own.p_value === null ? '' : `, and ${percent(own.p_value)} of the images of ${own.label}`;
  return `${percent(prediction.p_value)} of the known images${of} are at least as atypical (${p}).`;
}

async function explain(button, explanation, file, model) {
  const open = explanation.hidden;
  button.setAttribute('aria-expanded', String(open));
  explanation.hidden = !open;
  if (!open || explanation.childElementCount) return;
  explanation.append(make('progress'));
  let found;
  try {
    found = await ask('/v1/explain', { method: 'POST', query: { model: model.name }, form: formOf([file]) });
  } finally {
    explanation.replaceChildren();
  }
  const figure = (source, alt) => make('figure', {}, make('img', { src: png(source), alt }));
  const flip = found.counterfactual_path.find((frame) => frame.flips);
  explanation.append(
    make('p', { class: 'description' }, `Why ${found.label} (${percent(found.probability)}) and not ${found.against} (${percent(found.probability_against)}): orange pixels support ${found.label}, blue ones ${found.against}.`),
    make('div', { class: 'pair' },
      figure(found.image, 'the image after preprocessing'),
      figure(found.attribution, `pixel attributions: orange supports ${found.label}, blue ${found.against}`)));
  if (!found.counterfactual_path.length) return;
  explanation.append(
    make('p', { class: 'description' }, flip ? `What would have to change for ${found.against}: the framed image is the first that is classified as ${found.against}.` : `Path to ${found.against}; no image on it is classified as ${found.against}.`),
    make('ol', { class: 'path' }, found.counterfactual_path.map((frame) => make('li', { class: frame.flips ? 'flip' : '' },
      make('img', { src: png(frame.image), alt: `${found.against} ${percent(frame.probability)}` }),
      percent(frame.probability)))));
}

function correct(element, prediction, model) {
  const label = make('select', { 'aria-label': 'Correct class' }, make('option', { value: '' }, 'choose…'), model.labels.map((each) => make('option', { value: each }, each)));
  const row = make('div', { class: 'row' }, make('span', {}, 'Correct class'), label,
    make('button', { type: 'button', onclick: () => attempt(async () => {
      if (!label.value) return notify('Choose a class first.', true);
      await ask(`/v1/predictions/${prediction.id}/label`, { method: 'POST', json: { label: label.value } });
      row.replaceWith(make('p', { class: 'description' }, `Saved: ${label.value}.`));
      return notify('Saved; see Review.');
    }) }, 'Save'));
  element.append(row);
  label.focus();
}

async function takePicture(take) {
  const stream = await navigator.mediaDevices?.getUserMedia({ video: { facingMode: 'environment' } }).catch(() => null);
  if (!stream) return notify('No camera is available to this page.', true);
  const video = make('video', { autoplay: true, playsInline: true, muted: true });
  video.srcObject = stream;
  const dialog = make('dialog', { 'aria-label': 'Take a picture', onclose: () => { stream.getTracks().forEach((track) => track.stop()); dialog.remove(); } },
    video,
    make('div', { class: 'row' },
      make('button', { type: 'button', onclick: () => {
        const canvas = make('canvas', { width: video.videoWidth, height: video.videoHeight });
        canvas.getContext('2d').drawImage(video, 0, 0);
        canvas.toBlob((blob) => take([new File([blob], 'picture.png', { type: 'image/png' })]));
        dialog.close();
      } }, 'Take picture'),
      make('button', { type: 'button', class: 'quiet', onclick: () => dialog.close() }, 'Cancel')));
  document.body.append(dialog);
  dialog.showModal();
  return undefined;
}
