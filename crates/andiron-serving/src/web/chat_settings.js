// Settings of a chat: system prompt, sampling, token probabilities, tools.

import { field, h, icon, iconButton } from "./dom.js";
import { samplingFields, textArea } from "./parts.js";
import { translate } from "./texts.js";

const STORED = "andiron.sampling";
const LIKELIEST = 5;

const TOOL_EXAMPLE = `[{"type": "function", "function": {
  "name": "get_weather",
  "description": "The weather in a city",
  "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
}}]`;

export function chatSettings(onchange) {
  const system = textArea({ rows: "3", spellcheck: "true", tPlaceholder: "systemHint" });
  const sampling = samplingFields();
  const probabilities = h("input", { type: "checkbox", role: "switch" });
  const tools = textArea({ rows: "4", class: "mono", placeholder: TOOL_EXAMPLE });
  const wrong = h("p", { class: "field-error", role: "alert", hidden: true });
  const dialog = h(
    "dialog",
    { class: "sheet", tLabel: "settings" },
    h(
      "form",
      { method: "dialog" },
      h(
        "div",
        { class: "sheet-head" },
        h("h2", { t: "settings" }),
        iconButton("close", "close", () => dialog.close()),
      ),
      field("system", system),
      h("h3", { t: "sampling" }),
      sampling.node,
      h(
        "label",
        { class: "switch" },
        probabilities,
        h("span", {}, h("span", { t: "probabilities" }), h("small", { t: "probabilitiesHint" })),
      ),
      h("details", { class: "fold" }, h("summary", { t: "tools" }), field("toolsJson", tools, "toolsHint"), wrong),
      h("div", { class: "row end" }, h("button", { type: "submit", class: "main", t: "apply" })),
    ),
  );

  restore();
  dialog.addEventListener("close", () => {
    localStorage.setItem(
      STORED,
      JSON.stringify({
        ...Object.fromEntries(Object.entries(sampling.controls).map(([name, control]) => [name, control.value])),
        probabilities: probabilities.checked,
      }),
    );
    onchange();
  });
  tools.addEventListener("input", () => check());
  dialog.querySelector("form").addEventListener("submit", event => {
    if (!check()) event.preventDefault();
  });

  function restore() {
    try {
      const stored = JSON.parse(localStorage.getItem(STORED)) ?? {};
      for (const [name, control] of Object.entries(sampling.controls))
        if (typeof stored[name] === "string") control.value = stored[name];
      probabilities.checked = stored.probabilities === true;
    } catch {
      /* Nothing stored, or not by this page. */
    }
  }

  function parsed() {
    if (!tools.value.trim()) return null;
    const list = JSON.parse(tools.value);
    if (!Array.isArray(list)) throw new Error(translate("toolsNoList"));
    return list;
  }

  function check() {
    try {
      parsed();
      wrong.hidden = true;
    } catch (error) {
      wrong.textContent = error.message;
      wrong.hidden = false;
    }
    return wrong.hidden;
  }

  return {
    dialog,
    button: h(
      "button",
      {
        type: "button",
        class: "quiet",
        tLabel: "settings",
        onclick: () => {
          dialog.showModal();
          system.fit();
          tools.fit();
        },
      },
      icon("settings"),
    ),
    system: () => system.value.trim(),
    tools: () => tools.value,
    load: conversation => {
      system.value = conversation.system ?? "";
      tools.value = conversation.tools ?? "";
      wrong.hidden = true;
    },
    /** Fields of a request. */
    request: () => {
      const fields = sampling.read();
      if (probabilities.checked) Object.assign(fields, { logprobs: true, top_logprobs: LIKELIEST });
      let list = null;
      try {
        list = parsed();
      } catch {
        /* Shown beside the field. */
      }
      if (list?.length) fields.tools = list;
      return fields;
    },
  };
}
