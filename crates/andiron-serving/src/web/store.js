// Conversations, kept in this browser and nowhere else.

const MAX_IMPORT_BYTES = 20 << 20;
const ROLES = ["system", "user", "assistant", "tool"];

let opened = null;
/** Where the browser gives no database, as in some private windows: kept until the page closes. */
const memory = new Map();

function database() {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open("andiron", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("conversations", { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opened;
}

async function inStore(mode, work, instead) {
  let db;
  try {
    db = await database();
  } catch {
    return instead();
  }
  return new Promise((resolve, reject) => {
    const transaction = db.transaction("conversations", mode);
    const request = work(transaction.objectStore("conversations"));
    transaction.oncomplete = () => resolve(request.result);
    transaction.onerror = transaction.onabort = () => reject(transaction.error);
  });
}

/** All conversations, the latest first. */
export async function conversations() {
  const all = await inStore(
    "readonly",
    store => store.getAll(),
    () => [...memory.values()],
  );
  return all.sort((a, b) => b.updated - a.updated);
}

export async function save(conversation) {
  const copy = structuredClone(conversation);
  await inStore(
    "readwrite",
    store => store.put(copy),
    () => memory.set(copy.id, copy),
  );
}

export async function remove(id) {
  await inStore(
    "readwrite",
    store => store.delete(id),
    () => memory.delete(id),
  );
}

export function newConversation() {
  const now = Date.now();
  return {
    id: crypto.randomUUID?.() ?? `${now}-${Math.random()}`,
    title: "",
    created: now,
    updated: now,
    system: "",
    tools: "",
    messages: [],
  };
}

/** All conversations as the text of a JSON file. */
export async function exported() {
  return JSON.stringify({ format: "andiron-conversations", version: 1, conversations: await conversations() }, null, 1);
}

/** Adds the conversations of such a file; returns how many. Fails with the key of a text. */
export async function imported(file) {
  if (file.size > MAX_IMPORT_BYTES) throw new Error("importTooLarge");
  let read;
  try {
    read = JSON.parse(await file.text()).conversations.map(checked);
  } catch {
    throw new Error("importUnreadable");
  }
  for (const conversation of read) await save(conversation);
  return read.length;
}

/** A conversation from outside: only the fields that we know, of the types that we expect. */
function checked({ id, title, created, updated, system, tools, messages }) {
  const text = value => (typeof value === "string" ? value : "");
  const time = value => (Number.isFinite(value) ? value : Date.now());
  const fresh = newConversation();
  return {
    id: text(id) || fresh.id,
    title: text(title),
    created: time(created),
    updated: time(updated),
    system: text(system),
    tools: text(tools),
    messages: messages.map(message => {
      if (!ROLES.includes(message.role)) throw new Error("role");
      const kept = { role: message.role, content: text(message.content) };
      if (message.reasoning) kept.reasoning = text(message.reasoning);
      if (message.tool_call_id) kept.tool_call_id = text(message.tool_call_id);
      if (Array.isArray(message.tool_calls)) {
        kept.tool_calls = message.tool_calls.map(call => ({
          id: text(call.id),
          type: "function",
          function: { name: text(call.function?.name), arguments: text(call.function?.arguments) },
        }));
      }
      return kept;
    }),
  };
}
