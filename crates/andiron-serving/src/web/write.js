// Write: a text and how it goes on.

import { stream } from "./api.js";
import { eachFrame, field, h } from "./dom.js";
import { copyButton, emptyState, fill, samplingFields, taskForm, textArea } from "./parts.js";
import { pace } from "./chat.js";
import { completionTokens, tokenView } from "./tokens.js";

const LIKELIEST = 5;

export function mount(panel, context) {
  const prompt = textArea({ rows: "6", spellcheck: "true", tPlaceholder: "writeHint", required: true });
  const sampling = samplingFields({ max: 128 });
  const probabilities = h("input", { type: "checkbox", role: "switch" });
  const example = text => {
    fill(prompt, text);
    prompt.focus();
  };
  const form = taskForm({
    fields: [
      field("prompt", prompt),
      h("details", { class: "fold" }, h("summary", { t: "sampling" }), sampling.node),
      h(
        "label",
        { class: "switch" },
        probabilities,
        h("span", {}, h("span", { t: "probabilities" }), h("small", { t: "probabilitiesHint" })),
      ),
    ],
    action: "continueText",
    empty: emptyState("write", "writeTitle", "writeEmpty", [
      { label: "writeExample1", use: example },
      { label: "writeExample2", use: example },
    ]),
    run: go,
  });
  panel.append(form.node);

  async function go(signal, show) {
    if (!prompt.value) {
      prompt.focus();
      return null;
    }
    const given = prompt.value;
    const request = {
      model: context.model(),
      prompt: given,
      stream: true,
      stream_options: { include_usage: true },
      ...sampling.read(),
    };
    if (probabilities.checked) request.logprobs = LIKELIEST;
    const [written, tokens, rate] = [document.createTextNode(""), [], pace()];
    let finish = "stopped";
    show(h("div", { class: "written" }, h("span", { class: "prompt" }, given), written));
    const place = probabilities.checked ? h("div", { class: "written" }, h("span", { class: "prompt" }, given)) : null;
    const redraw = eachFrame(() => {
      if (!signal.aborted && place) show([place, tokenView(tokens)]);
    });
    try {
      for await (const chunk of stream("/v1/completions", request, signal)) {
        if (chunk.usage) rate.counted(chunk.usage.completion_tokens);
        const choice = chunk.choices?.[0];
        if (!choice) continue;
        rate.seen();
        written.appendData(choice.text);
        tokens.push(...completionTokens(choice.logprobs));
        finish = choice.finish_reason ?? finish;
        redraw();
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
    const { tokens: count, rate: speed } = rate.stats();
    const goOn = h("button", {
      type: "button",
      class: "plain",
      t: "useAsPrompt",
      onclick: () => {
        fill(prompt, given + written.data);
        prompt.focus();
      },
    });
    const whole =
      place && tokens.length > 0
        ? [place, tokenView(tokens)]
        : [h("div", { class: "written" }, h("span", { class: "prompt" }, given), written)];
    show([
      ...whole,
      h(
        "div",
        { class: "actions shown" },
        copyButton(() => given + written.data),
        goOn,
        h(
          "small",
          { class: "stats" },
          h("span", { t: { key: "tokenCount", count } }),
          speed && h("span", { t: { key: "tokenRateAfter", rate: speed.toFixed(1) } }),
          finish === "length" && h("span", { class: "cut", t: "reachedLimitAfter" }),
        ),
      ),
    ]);
    return null;
  }
}
