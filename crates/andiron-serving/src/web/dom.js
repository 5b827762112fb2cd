// Building the page. Text is only ever set as text, never as HTML; the page's policy forbids the rest.

import { translate, bind } from "./texts.js";

/**
 * An element.
 *
 * Properties: `t`, `tLabel`, `tTitle`, `tPlaceholder` are keys of the table of texts and follow the chosen language; `on…` is a
 * listener; `style` is an object of properties; the rest are attributes, where `true` is present and `false` or null absent.
 */
export function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "style") for (const [property, set] of Object.entries(value)) node.style.setProperty(property, set);
    else if (name === "value" || name === "checked") node[name] = value;
    else if (/^t([A-Z]|$)/.test(name)) bind(node, name, value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter(child => child !== null && child !== undefined && child !== false));
  return node;
}

const PATHS = {
  chat: "M4 5h16v11H9l-5 4z",
  write: "M4 20l1-4L16 5l3 3L8 19zM14 7l3 3",
  translate: "M3 6h10M8 4v2M11 6c-1 4-4 7-8 8M5 9c1 3 4 5 7 6M12 20l4-10 4 10M13.500 17h5",
  summarize: "M5 5h14M5 10h14M5 15h9M5 20h5",
  classify: "M5 20V11M12 20V4M19 20v-6M3 20h18",
  answer:
    "M12 20a8 8 0 1 0-8-8c0 2 .6 3.500 1.500 5L4 21l4-1.500c1 .4 2.500.5 4 .5zM10 9.500a2 2 0 1 1 2.600 2c-.6.3-.6.8-.6 1.500M12 16v.5",
  search: "M11 17a6 6 0 1 0 0-12 6 6 0 0 0 0 12zM20 20l-4.700-4.700",
  entities: "M4 7V5h7l9 9-6 6-9-9V7zM8.500 8.500v.1",
  fill: "M3 16v3h18v-3M6 15V6h4M6 10h3M14 15h5",
  attention: "M2 12s3.500-6 10-6 10 6 10 6-3.500 6-10 6-10-6-10-6zM12 15a3 3 0 1 0 0-6 3 3 0 0 0 0 6z",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
  settings: "M4 7h9M17 7h3M4 17h3M11 17h9M15 5v4M9 15v4",
  list: "M4 6h16M4 12h16M4 18h10",
  plus: "M12 5v14M5 12h14",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  check: "M5 12l5 5 9-10",
  edit: "M4 20l1-4L16 5l3 3L8 19z",
  redo: "M20 6v5h-5M19 11a7 7 0 1 0 0 4",
  trash: "M5 7h14M10 7V5h4v2M7 7l1 13h8l1-13",
  tokens: "M3 8h7v8H3zM12 8h4v8h-4zM18 8h3v8h-3z",
  down: "M12 4v11M7 11l5 5 5-5M5 20h14",
  up: "M12 16V5M7 9l5-5 5 5M5 20h14",
  key: "M14 14a5 5 0 1 0-4-4l-7 7v4h4v-2h2v-2h2zM16.500 7.500v.1",
  sun: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.400 1.400M17.600 17.600L19 19M19 5l-1.400 1.400M6.400 17.600L5 19",
  close: "M6 6l12 12M18 6L6 18",
  warn: "M12 4l9 16H3zM12 10v4M12 17v.2",
};

/** A line drawing of 24 by 24, hidden from screen readers. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("icon");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/** A button with an icon alone; `label` is a key of the table of texts. */
export function iconButton(name, label, onclick, props = {}) {
  return h("button", { type: "button", class: "quiet", tLabel: label, onclick, ...props }, icon(name));
}

let fields = 0;

/** A labelled field. `control` is an input, a select or a text area; `hint` a key of the table of texts. */
export function field(label, control, hint = null) {
  control.id ||= `field-${++fields}`;
  const note = hint && h("small", { id: `${control.id}-hint`, t: hint });
  if (note) control.setAttribute("aria-describedby", note.id);
  return h("div", { class: "field" }, h("label", { for: control.id, t: label }), control, note);
}

/** Tells screen readers. */
export function announce(key, values) {
  document.getElementById("announcer").textContent = translate(key, values);
}

/** Makes a text area as high as its text. */
export function grow(area) {
  const fit = () => {
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight + 2}px`;
  };
  area.addEventListener("input", fit);
  requestAnimationFrame(fit);
  return fit;
}

/** Moves the focus among the children of `group` that match `selector` with the arrow keys; only one of them is a tab stop. */
export function roving(group, selector, onmove = null) {
  const items = () => [...group.querySelectorAll(selector)];
  group.addEventListener("keydown", event => {
    const all = items();
    const at = all.indexOf(event.target);
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    const to =
      event.key === "Home"
        ? 0
        : event.key === "End"
          ? all.length - 1
          : event.key in steps
            ? (at + steps[event.key] + all.length) % all.length
            : -1;
    if (at < 0 || to < 0) return;
    event.preventDefault();
    all[to].focus();
  });
  group.addEventListener("focusin", event => {
    if (!event.target.matches(selector)) return;
    for (const item of items()) item.tabIndex = item === event.target ? 0 : -1;
    onmove?.(event.target);
  });
  const all = items();
  all.forEach((item, at) => {
    item.tabIndex = at === 0 ? 0 : -1;
  });
}

/** Calls `work` at most once per frame, with the newest state. */
export function eachFrame(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      work();
    });
  };
}
