// Calls of the server. Every error has a text for people.

export class ApiError extends Error {
  constructor(status, message, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

async function answered(response) {
  if (response.ok) return response;
  let message = `the server answered ${response.status}`;
  let code = "";
  try {
    const { error } = await response.json();
    message = error.message;
    code = error.code;
  } catch {
    /* no JSON */
  }
  if (response.status === 401) window.dispatchEvent(new Event("logged-out"));
  throw new ApiError(response.status, message, code);
}

async function call(path, options) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "the server cannot be reached", "");
  }
  return answered(response);
}

const sent = (body, signal) => ({
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify(body),
  signal,
});

export const get = async (path) => (await call(path)).json();
export const post = async (path, body, signal) => (await call(path, sent(body, signal))).json();

export async function login(token) {
  await call("/api/login", { method: "POST", headers: { authorization: `Bearer ${token}` } });
}

export const logout = () => call("/api/logout", { method: "POST" });

/** Post a request whose answer is a stream of events; `each` gets every one. */
export async function stream(path, body, each, signal) {
  const response = await call(path, sent(body, signal));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let whole = false;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      if (!part.startsWith("data: ")) continue;
      const data = part.slice(6);
      if (data === "[DONE]") {
        whole = true;
        continue;
      }
      const event = JSON.parse(data);
      if (event.error) throw new ApiError(500, event.error.message, event.error.code);
      each(event);
    }
  }
  if (!whole) throw new ApiError(0, "the answer broke off", "");
}

const known = new Map();

/** What is known of features, in a line each; asked for once. Empty where this caller may not look. */
export async function briefs(features) {
  const missing = [...new Set(features)].filter((feature) => !known.has(feature));
  for (let i = 0; i < missing.length; i += 200) {
    const asked = missing.slice(i, i + 200);
    const found = await get(`/api/features/brief?${asked.map((f) => `f=${f}`).join("&")}`);
    for (const brief of found.features) known.set(brief.feature, brief);
  }
  return features.map((feature) => known.get(feature));
}

export const brief = (feature) => known.get(feature);
export const forget = (feature) => known.delete(feature);
