// Tasks with one answer: translate, summarize, classify, answer, entities, fill the mask.

import { request } from "./api.js";
import { field, h } from "./dom.js";
import { ask, bar, copyButton, emptyState, fill, marked, percent, taskForm, textArea } from "./parts.js";
import { language, translate } from "./texts.js";

const ALTERNATIVES = 3;
const LIKELIEST = 5;

/** A form over one text area, with an example to begin with. */
function textForm(panel, { iconName, name, placeholder = null, extra = [], run }) {
  const text = textArea({ rows: "6", spellcheck: "true", tPlaceholder: placeholder });
  const form = taskForm({
    fields: [field("text", text), ...extra],
    action: `${name}Action`,
    empty: emptyState(iconName, `${name}Title`, `${name}Hint`, [
      {
        label: `${name}Example`,
        use: example => {
          fill(text, example);
          form.start();
        },
      },
    ]),
    run: signal => {
      if (text.value.trim()) return run(text.value, signal);
      text.focus();
      return null;
    },
  });
  panel.append(form.node);
  return { text, form };
}

export function mountTranslate(panel, context) {
  const source = h("select");
  const target = h("select");
  const swap = h("button", {
    type: "button",
    class: "plain",
    t: "swap",
    onclick: () => {
      [source.value, target.value] = [target.value, source.value === "auto" ? source.options[0].value : source.value];
    },
  });
  const pair = h("div", { class: "pair" }, field("from", source), swap, field("to", target));
  textForm(panel, { iconName: "translate", name: "translate", extra: [pair], run: go });
  languages();

  async function languages() {
    let all = [];
    try {
      all = await request("/languages");
    } catch {
      /* Shown when something is translated. */
    }
    const names = new Intl.DisplayNames([language()], { type: "language" });
    const option = ({ code, name }) => h("option", { value: code }, known(names, code) ?? name ?? code);
    source.replaceChildren(...all.map(option));
    const targets = [...new Set(all.flatMap(({ targets: to, code }) => to ?? [code]))];
    target.replaceChildren(...targets.map(code => option(all.find(one => one.code === code) ?? { code })));
    const other = targets.find(code => code !== source.value);
    if (other) target.value = other;
    pair.hidden = all.length === 0;
  }

  async function go(text, signal) {
    // A model that does not tell its languages has one direction, whatever it is called: `und` is "undetermined".
    const [from, to] = [source.value || "und", target.value || "und"];
    const found = await ask(
      context,
      "/translate",
      { q: text, source: from, target: to, format: "text", alternatives: ALTERNATIVES },
      signal,
    );
    const others = (found.alternatives ?? []).filter(other => other !== found.translatedText);
    return [
      textCard(found.translatedText, "best"),
      others.length > 0 && h("h3", { t: "alternatives" }),
      ...others.map(other => textCard(other)),
    ].filter(Boolean);
  }
}

function known(names, code) {
  try {
    const name = names.of(code);
    return name === code ? null : name;
  } catch {
    return null;
  }
}

function textCard(text, kind = "") {
  return h(
    "div",
    { class: `card with-copy ${kind}` },
    h("p", { class: "plain-text" }, text),
    copyButton(() => text),
  );
}

export function mountSummarize(panel, context) {
  textForm(panel, {
    iconName: "summarize",
    name: "summarize",
    run: async (text, signal) => {
      const found = await ask(context, "/summarize", { input: text }, signal);
      const { summary } = first(found);
      const share = [...summary].length / Math.max(1, [...text].length);
      return [textCard(summary, "best"), h("small", { class: "stats", t: { key: "lengthShare", share: percent(share) } })];
    },
  });
}

/** The one result of a request with one input. */
function first({ results, ...alone }) {
  return results?.[0] ?? alone;
}

export function mountClassify(panel, context) {
  textForm(panel, {
    iconName: "classify",
    name: "classify",
    run: async (text, signal) => {
      const { labels } = first(await ask(context, "/classify", { input: text }, signal));
      return h(
        "ul",
        { class: "bars large" },
        labels.map(({ label, score }) => bar(label, score)),
      );
    },
  });
}

export function mountAnswer(panel, context) {
  const question = h("input", { type: "text", spellcheck: "true" });
  const { text } = textForm(panel, {
    iconName: "answer",
    name: "answer",
    extra: [field("question", question)],
    run: async (source, signal) => {
      if (!question.value.trim()) {
        question.focus();
        return null;
      }
      const found = first(await ask(context, "/answer", { question: question.value, context: source }, signal));
      const place = found.end > found.start ? [found] : [];
      return [
        h(
          "div",
          { class: "card best" },
          h("p", { class: "answer" }, found.answer || translate("noAnswer")),
          h("small", { class: "stats", t: { key: "certainty", score: percent(found.score) } }),
        ),
        h(
          "p",
          { class: "card source plain-text" },
          marked(source, place, part => h("mark", {}, part)),
        ),
      ];
    },
  });
  panel
    .querySelector(".empty .chip")
    ?.addEventListener("click", () => fill(question, translate("answerQuestion")), { capture: true });
  text.rows = 8;
}

export function mountEntities(panel, context) {
  textForm(panel, {
    iconName: "entities",
    name: "entities",
    run: async (text, signal) => {
      const { entities } = first(await ask(context, "/token-classify", { input: text }, signal));
      if (entities.length === 0) return h("p", { class: "hint", t: "noEntities" });
      const kinds = [...new Set(entities.map(({ label }) => label))];
      const kindOf = label => `kind-${kinds.indexOf(label) % 6}`;
      return [
        h(
          "p",
          { class: "card source plain-text" },
          marked(text, entities, (part, { label, score }) =>
            h(
              "mark",
              { class: `entity ${kindOf(label)}`, title: percent(score) },
              part,
              h("span", { class: "entity-label" }, label),
            ),
          ),
        ),
        h(
          "ul",
          { class: "legend" },
          kinds.map(label =>
            h(
              "li",
              { class: kindOf(label) },
              label,
              " ",
              h("small", {}, String(entities.filter(entity => entity.label === label).length)),
            ),
          ),
        ),
      ];
    },
  });
}

export function mountFill(panel, context) {
  let mask = "[MASK]";
  const insert = h("button", {
    type: "button",
    class: "plain",
    t: "insertMask",
    onclick: () => {
      text.setRangeText(mask, text.selectionStart, text.selectionEnd, "end");
      text.focus();
    },
  });
  const { text } = textForm(panel, {
    iconName: "fill",
    name: "fill",
    extra: [h("div", { class: "row" }, insert)],
    run: async (given, signal) => {
      // People write ___ or [MASK]; the model has a token of its own.
      const written = given.replace(/_{3,}|\[MASK\]|<mask>/g, mask);
      const found = first(await ask(context, "/fill-mask", { input: written, top: LIKELIEST }, signal));
      const masks = found.masks.map(({ top }) => top);
      const parts = written.split(mask);
      const best = parts
        .flatMap((part, at) => [part, at < masks.length && h("mark", {}, plainToken(masks[at][0]))])
        .filter(Boolean);
      return [
        h("p", { class: "card best plain-text" }, best),
        ...masks.map((top, at) =>
          h(
            "section",
            {},
            masks.length > 1 && h("h3", { t: { key: "maskNumber", number: at + 1 } }),
            h(
              "ul",
              { class: "bars large" },
              top.map(guess => bar(plainToken(guess), guess.probability)),
            ),
          ),
        ),
      ];
    },
  });
  const askForMask = () =>
    request(`/tokenizer_info?model=${encodeURIComponent(context.model())}`)
      .then(info => {
        if (info.mask_token) mask = info.mask_token;
      })
      .catch(() => {});
  context.onmodel(askForMask);
  askForMask();
}

function plainToken({ token }) {
  return (token ?? "").trim();
}
