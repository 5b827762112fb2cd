// Parts that several tabs share.

import { ApiError, request } from "./api.js";
import { announce, field, grow, h, icon, iconButton } from "./dom.js";
import { translate } from "./texts.js";

/** Where an error is shown, with a way to try again. */
export function errorBox() {
  const box = h("div", { class: "error", role: "alert", hidden: true });
  return {
    node: box,
    hide: () => {
      box.hidden = true;
    },
    show: (error, retry = null) => {
      const told = error instanceof ApiError ? error : null;
      const known = told ? { t: told.explanation } : { t: "errorPage" };
      const wait = told?.retryAfter ? h("span", { t: { key: "errorWait", seconds: told.retryAfter } }) : null;
      box.replaceChildren(
        icon("warn"),
        h("div", {}, h("strong", known), " ", wait, h("p", {}, error.message)),
        (retry &&
          h("button", {
            type: "button",
            class: "plain",
            t: "again",
            onclick: () => {
              box.hidden = true;
              retry();
            },
          })) ||
          "",
      );
      box.hidden = false;
      if (told?.status === 401) document.dispatchEvent(new CustomEvent("key-wanted"));
    },
  };
}

/** What a tab shows before anything was asked: what it is for, and examples to begin with. */
export function emptyState(name, title, hint, examples = []) {
  return h(
    "div",
    { class: "empty" },
    icon(name),
    h("h3", { t: title }),
    h("p", { t: hint }),
    examples.length > 0 &&
      h(
        "div",
        { class: "row" },
        examples.map(({ label, use }) =>
          h("button", { type: "button", class: "chip", t: label, onclick: () => use(translate(label)) }),
        ),
      ),
  );
}

export function textArea(props = {}) {
  const area = h("textarea", { rows: "3", spellcheck: "false", ...props });
  area.fit = grow(area);
  return area;
}

/** Sets the text of a field as if it had been typed. */
export function fill(control, text) {
  control.value = text;
  control.dispatchEvent(new Event("input", { bubbles: true }));
}

/**
 * The form of a task with one answer: fields, a button, and a place for the result.
 *
 * `run` gets a signal and returns elements, or null for nothing to do. Ctrl+Enter sends, Escape stops.
 */
export function taskForm({ fields, action, empty, run }) {
  const errors = errorBox();
  const result = h("div", { class: "result", "aria-live": "polite", "aria-busy": "false" }, empty ?? "");
  const go = h("button", { type: "submit", class: "main", t: action });
  const stop = h("button", { type: "button", class: "plain", t: "stop", hidden: true });
  let running = null;
  const start = async () => {
    if (running) return;
    running = new AbortController();
    errors.hide();
    go.hidden = true;
    stop.hidden = false;
    result.setAttribute("aria-busy", "true");
    try {
      const shown = await run(running.signal, nodes => result.replaceChildren(...[nodes].flat()));
      if (shown) result.replaceChildren(...[shown].flat());
      announce("done");
    } catch (error) {
      if (!running.signal.aborted) errors.show(error, start);
    } finally {
      running.abort();
      running = null;
      stop.hidden = true;
      go.hidden = false;
      result.setAttribute("aria-busy", "false");
    }
  };
  stop.addEventListener("click", () => running?.abort());
  const form = h(
    "form",
    { class: "task", novalidate: true },
    fields,
    h("div", { class: "row" }, go, stop, h("small", { class: "hint wide", t: "keysTask" })),
  );
  form.addEventListener("submit", event => {
    event.preventDefault();
    start();
  });
  form.addEventListener("keydown", event => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      start();
    }
    if (event.key === "Escape") running?.abort();
  });
  return {
    node: h("div", { class: "columns" }, form, h("section", { class: "output" }, errors.node, result)),
    start,
    result,
    form,
  };
}

/** A bar from 0 to 1 with its label and its value in words. */
export function bar(label, value, shown = percent(value)) {
  return h(
    "li",
    { class: "bar" },
    h("span", { class: "bar-label" }, label),
    h(
      "span",
      { class: "bar-track", "aria-hidden": "true" },
      h("span", { class: "bar-fill", style: { "--share": String(Math.max(0, Math.min(1, value))) } }),
    ),
    h("span", { class: "bar-value" }, shown),
  );
}

export function percent(value) {
  const digits = value > 0 && value < 0.01 ? 2 : value < 0.1 ? 1 : 0;
  return `${(value * 100).toFixed(digits)} %`;
}

/** `text` cut at spans `{start, end}`, counted in characters; `mark` makes an element of each marked part. */
export function marked(text, spans, mark) {
  const characters = [...text];
  const nodes = [];
  let at = 0;
  for (const span of [...spans].sort((a, b) => a.start - b.start)) {
    if (span.start < at) continue;
    nodes.push(characters.slice(at, span.start).join(""), mark(characters.slice(span.start, span.end).join(""), span));
    at = span.end;
  }
  nodes.push(characters.slice(at).join(""));
  return nodes.filter(node => node !== "");
}

export function copyButton(text) {
  const button = iconButton("copy", "copy", async () => {
    await navigator.clipboard.writeText(text());
    button.replaceChildren(icon("check"));
    announce("copied");
    setTimeout(() => button.replaceChildren(icon("copy")), 1200);
  });
  return button;
}

/** Settings of sampling. An empty field leaves the choice to the model's own settings. */
export function samplingFields({ max = "" } = {}) {
  const number = (props, value = "") =>
    h("input", { type: "number", inputmode: "decimal", step: "any", value, tPlaceholder: "default", ...props });
  const controls = {
    temperature: number({ min: "0", max: "2" }),
    top_p: number({ min: "0", max: "1" }),
    max_tokens: number({ min: "1", step: "1" }, String(max)),
    seed: number({ step: "1", tPlaceholder: "random" }),
  };
  const stops = h("input", { type: "text", tPlaceholder: "none" });
  const node = h(
    "div",
    { class: "grid" },
    field("temperature", controls.temperature),
    field("topP", controls.top_p),
    field("maxTokens", controls.max_tokens),
    field("seed", controls.seed),
    field("stops", stops, "stopsHint"),
  );
  const read = () => {
    const values = {};
    for (const [name, control] of Object.entries(controls))
      if (control.value.trim() !== "") values[name] = Number(control.value);
    const ends = stops.value
      .split("|")
      .map(end => end.replaceAll("\\n", "\n"))
      .filter(Boolean);
    if (ends.length > 0) values.stop = ends;
    return values;
  };
  return { node, read, controls };
}

/** A foldable part. */
export function fold(title, ...children) {
  return h("details", { class: "fold" }, h("summary", { t: title }), ...children);
}

/** Asks a route of tasks with the chosen model. */
export function ask(context, path, body, signal) {
  return request(path, { model: context.model(), ...body }, signal);
}
