// Text token by token, coloured by probability; hovering or focusing one shows what else was likely.

import { h, roving } from "./dom.js";
import { bar, percent } from "./parts.js";
import { translate } from "./texts.js";

/** Tokens of a chat choice's `logprobs`. */
export function chatTokens(logprobs) {
  return (logprobs?.content ?? []).map(({ token, logprob, top_logprobs: top }) => ({
    text: token,
    logprob,
    top: (top ?? []).map(other => ({ text: other.token, logprob: other.logprob })),
  }));
}

/** Tokens of a completion choice's `logprobs`. */
export function completionTokens(logprobs) {
  return (logprobs?.tokens ?? []).map((text, at) => {
    const top = Object.entries(logprobs.top_logprobs?.[at] ?? {}).map(([other, logprob]) => ({ text: other, logprob }));
    return { text, logprob: logprobs.token_logprobs[at] ?? 0, top: top.sort((a, b) => b.logprob - a.logprob) };
  });
}

/** Spaces and line breaks made visible, for a token by itself. */
export function visible(text) {
  return text.replaceAll("\n", "⏎").replace(/^ /, "␣").replace(/ $/, "␣") || "∅";
}

/** The tokens as one text. */
export function tokenView(tokens) {
  const tip = h("div", { class: "tip", role: "tooltip", hidden: true });
  const spans = tokens.map(({ text, logprob }, at) => {
    const p = Math.exp(logprob);
    return h(
      "span",
      {
        class: "tok",
        "data-at": at,
        role: "button",
        tabindex: "-1",
        style: { "--p": p.toFixed(3) },
        "aria-label": `${visible(text)}, ${percent(p)}`,
      },
      text,
    );
  });
  const line = h("div", { class: "toks", role: "group", "aria-label": translate("tokensLabel") }, spans);
  const view = h("div", { class: "tokview" }, line, tip);
  const show = span => {
    const { text, logprob, top } = tokens[Number(span.dataset.at)];
    const others = top.length > 0 ? top : [{ text, logprob }];
    const surprise = others.some(other => other.text === text) ? [] : [{ text, logprob }];
    tip.replaceChildren(
      h(
        "ul",
        { class: "bars" },
        [...others, ...surprise].map(other => {
          const row = bar(visible(other.text), Math.exp(other.logprob));
          if (other.text === text) row.classList.add("chosen");
          return row;
        }),
      ),
    );
    tip.hidden = false;
    const [outer, inner] = [view.getBoundingClientRect(), span.getBoundingClientRect()];
    tip.style.top = `${inner.bottom - outer.top + 4}px`;
    tip.style.left = `${Math.max(0, Math.min(inner.left - outer.left, outer.width - tip.offsetWidth))}px`;
  };
  const over = event => event.target.closest?.(".tok") && show(event.target.closest(".tok"));
  line.addEventListener("pointerover", over);
  line.addEventListener("focusin", over);
  const leave = () => {
    if (!line.contains(document.activeElement)) tip.hidden = true;
  };
  line.addEventListener("pointerleave", leave);
  line.addEventListener("focusout", () => {
    tip.hidden = true;
  });
  line.addEventListener("keydown", event => {
    if (event.key === "Escape") tip.hidden = true;
  });
  roving(line, ".tok");
  return view;
}
