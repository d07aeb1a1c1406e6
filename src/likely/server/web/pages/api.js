// Requests to the service. The browser sends the cookie; changes also need the page's CSRF token.

let csrf = null;

export class RequestError extends Error {
  constructor(status, message) {
    super(message);
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
    throw new RequestError(0, 'the service cannot be reached');
  }
  if (response.status === 204) return null;
  const body = await response.json().catch(() => ({ detail: `the service responded with status ${response.status}` }));
  if (!response.ok) throw new RequestError(response.status, body.detail);
  return body;
}

export async function session() {
  return withToken(await ask('/v1/session'));
}

export async function logIn(key) {
  return withToken(await ask('/v1/session', { method: 'POST', json: { key } }));
}

export async function logOut() {
  await ask('/v1/session', { method: 'DELETE' });
  csrf = null;
}

function withToken(me) {
  csrf = me.csrf;
  return me;
}

export function formOf(files) {
  const form = new FormData();
  for (const file of files) form.append('image', file, file.name || 'pasted image');
  return form;
}
