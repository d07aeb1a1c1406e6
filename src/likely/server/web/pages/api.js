// What the pages say to the service. The cookie goes by itself; what changes something carries the page's own token.

let csrf = null;

export class Refused extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

export async function ask(path, { method = 'GET', query = {}, json, form } = {}) {
  const url = new URL(path, location.origin);
  for (const [name, value] of Object.entries(query))
    for (const one of [value].flat()) if (one !== null && one !== undefined && one !== '') url.searchParams.append(name, one);
  const headers = {};
  if (csrf) headers['X-CSRF-Token'] = csrf;
  if (json !== undefined) headers['Content-Type'] = 'application/json';
  let response;
  try {
    response = await fetch(url, { method, headers, body: json !== undefined ? JSON.stringify(json) : form });
  } catch {
    throw new Refused(0, 'the service cannot be reached');
  }
  if (response.status === 204) return null;
  const told = await response.json().catch(() => ({ detail: `the service answered ${response.status}` }));
  if (!response.ok) throw new Refused(response.status, told.detail);
  return told;
}

export async function whoAmI() {
  return remembered(await ask('/v1/session'));
}

export async function logIn(key) {
  return remembered(await ask('/v1/session', { method: 'POST', json: { key } }));
}

export async function logOut() {
  await ask('/v1/session', { method: 'DELETE' });
  csrf = null;
}

function remembered(me) {
  csrf = me.csrf;
  return me;
}

export function formOf(files) {
  const form = new FormData();
  for (const file of files) form.append('image', file, file.name || 'pasted image');
  return form;
}
