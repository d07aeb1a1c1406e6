// Images in by drop, paste, file or camera; an answer each, with its reasons, and a way to say that it is wrong.

import { ask, formOf } from './api.js';
import { badge, bars, image, make, png, pValue, percent, say, trying } from './make.js';

const AT_ONCE = 16; // images of one request

export function classify(page, { me, model, left }) {
  const answers = make('section', { class: 'answers', 'aria-label': 'Answers' });
  const file = make('input', { type: 'file', accept: 'image/*', multiple: true, hidden: true, onchange: () => { take(file.files); file.value = ''; } });
  const drop = make('section', { class: 'drop', 'aria-label': 'Images' },
    make('h2', { class: 'mouse' }, 'Drop images here'),
    make('p', { class: 'soft mouse' }, 'or paste one, choose files, or take a picture'),
    make('div', { class: 'row' },
      make('button', { type: 'button', onclick: () => file.click() }, 'Choose files'),
      make('button', { type: 'button', class: 'quiet', onclick: () => trying(() => takePicture(take)) }, 'Take a picture')),
    file);
  const take = (files) => trying(() => answered([...files].filter((each) => each.type.startsWith('image/') || !each.type), answers, me, model));
  for (const kind of ['dragover', 'dragleave', 'drop'])
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle('over', kind === 'dragover');
      if (kind === 'drop') take(event.dataTransfer.files);
    });
  const paste = (event) => event.clipboardData?.files.length && take(event.clipboardData.files);
  addEventListener('paste', paste, { signal: left });
  page.append(
    make('h1', {}, 'What is it, and is it anything known at all?'),
    make('p', { class: 'lead' }, `${model.name} knows ${model.labels.length} classes: ${listed(model.labels)}.`),
    drop, answers);
}

function counted(answers) {
  const n = {};
  for (const { status } of answers) n[status] = (n[status] ?? 0) + 1;
  return Object.entries(n).map(([status, many]) => `${many} ${status}`).join(', ');
}

const listed = (labels) => (labels.length > 12 ? `${labels.slice(0, 10).join(', ')} and ${labels.length - 10} more` : labels.join(', '));

async function answered(files, answers, me, model) {
  if (!files.length) return say('there was no image among these', true);
  const busy = make('progress', { max: files.length, value: 0, 'aria-label': 'Images answered' }), all = [];
  answers.before(busy);
  answers.setAttribute('aria-busy', 'true');
  try {
    for (let start = 0; start < files.length; start += AT_ONCE) {
      const some = files.slice(start, start + AT_ONCE);
      const found = await ask('/v1/classify', { method: 'POST', query: { model: model.name }, form: formOf(some) });
      for (const [i, answer] of found.predictions.entries()) answers.prepend(shown(answer, some[i], me, model));
      all.push(...found.predictions);
      busy.value = all.length;
    }
  } finally {
    busy.remove();
    answers.removeAttribute('aria-busy');
  }
  return say(all.length === 1 ? `${all[0].input}: ${title(all[0])}, ${all[0].status}` : `${all.length} images answered: ${counted(all)}`);
}

function shown(answer, file, me, model) {
  const card = make('article', { class: 'card answer', 'aria-label': answer.input });
  const picture = answer.status === 'error' ? make('div', { class: 'thumb none', 'aria-hidden': 'true' }, '?')
    : image({ class: 'thumb', alt: answer.input, src: URL.createObjectURL(file) });
  const told = make('div', {},
    badge(answer.status),
    make('div', { class: 'label' }, title(answer)),
    make('div', { class: 'name' }, answer.input));
  card.append(make('div', { class: 'top' }, picture, told));
  if (answer.status === 'error') {
    card.append(make('p', { class: 'sentence' }, answer.error.replace(`${answer.input}: `, '')));
    return card;
  }
  const reasons = make('div', { class: 'why', hidden: true });
  const why = make('button', { type: 'button', class: 'quiet', 'aria-expanded': 'false', onclick: () => trying(() => explain(why, reasons, file, model)) }, 'Why?');
  const wrong = make('button', { type: 'button', class: 'quiet', onclick: () => correct(card, answer, model) }, 'Wrong?');
  card.append(
    make('p', { class: 'sentence' }, sentence(answer)),
    bars(answer.classes),
    make('div', { class: 'row' }, why, me.scopes.some((scope) => ['label', 'admin'].includes(scope)) && wrong),
    reasons);
  return card;
}

const title = (answer) => (answer.status === 'unknown' ? 'Nothing known' : answer.status === 'error' ? 'Cannot be read' : answer.status === 'ambiguous' ? answer.prediction_set.join(' or ') : answer.label);

function sentence(answer) {
  const p = `p = ${pValue(answer.p_value)}`;
  if (answer.status === 'unknown') return `Unlike the images of every class (${p}). Closest to it is ${answer.label}.`;
  if (answer.status === 'uncalibrated') return 'Too few images were set aside in training to say whether it is anything known.';
  const [own] = answer.classes, like = answer.classes.find((each) => each.p_value === answer.p_value);
  const more = like && like !== own ? `, and ${percent(answer.p_value)} of those of ${like.label},` : '';
  return `${percent(own.p_value)} of the images of ${own.label}${more} are at least as unusual (${p}).`;
}

async function explain(button, reasons, file, model) {
  const open = reasons.hidden;
  button.setAttribute('aria-expanded', String(open));
  reasons.hidden = !open;
  if (!open || reasons.childElementCount) return;
  reasons.append(make('progress'));
  let found;
  try {
    found = await ask('/v1/explain', { method: 'POST', query: { model: model.name }, form: formOf([file]) });
  } finally {
    reasons.replaceChildren();
  }
  const picture = (source, about) => make('figure', {}, make('img', { src: png(source), alt: about }));
  const turn = found.counterfactual_path.find((stop) => stop.flips);
  reasons.append(
    make('p', { class: 'sentence' }, `Why ${found.label} (${percent(found.probability)}) and not ${found.against} (${percent(found.probability_against)}): orange speaks for ${found.label}, blue for ${found.against}.`),
    make('div', { class: 'pair' },
      picture(found.image, 'the image as the model sees it'),
      picture(found.attribution, `evidence for ${found.label} in orange and for ${found.against} in blue`)));
  if (!found.counterfactual_path.length) return;
  reasons.append(
    make('p', { class: 'sentence' }, turn ? `What would have to change for it to be ${found.against}; the framed one is the first that the model takes for it.` : `On the way to ${found.against}, which the model never comes to see.`),
    make('ol', { class: 'strip' }, found.counterfactual_path.map((stop) => make('li', { class: stop.flips ? 'turns' : '' },
      make('img', { src: png(stop.image), alt: `${found.against} ${percent(stop.probability)}` }),
      percent(stop.probability)))));
}

function correct(card, answer, model) {
  const label = make('select', { 'aria-label': 'What it shows' }, make('option', { value: '' }, 'choose…'), model.labels.map((each) => make('option', { value: each }, each)));
  const row = make('div', { class: 'row' }, make('span', {}, 'It shows'), label,
    make('button', { type: 'button', onclick: () => trying(async () => {
      if (!label.value) return say('say what it shows first', true);
      await ask(`/v1/predictions/${answer.id}/label`, { method: 'POST', json: { label: label.value } });
      row.replaceWith(make('p', { class: 'sentence' }, `Noted: ${label.value}.`));
      return say('Noted; Review has it.');
    }) }, 'Save'));
  card.append(row);
  label.focus();
}

async function takePicture(take) {
  const stream = await navigator.mediaDevices?.getUserMedia({ video: { facingMode: 'environment' } }).catch(() => null);
  if (!stream) return say('there is no camera that this page may use', true);
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
      } }, 'Take it'),
      make('button', { type: 'button', class: 'quiet', onclick: () => dialog.close() }, 'Cancel')));
  document.body.append(dialog);
  dialog.showModal();
  return undefined;
}
