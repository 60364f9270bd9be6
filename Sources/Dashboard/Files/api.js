// The admin API as this page uses it, with the session's cookie. Every change carries the session's second
// secret, which no other site's page can know.

let csrf = "";
let onSignedOut = () => {};

export const session = { role: "read" };

/** What the server refused: `field` when it named one. */
export class ApiError extends Error {
  constructor(status, code, message) {
    const named = code === "INVALID_FIELD" || code === "CONFLICT" ? /^([a-z_]+): (.*)$/s.exec(message) : null;
    super(named ? named[2] : message);
    this.status = status;
    this.code = code;
    this.field = named ? named[1] : null;
  }
}

async function send(method, path, body, headers = {}) {
  const options = { method, headers: { ...headers }, cache: "no-store", credentials: "same-origin" };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  if (method !== "GET") options.headers["X-CSRF-Token"] = csrf;
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new ApiError(0, "UNREACHABLE", "The gateway does not answer. It may have stopped, or the network is down.");
  }
  const text = await response.text();
  let value = null;
  try { value = text ? JSON.parse(text) : null; } catch { /* not ours: the status says enough */ }
  if (!response.ok) {
    throw new ApiError(response.status, value?.error?.code ?? "", value?.error?.message ?? `The gateway answers ${response.status}.`);
  }
  return { value, etag: response.headers.get("ETag") };
}

/** One call; a session that has ended leads back to the sign-in. */
export async function call(method, path, body, headers) {
  try {
    return await send(method, path, body, headers);
  } catch (error) {
    if (error.status === 401) onSignedOut("Your session has ended. Sign in again.");
    throw error;
  }
}

export const get = async (path) => (await call("GET", path)).value;

function adopt(value) {
  csrf = value.csrf_token;
  session.role = value.role;
}

/** Whether the browser still has a session; throws when there is no way in at all. */
export async function resume() {
  try {
    adopt((await send("GET", "/session")).value);
    return true;
  } catch (error) {
    if (error.status === 401) return false;
    throw error;
  }
}

export async function signIn(token) { adopt((await send("POST", "/session", { token })).value); }

export async function signOut() {
  try { await send("DELETE", "/session"); } finally { csrf = ""; }
}

export function whenSignedOut(handler) { onSignedOut = handler; }

/** A name for one attempt to create something, so that a repetition creates it once. */
export function idempotencyKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
