// Chat: conversations that stream, are kept in the browser, and can be edited.

import { stream } from "./api.js";
import { announce, eachFrame, h, icon, iconButton } from "./dom.js";
import { render } from "./markdown.js";
import { chatSettings } from "./chat_settings.js";
import { conversationList } from "./conversations.js";
import { copyButton, emptyState, errorBox, textArea } from "./parts.js";
import { newConversation, save } from "./store.js";
import { translate } from "./texts.js";
import { chatTokens, tokenView } from "./tokens.js";

const TITLE_LENGTH = 60;

export function mount(panel, context) {
  let current = newConversation();
  let running = null;

  const settings = chatSettings(() => {
    current.system = settings.system();
    current.tools = settings.tools();
    if (current.messages.length > 0) keep();
  });
  const list = conversationList({
    open: conversation => {
      stop();
      show(conversation);
    },
    isOpen: id => current.id === id,
    begin: () => {
      stop();
      show(newConversation());
      input.focus();
    },
    discard: () => {
      current.discarded = true;
      stop();
      show(newConversation());
      input.focus();
    },
  });
  const errors = errorBox();
  const log = h("div", { class: "log", role: "log", "aria-live": "off", tLabel: "conversation" });
  const scroller = h("div", { class: "scroller", tabindex: "-1" }, log, errors.node);
  const input = textArea({
    rows: "1",
    spellcheck: "true",
    tLabel: "message",
    tPlaceholder: "messageHint",
    enterkeyhint: "send",
  });
  const sendButton = h("button", { type: "submit", class: "main round", tLabel: "send" }, icon("send"));
  const stopButton = h(
    "button",
    { type: "button", class: "main round", tLabel: "stop", hidden: true, onclick: stop },
    icon("stop"),
  );
  const composer = h(
    "form",
    { class: "composer" },
    h(
      "div",
      { class: "composer-box" },
      input,
      h(
        "div",
        { class: "row tight" },
        settings.button,
        iconButton("list", "conversations", () => list.toggle(), { class: "quiet narrow" }),
        h("span", { class: "grow" }),
        sendButton,
        stopButton,
      ),
    ),
    h("small", { class: "hint wide", t: "keysChat" }),
  );

  composer.addEventListener("submit", event => {
    event.preventDefault();
    submit();
  });
  input.addEventListener("keydown", event => {
    // While a Korean syllable is being composed, Enter belongs to the input method.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229) {
      event.preventDefault();
      submit();
    }
  });
  panel.addEventListener("keydown", event => {
    if (event.key === "Escape") stop();
  });
  panel.classList.add("chat");
  panel.append(list.node, h("div", { class: "thread" }, scroller, composer), settings.dialog);
  show(current);

  function stop() {
    running?.abort();
  }

  function submit() {
    const text = input.value.trim();
    if (!text || running) return;
    input.value = "";
    input.fit();
    add({ role: "user", content: text });
    answer();
  }

  function add(message) {
    current.messages.push(message);
    if (!current.title && message.role === "user")
      current.title = [...message.content].slice(0, TITLE_LENGTH).join("").replace(/\s+/g, " ");
    keep();
    draw();
  }

  function keep() {
    current.updated = Date.now();
    save(current).then(list.refresh);
  }

  function show(conversation) {
    current = conversation;
    settings.load(conversation);
    errors.hide();
    draw();
    list.refresh();
  }

  /** The messages before `index`, answered anew. */
  function answerFrom(index) {
    stop();
    current.messages.length = index;
    keep();
    draw();
    // What was pressed is gone; Escape has to find somebody.
    input.focus();
    answer();
  }

  function draw() {
    if (current.messages.length === 0) {
      const use = text => {
        input.value = text;
        input.fit();
        input.focus();
      };
      const examples = ["chatExample1", "chatExample2", "chatExample3"].map(label => ({ label, use }));
      log.replaceChildren(emptyState("chat", "chatTitle", "chatHint", examples));
      return;
    }
    log.replaceChildren(...current.messages.map(messageNode));
    scroller.scrollTop = scroller.scrollHeight;
  }

  function body() {
    const messages = current.messages.map(({ role, content, tool_calls, tool_call_id }) => ({
      role,
      content,
      ...(tool_calls && { tool_calls }),
      ...(tool_call_id && { tool_call_id }),
    }));
    if (current.system) messages.unshift({ role: "system", content: current.system });
    return { model: context.model(), messages, stream: true, stream_options: { include_usage: true }, ...settings.request() };
  }

  async function answer() {
    const abort = (running = new AbortController());
    const owner = current;
    errors.hide();
    sendButton.hidden = true;
    stopButton.hidden = false;
    log.classList.add("busy");
    const message = { role: "assistant", content: "", model: context.model() };
    const rate = pace();
    const content = h("div", { class: "content", "aria-busy": "true" }, h("span", { class: "waiting", tLabel: "waiting" }));
    const node = h("article", { class: "message assistant" }, content);
    log.append(node);
    scroller.scrollTop = scroller.scrollHeight;
    const redraw = eachFrame(() => {
      if (!content.isConnected || running !== abort) return;
      const follow = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 80;
      content.replaceChildren(...contentOf(message));
      if (follow) scroller.scrollTop = scroller.scrollHeight;
    });
    let failed = null;
    try {
      for await (const chunk of stream("/v1/chat/completions", body(), abort.signal)) {
        if (chunk.usage) rate.counted(chunk.usage.completion_tokens);
        const choice = chunk.choices?.[0];
        if (!choice) continue;
        rate.seen();
        take(message, choice);
        redraw();
      }
    } catch (error) {
      if (abort.signal.aborted) message.finish = "stopped";
      else failed = error;
    }
    abort.abort();
    // Another answer has taken the place of this one.
    if (running !== abort && owner === current) return;
    if (running === abort) {
      running = null;
      sendButton.hidden = false;
      stopButton.hidden = true;
      log.classList.remove("busy");
    }
    message.stats = rate.stats();
    const empty = !message.content && !message.reasoning && !message.tool_calls;
    if (!empty && !owner.discarded) {
      owner.messages.push(message);
      owner.updated = Date.now();
      save(owner).then(list.refresh);
    }
    if (owner !== current) return;
    draw();
    if (failed) errors.show(failed, () => (empty ? answer() : answerFrom(lastQuestion() + 1)));
    else announce(message.finish === "stopped" ? "stopped" : "answered");
    scroller.scrollTop = scroller.scrollHeight;
    if (!panel.hidden && !panel.contains(document.activeElement)) input.focus();
  }

  function lastQuestion() {
    return current.messages.findLastIndex(({ role }) => role === "user" || role === "tool");
  }

  function messageNode(message, index) {
    const last = index === current.messages.length - 1;
    const content = h("div", { class: "content" }, contentOf(message));
    const actions = h("div", { class: "actions" });
    const node = h("article", { class: `message ${message.role}`, tLabel: `role_${message.role}` }, content);
    if (message.role !== "tool") {
      actions.append(
        copyButton(() => message.content),
        iconButton("edit", "edit", () => edit(message, index, node)),
      );
    }
    if (last) {
      const from = message.role === "assistant" ? index : index + 1;
      actions.append(iconButton("redo", "regenerate", () => answerFrom(from), { class: "quiet redo" }));
    }
    if (message.role === "assistant") {
      if (message.tokens?.length) {
        const button = iconButton(
          "tokens",
          "showTokens",
          () => {
            const shown = button.getAttribute("aria-pressed") !== "true";
            button.setAttribute("aria-pressed", String(shown));
            content.replaceChildren(...(shown ? [tokenView(message.tokens)] : contentOf(message)));
          },
          { "aria-pressed": "false" },
        );
        actions.append(button);
      }
      actions.append(statsNode(message));
      if (last && message.tool_calls) node.append(toolResults(message));
    }
    node.append(actions);
    return node;
  }

  function edit(message, index, node) {
    const area = textArea({ tLabel: "message" });
    area.value = message.content;
    const done = () => {
      draw();
      input.focus();
    };
    const form = h(
      "form",
      { class: "editing" },
      area,
      h(
        "div",
        { class: "row tight" },
        h("button", { type: "submit", class: "main", t: message.role === "user" ? "saveSend" : "save" }),
        h("button", { type: "button", class: "plain", t: "cancel", onclick: done }),
      ),
    );
    form.addEventListener("submit", event => {
      event.preventDefault();
      message.content = area.value;
      delete message.tokens;
      if (message.role === "user") answerFrom(index + 1);
      else {
        keep();
        done();
      }
    });
    form.addEventListener("keydown", event => {
      if (event.key === "Escape") {
        event.stopPropagation();
        done();
      }
    });
    node.replaceChildren(form);
    area.fit();
    area.focus();
  }

  /** Fields for what the called tools returned. */
  function toolResults(message) {
    const areas = message.tool_calls.map(call => [
      call,
      textArea({ rows: "2", "aria-label": `${call.function.name}: ${translate("toolResult")}` }),
    ]);
    const form = h(
      "form",
      { class: "tool-results" },
      areas.map(([call, area]) =>
        h(
          "div",
          { class: "field" },
          h("span", {}, h("code", {}, call.function.name), " ", h("span", { t: "toolResult" })),
          area,
        ),
      ),
      h("button", { type: "submit", class: "main", t: "sendResults" }),
    );
    form.addEventListener("submit", event => {
      event.preventDefault();
      if (running) return;
      for (const [call, area] of areas) current.messages.push({ role: "tool", tool_call_id: call.id, content: area.value });
      keep();
      draw();
      answer();
    });
    return form;
  }
}

/** Adds a chunk's choice to a message. */
function take(message, { delta = {}, logprobs, finish_reason: finish }) {
  message.content += delta.content ?? "";
  if (delta.reasoning_content) message.reasoning = (message.reasoning ?? "") + delta.reasoning_content;
  for (const part of delta.tool_calls ?? []) {
    const calls = (message.tool_calls ??= []);
    const call = (calls[part.index ?? 0] ??= { id: "", type: "function", function: { name: "", arguments: "" } });
    call.id ||= part.id ?? "";
    call.function.name += part.function?.name ?? "";
    call.function.arguments += part.function?.arguments ?? "";
  }
  if (logprobs?.content?.length) (message.tokens ??= []).push(...chatTokens(logprobs));
  if (finish) message.finish = finish;
}

function contentOf({ role, content, reasoning, tool_calls: calls, tool_call_id: id }) {
  if (role === "user") return [h("p", { class: "plain-text" }, content)];
  if (role === "tool")
    return [
      h(
        "div",
        { class: "tool" },
        h("strong", { t: "toolResult" }),
        " ",
        h("small", {}, id ?? ""),
        h("pre", { tabindex: "0" }, content),
      ),
    ];
  // Reasoning is open as long as there is nothing else to read.
  const thought =
    reasoning &&
    h(
      "details",
      { class: "fold reasoning", open: !content && !calls },
      h("summary", { t: "reasoning" }),
      h("div", { class: "content" }, render(reasoning)),
    );
  return [thought, ...render(content), ...(calls ?? []).map(toolCall)].filter(Boolean);
}

function toolCall({ function: { name, arguments: given } }) {
  let shown = given;
  try {
    shown = JSON.stringify(JSON.parse(given), null, 2);
  } catch {
    /* Not whole yet, or not JSON: shown as it is. */
  }
  return h(
    "div",
    { class: "tool" },
    h("strong", { t: "toolCall" }),
    " ",
    h("code", {}, name),
    h("pre", { tabindex: "0" }, shown),
  );
}

function statsNode({ stats, finish }) {
  const node = h("small", { class: "stats" });
  if (stats?.tokens) node.append(h("span", { t: { key: "tokenCount", count: stats.tokens } }));
  if (stats?.rate) node.append(" · ", h("span", { t: { key: "tokenRate", rate: stats.rate.toFixed(1) } }));
  if (finish === "length") node.append(" · ", h("span", { class: "cut", t: "reachedLimit" }));
  if (finish === "stopped") node.append(" · ", h("span", { t: "stopped" }));
  return node;
}

/** Counts tokens and their rate. */
export function pace() {
  let [tokens, counted, first, last] = [0, null, 0, 0];
  return {
    seen: () => {
      tokens++;
      last = performance.now();
      first ||= last;
    },
    counted: count => {
      counted = count;
    },
    stats: () => {
      const count = counted ?? tokens;
      const seconds = (last - first) / 1000;
      return { tokens: count, rate: seconds > 0.05 && count > 2 ? (count - 1) / seconds : null };
    },
  };
}
