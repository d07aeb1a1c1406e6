// HTTP API reference, rendered from the OpenAPI description.

import { make } from './dom.js';

const openapi = await (await fetch('/openapi.json')).json();
const page = document.getElementById('page');
const named = (schema) => schema?.$ref?.split('/').pop() ?? (schema?.type === 'array' ? `list of ${named(schema.items)}` : schema?.type ?? 'anything');

page.append(
  make('h1', {}, `${openapi.info.title} ${openapi.info.version}`),
  make('p', { class: 'intro' }, openapi.info.description, ' ', make('a', { href: '/openapi.json' }, 'openapi.json'), ' is the machine-readable description.'),
  make('p', {}, 'Every request except health checks carries ', make('code', {}, 'Authorization: Bearer lk_…'), '.'));
for (const [path, methods] of Object.entries(openapi.paths))
  for (const [method, about] of Object.entries(methods)) page.append(section(path, method, about));
page.append(make('h1', {}, 'Schemas'), ...Object.entries(openapi.components?.schemas ?? {}).map(schema));

function section(path, method, about) {
  const fields = (about.parameters ?? []).map((each) => make('tr', {}, make('th', { scope: 'row' }, each.name), make('td', {}, each.in), make('td', {}, each.description ?? each.schema?.description ?? '')));
  const sent = Object.keys(about.requestBody?.content ?? {});
  const responses = Object.entries(about.responses).map(([code, each]) => make('tr', {}, make('th', { scope: 'row' }, code), make('td', {}, each.description)));
  return make('details', { class: 'card' },
    make('summary', {}, make('strong', {}, method.toUpperCase()), ' ', make('code', {}, path), ' ', make('span', { class: 'soft' }, about.description ?? '')),
    sent.length ? make('p', {}, `Takes ${sent.join(', ')}.`) : null,
    fields.length ? make('table', {}, make('tbody', {}, fields)) : null,
    make('h2', {}, 'Responses'), make('table', {}, make('tbody', {}, responses)));
}

function schema([name, about]) {
  return make('details', { class: 'card' }, make('summary', {}, make('strong', {}, name), ' ', make('span', { class: 'soft' }, about.description ?? '')),
    make('table', {}, make('tbody', {}, Object.entries(about.properties ?? {}).map(([field, each]) => make('tr', {}, make('th', { scope: 'row' }, field), make('td', {}, named(each)), make('td', {}, each.description ?? ''))))));
}
