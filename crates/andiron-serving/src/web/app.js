// The page: models, tabs, language, colours, the key.

import * as attention from "./attention.js";
import * as chat from "./chat.js";
import * as search from "./search.js";
import * as tasks from "./tasks.js";
import * as write from "./write.js";
import { ApiError, apiKey, request } from "./api.js";
import { field, h, icon, iconButton, roving } from "./dom.js";
import { emptyState, errorBox } from "./parts.js";
import { LANGUAGES, applyTexts, bind, language, setLanguage, translate } from "./texts.js";

/** The tabs, with what a model must be able to do for one: any of these. */
const TABS = [
  { id: "chat", needs: ["chat"], mount: chat.mount },
  { id: "write", needs: ["generate"], mount: write.mount },
  { id: "translate", needs: ["translate"], mount: tasks.mountTranslate },
  { id: "summarize", needs: ["summarize"], mount: tasks.mountSummarize },
  { id: "classify", needs: ["classify"], mount: tasks.mountClassify },
  { id: "answer", needs: ["answer"], mount: tasks.mountAnswer },
  { id: "search", needs: ["embed", "rerank"], mount: search.mount },
  { id: "entities", needs: ["token-classify"], mount: tasks.mountEntities },
  { id: "fill", needs: ["fill-mask"], mount: tasks.mountFill },
  { id: "attention", needs: ["attention"], mount: attention.mount },
];

const THEMES = ["auto", "light", "dark"];
const RETRY_MS = 2000;

const main = document.getElementById("main");
const tabList = document.getElementById("tabs");
const state = document.getElementById("state");

/** What a model can do; a server that does not tell completes text. */
function tasksOf({ capabilities }) {
  return capabilities ?? ["generate"];
}

async function connect() {
  bind(state, "t", "connecting");
  try {
    const { data } = await request("/v1/models");
    build(data);
    bind(state, "t", { key: "modelCount", count: data.length });
  } catch (error) {
    bind(state, "t", "notConnected");
    const errors = errorBox();
    main.replaceChildren(h("section", { class: "panel" }, errors.node));
    errors.show(error, connect);
    if (error instanceof ApiError && error.status === 503) setTimeout(connect, RETRY_MS);
  }
}

function build(models) {
  const able = TABS.map(tab => ({
    ...tab,
    models: models.filter(model => tab.needs.some(need => tasksOf(model).includes(need))),
  }));
  const tabs = able.filter(tab => tab.models.length > 0);
  if (tabs.length === 0) {
    main.replaceChildren(h("section", { class: "panel" }, emptyState("warn", "noModels", "noModelsHint")));
    tabList.replaceChildren();
    return;
  }
  const panels = tabs.map(panelOf);
  main.replaceChildren(...panels);
  tabList.replaceChildren(
    ...tabs.map(({ id }) =>
      h(
        "button",
        {
          type: "button",
          class: "tab",
          role: "tab",
          id: `tab-${id}`,
          "aria-controls": `panel-${id}`,
          "aria-selected": "false",
          onclick: () => open(id),
        },
        icon(id),
        h("span", { t: `tab_${id}` }),
      ),
    ),
  );
  roving(tabList, ".tab", tab => open(tab.id.slice("tab-".length)));
  const asked = location.hash.slice(1);
  open(tabs.some(({ id }) => id === asked) ? asked : tabs[0].id);
}

function panelOf({ id, models, mount }) {
  const listeners = [];
  const chooser = h(
    "select",
    { tLabel: "model" },
    models.map(model => h("option", { value: model.id }, model.id)),
  );
  const chosen = () => models.find(model => model.id === chooser.value) ?? models[0];
  chooser.addEventListener("change", () => {
    about();
    listeners.forEach(listener => listener());
  });
  const facts = h("small", { class: "hint" });
  const about = () => bind(facts, "t", { key: "contextLength", count: chosen().max_model_len ?? "?" });
  about();
  const context = {
    model: () => chosen().id,
    can: need => tasksOf(chosen()).includes(need),
    onmodel: listener => listeners.push(listener),
  };
  const body = h("div", { class: "body" });
  const panel = h(
    "section",
    { class: "panel", role: "tabpanel", id: `panel-${id}`, "aria-labelledby": `tab-${id}`, hidden: true },
    h("div", { class: "panel-head" }, h("h2", { t: `tab_${id}` }), h("div", { class: "model" }, facts, chooser)),
    body,
  );
  let mounted = false;
  panel.addEventListener("shown", () => {
    if (!mounted) mount(body, context);
    mounted = true;
  });
  return panel;
}

function open(id) {
  for (const panel of main.children) {
    panel.hidden = panel.id !== `panel-${id}`;
    if (!panel.hidden) panel.dispatchEvent(new Event("shown"));
  }
  for (const tab of tabList.children) {
    const chosen = tab.id === `tab-${id}`;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    if (chosen) tab.scrollIntoView({ block: "nearest", inline: "center" });
  }
  if (location.hash.slice(1) !== id) history.replaceState(null, "", `#${id}`);
  entitle(id);
}

function entitle(id) {
  document.title = `${translate(`tab_${id}`)} · Andiron`;
}

function preferences() {
  const languages = h(
    "select",
    { tLabel: "language", onchange: () => setLanguage(languages.value) },
    Object.entries(LANGUAGES).map(([code, name]) => h("option", { value: code, lang: code }, name)),
  );
  languages.value = language();
  const themes = h(
    "select",
    {
      tLabel: "theme",
      onchange: () => {
        localStorage.setItem("andiron.theme", themes.value);
        applyTheme();
      },
    },
    THEMES.map(theme => h("option", { value: theme, t: `theme_${theme}` })),
  );
  const stored = localStorage.getItem("andiron.theme");
  themes.value = THEMES.includes(stored) ? stored : "auto";
  function applyTheme() {
    document.documentElement.dataset.theme = themes.value;
    document.dispatchEvent(new Event("theme"));
  }
  applyTheme();
  const key = keyDialog();
  document.body.append(key);
  document.addEventListener("key-wanted", () => {
    if (!key.open) key.showModal();
  });
  document.getElementById("prefs").append(
    languages,
    themes,
    iconButton("key", "key", () => key.showModal()),
  );
}

function keyDialog() {
  const input = h("input", { type: "password", autocomplete: "off", spellcheck: "false" });
  const dialog = h(
    "dialog",
    { class: "sheet small", tLabel: "key" },
    h(
      "form",
      { method: "dialog" },
      h(
        "div",
        { class: "sheet-head" },
        h("h2", { t: "key" }),
        iconButton("close", "close", () => dialog.close()),
      ),
      field("keyLabel", input, "keyHint"),
      h(
        "div",
        { class: "row end" },
        h("button", {
          type: "button",
          class: "plain",
          t: "keyForget",
          onclick: () => {
            input.value = "";
            apiKey.write("");
            dialog.close();
          },
        }),
        h("button", { type: "submit", class: "main", t: "keyUse" }),
      ),
    ),
  );
  dialog.querySelector("form").addEventListener("submit", () => {
    apiKey.write(input.value.trim());
    input.value = "";
    connect();
  });
  return dialog;
}

window.addEventListener("hashchange", () => {
  const id = location.hash.slice(1);
  if (document.getElementById(`panel-${id}`)) open(id);
});
document.addEventListener("language", () => {
  if (tabList.children.length > 0) entitle(location.hash.slice(1));
});
const narrow = matchMedia("(max-width: 46rem)");
const orient = () => tabList.setAttribute("aria-orientation", narrow.matches ? "horizontal" : "vertical");
narrow.addEventListener("change", orient);
orient();
applyTexts(document);
preferences();
connect();
