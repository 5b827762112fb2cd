// Talking to the server: JSON, event streams, errors.

const KEY = "andiron.key";

/** What the server answered in place of a result. */
export class ApiError extends Error {
  constructor(status, { message, code = null } = {}, retryAfter = null) {
    super(message || `HTTP ${status}`);
    Object.assign(this, { status, code, retryAfter });
  }

  /** The key of the text that explains it. */
  get explanation() {
    if (this.status === 0) return "errorNetwork";
    if (this.status === 401) return "errorKey";
    if (this.code === "context_length_exceeded" || this.code === "request_too_large") return "errorTooLong";
    if (this.status === 413) return "errorTooLarge";
    if (this.status === 429) return "errorBusy";
    if (this.status === 503) return "errorUnavailable";
    if (this.status === 504 || this.status === 408) return "errorTimeout";
    if (this.status >= 500) return "errorServer";
    return "errorRefused";
  }
}

/** The key lives as long as the tab of the browser. */
export const apiKey = {
  read: () => sessionStorage.getItem(KEY) ?? "",
  write: key => (key ? sessionStorage.setItem(KEY, key) : sessionStorage.removeItem(KEY)),
};

async function send(path, body, signal) {
  const headers = {};
  if (apiKey.read()) headers.Authorization = `Bearer ${apiKey.read()}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers,
      signal,
      cache: "no-store",
      redirect: "error",
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, { message: error.message });
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  let told = {};
  try {
    const { error, message } = await response.json();
    told = typeof error === "string" ? { message: error } : (error ?? { message });
  } catch {
    /* Not JSON: the status says enough. */
  }
  const seconds = Number.parseInt(response.headers.get("retry-after"), 10);
  return new ApiError(response.status, told, Number.isNaN(seconds) ? null : seconds);
}

/** The JSON at `path`; posts `body` if there is one. */
export async function request(path, body, signal) {
  return (await send(path, body, signal)).json();
}

/** The JSON objects of an event stream, up to `[DONE]`. */
export async function* stream(path, body, signal) {
  const response = await send(path, body, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  try {
    for (;;) {
      const { value, done } = await reader.read().catch(error => {
        if (signal?.aborted) throw error;
        throw new ApiError(0, { message: error.message });
      });
      if (done) throw new ApiError(0, { message: "the connection ended before the answer did" });
      buffer += value;
      const events = buffer.split(/\r?\n\r?\n/);
      buffer = events.pop();
      for (const event of events) {
        const data = dataOf(event);
        if (data === "[DONE]") return;
        if (!data) continue;
        const parsed = JSON.parse(data);
        if (parsed.error) throw new ApiError(parsed.error.status ?? 500, parsed.error);
        yield parsed;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function dataOf(event) {
  const lines = event.split(/\r?\n/).filter(line => line.startsWith("data:"));
  return lines.map(line => line.slice(line[5] === " " ? 6 : 5)).join("\n");
}
