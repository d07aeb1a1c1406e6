// The addresses of the service, read from its own description.

import { make } from './make.js';

const told = await (await fetch('/openapi.json')).json();
const page = document.getElementById('page');
const named = (schema) => schema?.$ref?.split('/').pop() ?? (schema?.type === 'array' ? `list of ${named(schema.items)}` : schema?.type ?? 'anything');

page.append(
  make('h1', {}, `${told.info.title} ${told.info.version}`),
  make('p', { class: 'lead' }, told.info.description, ' ', make('a', { href: '/openapi.json' }, 'openapi.json'), ' is for programs.'),
  make('p', {}, 'Every request but those for health carries ', make('code', {}, 'Authorization: Bearer lk_…'), '.'));
for (const [path, methods] of Object.entries(told.paths))
  for (const [method, about] of Object.entries(methods)) page.append(section(path, method, about));
page.append(make('h1', {}, 'What goes over the wire'), ...Object.entries(told.components?.schemas ?? {}).map(schema));

function section(path, method, about) {
  const fields = (about.parameters ?? []).map((each) => make('tr', {}, make('th', { scope: 'row' }, each.name), make('td', {}, each.in), make('td', {}, each.description ?? each.schema?.description ?? '')));
  const sent = Object.keys(about.requestBody?.content ?? {});
  const answers = Object.entries(about.responses).map(([code, each]) => make('tr', {}, make('th', { scope: 'row' }, code), make('td', {}, each.description)));
  return make('details', { class: 'card' },
    make('summary', {}, make('strong', {}, method.toUpperCase()), ' ', make('code', {}, path), ' ', make('span', { class: 'soft' }, about.description ?? '')),
    sent.length ? make('p', {}, `Takes ${sent.join(', ')}.`) : null,
    fields.length ? make('table', {}, make('tbody', {}, fields)) : null,
    make('h2', {}, 'Answers'), make('table', {}, make('tbody', {}, answers)));
}

function schema([name, about]) {
  return make('details', { class: 'card' }, make('summary', {}, make('strong', {}, name), ' ', make('span', { class: 'soft' }, about.description ?? '')),
    make('table', {}, make('tbody', {}, Object.entries(about.properties ?? {}).map(([field, each]) => make('tr', {}, make('th', { scope: 'row' }, field), make('td', {}, named(each)), make('td', {}, each.description ?? ''))))));
}
