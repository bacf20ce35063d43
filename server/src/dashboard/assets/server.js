// Asking the service. The key is kept for this tab only and sent as bearer credentials, never in an address.

const KEY = "zkinfer-key";
const API = "api/";
/** Wait before a stream that ended is opened again. */
const AGAIN_MS = 1500;

/** The service wants credentials, or others. */
export class NoOperator extends Error {}

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

async function request(path, signal, accept) {
  const headers = { accept };
  if (key.get()) headers.authorization = `Bearer ${key.get()}`;
  const response = await fetch(API + path, { headers, signal, credentials: "omit", cache: "no-store", redirect: "error" });
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({ error: `the service answered ${response.status}` }));
  throw response.status === 401 ? new NoOperator(error) : Object.assign(new Error(error), { status: response.status });
}

/** An answer. */
export async function read(path, signal) {
  return (await request(path, signal, "application/json")).json();
}

/** The events of a stream's text, and what is left of it. */
export function parse(text) {
  const blocks = text.split("\n\n");
  const rest = blocks.pop();
  const data = (block) => block.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).replace(/^ /, "")).join("\n");
  return { events: blocks.map(data).filter((found) => found !== "").map((found) => JSON.parse(found)), rest };
}

/** Follows a stream until `signal`, or until `isLast` says so of an event. Opens it again when it ends or breaks; `told` hears how it stands. */
export async function follow(path, signal, { each, isLast = () => false, told = () => {} }) {
  while (!signal.aborted) {
    try {
      const response = await request(path, signal, "text/event-stream");
      told("live");
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let text = ""; ;) {
        const { value, done } = await reader.read();
        if (done) break;
        const { events, rest } = parse(text + value);
        text = rest;
        if (events.length > 0) each(events[events.length - 1]);
        if (events.some(isLast)) return told("final");
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof NoOperator || error.status === 404) throw error;
    }
    if (signal.aborted) return;
    told("reconnecting");
    await new Promise((done) => setTimeout(done, AGAIN_MS));
  }
}
