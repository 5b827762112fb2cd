// Attention view: which word looks at which, by layer and head.

import { field, h, roving } from "./dom.js";
import { ask, bar, emptyState, fill, taskForm, textArea } from "./parts.js";
import { translate } from "./texts.js";
import { visible } from "./tokens.js";

/** Tokens listed for the chosen one. */
const SHOWN = 6;
/** Side of a head's small picture, in pixels. */
const SMALL = 44;
/** The picture's greatest side, and the font of its labels. */
const LARGE = 620;
const LABELS = "12px system-ui, sans-serif";

export function mount(panel, context) {
  const text = textArea({ rows: "4", spellcheck: "true" });
  const target = textArea({ rows: "2", spellcheck: "true", tPlaceholder: "attentionTargetHint" });
  const targetField = field("attentionTarget", target);
  const form = taskForm({
    fields: [field("text", text), targetField],
    action: "attentionAction",
    empty: emptyState("attention", "attentionTitle", "attentionHint", [
      {
        label: "attentionExample",
        use: example => {
          fill(text, example);
          form.start();
        },
      },
    ]),
    run: async signal => {
      if (!text.value.trim()) {
        text.focus();
        return null;
      }
      const layers = new Map();
      const load = async (layer, stop) => {
        if (!layers.has(layer)) {
          const body = {
            input: text.value,
            ...(layer !== null && { layer }),
            ...(target.value.trim() && !targetField.hidden && { target: target.value }),
          };
          const found = await ask(context, "/attention", body, stop);
          layers.set(found.attention[0].layer, found);
          return found;
        }
        return layers.get(layer);
      };
      return view(await load(null, signal), layer => load(layer));
    },
  });
  panel.append(form.node);
  // An encoder-decoder has a target as well.
  const fit = () => {
    targetField.hidden = !context.can("translate") && !context.can("summarize");
  };
  context.onmodel(fit);
  fit();
}

/** The view of what was found for one layer; `load` gets another. */
function view(found, load) {
  const state = { found, kind: kinds(found)[0], head: null, query: firstWord(found) };
  const layers = found.n_layers;
  const slider = h("input", {
    type: "range",
    min: "0",
    max: String(layers - 1),
    step: "1",
    value: String(found.attention[0].layer),
  });
  const layerName = h("output");
  const tabs = h("div", { class: "segments", role: "group", tLabel: "attentionKind" });
  const heads = h("div", { class: "heads", role: "group", tLabel: "heads" });
  const words = h("div", { class: "words" });
  const list = h("ul", { class: "bars" });
  const canvas = h("canvas", { role: "img" });
  const picture = h("div", { class: "picture", tabindex: "0", tLabel: "attentionPicture" }, canvas);
  const failed = h("p", { class: "field-error", role: "alert", hidden: true });

  slider.addEventListener("input", () => {
    layerName.textContent = layerText();
  });
  slider.addEventListener("change", async () => {
    try {
      state.found = await load(Number(slider.value));
      failed.hidden = true;
      draw();
    } catch (error) {
      failed.textContent = error.message;
      failed.hidden = false;
    }
  });
  canvas.addEventListener("pointermove", event => {
    const query = state.rowAt?.(event.offsetY);
    if (query !== undefined && query !== state.query) {
      state.query = query;
      drawWords(false);
      drawPicture();
    }
  });
  // The picture has the colours of the page and so is drawn anew when these change.
  const recolour = () => {
    if (canvas.isConnected) draw();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
  document.addEventListener("theme", recolour);

  const layerText = () => translate("layerOf", { layer: Number(slider.value) + 1, layers });
  const map = () => state.found.attention.find(({ kind }) => kind === state.kind) ?? state.found.attention[0];
  const queries = () => (["target", "cross"].includes(state.kind) ? state.found.target_tokens : state.found.tokens);
  const keys = () => (state.kind === "target" ? state.found.target_tokens : state.found.tokens);

  function weights() {
    const all = map().probabilities;
    if (state.head !== null) return all[state.head];
    const sum = all[0].map(row => row.map(() => 0));
    for (const head of all)
      head.forEach((row, i) =>
        row.forEach((p, j) => {
          sum[i][j] += p / all.length;
        }),
      );
    return sum;
  }

  function draw() {
    layerName.textContent = layerText();
    state.query = Math.min(state.query, queries().length - 1);
    const names = kinds(state.found);
    tabs.hidden = names.length < 2;
    tabs.replaceChildren(
      ...names.map(kind =>
        h("button", {
          type: "button",
          class: "segment",
          "aria-pressed": String(kind === state.kind),
          t: `kind_${kind}`,
          onclick: () => {
            state.kind = kind;
            state.query = firstWord(state.found, kind);
            draw();
          },
        }),
      ),
    );
    drawHeads();
    drawWords(true);
    drawPicture();
  }

  function drawHeads() {
    const [, ink] = colours();
    const choose = head => () => {
      state.head = head;
      for (const button of heads.children) button.setAttribute("aria-pressed", String(button.dataset.head === String(head)));
      drawWords(false);
      drawPicture();
    };
    const button = (head, label, picture) =>
      h(
        "button",
        {
          type: "button",
          class: "head",
          "data-head": String(head),
          "aria-pressed": String(state.head === head),
          title: label,
          "aria-label": label,
          onclick: choose(head),
        },
        picture,
        head === null ? h("span", { t: "mean" }) : h("span", {}, String(head + 1)),
      );
    const all = map().probabilities;
    const small = rows => {
      const canvas = h("canvas", { width: String(SMALL), height: String(SMALL) });
      paint(canvas.getContext("2d"), rows, { left: 0, top: 0, wide: SMALL / rows[0].length, high: SMALL / rows.length }, ink);
      return canvas;
    };
    const kept = state.head;
    state.head = null;
    const mean = weights();
    state.head = kept;
    heads.replaceChildren(
      button(null, translate("meanOfHeads"), small(mean)),
      ...all.map((rows, head) => button(head, translate("headNumber", { number: head + 1 }), small(rows))),
    );
    roving(heads, ".head");
  }

  function drawWords(anew) {
    const row = weights()[state.query];
    if (anew) {
      const line = (tokens, name, selectable) => {
        const spans = tokens.map(({ text, special }, at) =>
          h(
            selectable ? "button" : "span",
            {
              type: selectable ? "button" : null,
              class: special ? "word special" : "word",
              "data-at": at,
            },
            visible(text.trim() || text),
          ),
        );
        const group = h("div", { class: `line ${name}`, role: "group", "aria-label": translate(name) }, spans);
        if (selectable) {
          const choose = span => {
            if (Number(span.dataset.at) === state.query) return;
            state.query = Number(span.dataset.at);
            drawWords(false);
            drawPicture();
          };
          roving(group, ".word", choose);
          group.addEventListener("pointerover", event => event.target.matches(".word") && choose(event.target));
        }
        return group;
      };
      const two = state.kind === "cross";
      words.replaceChildren(
        ...(two
          ? [line(queries(), "lineQueries", true), line(keys(), "lineKeys", false)]
          : [line(queries(), "lineWords", true)]),
      );
    }
    const [first] = words.children;
    const last = words.lastElementChild;
    const highest = Math.max(...row, 1e-9);
    for (const span of last.children) {
      const p = row[Number(span.dataset.at)] ?? 0;
      span.style.setProperty("--share", (p / highest).toFixed(3));
      span.title = `${(p * 100).toFixed(1)} %`;
    }
    for (const span of first.children) {
      const chosen = Number(span.dataset.at) === state.query;
      span.classList.toggle("chosen", chosen);
      span.setAttribute("aria-pressed", String(chosen));
      span.tabIndex = chosen ? 0 : -1;
    }
    const order = row
      .map((p, at) => [p, at])
      .sort((a, b) => b[0] - a[0])
      .slice(0, SHOWN);
    list.replaceChildren(...order.map(([p, at]) => bar(visible(keys()[at].text.trim() || keys()[at].text), p)));
    canvas.setAttribute("aria-label", translate("attentionPictureOf", { word: visible(queries()[state.query].text.trim()) }));
  }

  function drawPicture() {
    const rows = weights();
    const [paper, ink, soft] = colours();
    const ratio = devicePixelRatio || 1;
    const pen = canvas.getContext("2d");
    pen.font = LABELS;
    const labelOf = ({ text }) => visible(text.trim() || text);
    const wide = tokens => Math.min(110, Math.max(...tokens.map(token => pen.measureText(labelOf(token)).width)) + 8);
    const [left, top] = [wide(queries()), wide(keys())];
    const room = Math.min(LARGE, Math.max(260, picture.clientWidth - 4)) - left;
    const cell = Math.max(11, Math.min(26, room / keys().length));
    const [width, height] = [left + cell * keys().length, top + cell * queries().length];
    Object.assign(canvas, { width: width * ratio, height: height * ratio });
    Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
    pen.scale(ratio, ratio);
    pen.font = LABELS;
    pen.fillStyle = paper;
    pen.fillRect(0, 0, width, height);
    paint(pen, rows, { left, top, wide: cell, high: cell }, ink);
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    queries().forEach((token, at) => {
      pen.fillStyle = at === state.query ? ink : soft;
      pen.fillText(labelOf(token), left - 5, top + (at + 0.5) * cell, left - 6);
    });
    pen.textAlign = "left";
    pen.fillStyle = soft;
    keys().forEach((token, at) => {
      pen.save();
      pen.translate(left + (at + 0.5) * cell, top - 5);
      pen.rotate(-Math.PI / 2);
      pen.fillText(labelOf(token), 0, 0, top - 6);
      pen.restore();
    });
    pen.strokeStyle = ink;
    pen.strokeRect(left + 0.5, top + state.query * cell + 0.5, cell * keys().length - 1, cell - 1);
    state.rowAt = y => {
      const row = Math.floor((y - top) / cell);
      return row >= 0 && row < queries().length ? row : undefined;
    };
  }

  const node = h(
    "div",
    { class: "attention" },
    h("div", { class: "row" }, h("label", { class: "layer" }, h("span", { t: "layer" }), slider, layerName), tabs),
    failed,
    h("h3", { t: "heads" }),
    heads,
    h("h3", { t: "lineTitle" }),
    h("p", { class: "hint", t: "lineHint" }),
    words,
    list,
    h("h3", { t: "pictureTitle" }),
    picture,
  );
  // The picture needs to know its width.
  requestAnimationFrame(draw);
  return node;
}

function kinds(found) {
  const order = ["cross", "text", "source", "target"];
  return order.filter(kind => found.attention.some(map => map.kind === kind));
}

/** The first token to choose: the last word, which has seen all others. */
function firstWord(found, kind = kinds(found)[0]) {
  const tokens = ["target", "cross"].includes(kind) ? found.target_tokens : found.tokens;
  const last = tokens.findLastIndex(({ special, text }) => !special && /[\p{L}\p{N}]/u.test(text));
  return Math.max(0, last);
}

function colours() {
  const style = getComputedStyle(document.querySelector(".attention") ?? document.body);
  return ["--panel", "--accent", "--soft"].map(name => {
    // A canvas does not resolve light-dark(), a computed colour does.
    const probe = document.createElement("span");
    probe.style.color = style.getPropertyValue(name);
    document.body.append(probe);
    const colour = getComputedStyle(probe).color;
    probe.remove();
    return colour;
  });
}

/** Fills a cell for each probability; the strongest of the picture is opaque. */
function paint(pen, rows, { left, top, wide, high }, ink) {
  const highest = Math.max(...rows.map(row => Math.max(...row)), 1e-9);
  const gap = Math.min(wide, high) > 6 ? 1 : 0;
  pen.fillStyle = ink;
  rows.forEach((row, i) =>
    row.forEach((p, j) => {
      pen.globalAlpha = Math.sqrt(p / highest);
      pen.fillRect(left + j * wide, top + i * high, wide - gap, high - gap);
    }),
  );
  pen.globalAlpha = 1;
}
