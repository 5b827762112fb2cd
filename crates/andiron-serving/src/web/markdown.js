// Markdown to elements: what models write (CommonMark's common part, tables, strikethrough). HTML in the text stays text,
// links lead to http and https only, and pictures are not loaded.

import { h, iconButton, icon } from "./dom.js";

/** Nested quotes, lists and emphasis beyond this depth stay text. */
const MAX_DEPTH = 8;

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^\s`]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})(?:\s+(.*?))?\s*#*\s*$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(?:( {1,4})(.*)|\s*)$/;
const DIVIDER = /^ {0,3}\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;

/** The elements of a text; whatever is not closed yet, such as a code block that is still being written, ends with the text. */
export function render(source) {
  return blocks(source.replace(/\r\n?/g, "\n").replace(/\t/g, "    ").split("\n"), 0);
}

function blocks(lines, depth) {
  const nodes = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    let found;
    if (!line.trim()) at++;
    else if ((found = FENCE.exec(line))) [found, at] = fenced(lines, at, found, nodes);
    else if ((found = HEADING.exec(line))) {
      // The page has its own first three levels.
      nodes.push(h(`h${Math.min(6, found[1].length + 3)}`, {}, inline(found[2] ?? "")));
      at++;
    } else if (RULE.test(line)) {
      nodes.push(h("hr"));
      at++;
    } else if (depth < MAX_DEPTH && QUOTE.test(line)) {
      const start = at;
      while (at < lines.length && (QUOTE.test(lines[at]) || (at > start && isPlain(lines[at])))) at++;
      nodes.push(
        h(
          "blockquote",
          {},
          blocks(
            lines.slice(start, at).map(text => text.replace(QUOTE, "")),
            depth + 1,
          ),
        ),
      );
    } else if (depth < MAX_DEPTH && ITEM.test(line)) at = list(lines, at, nodes, depth);
    else if (line.includes("|") && DIVIDER.test(lines[at + 1] ?? "") && cells(line).length === cells(lines[at + 1]).length) {
      at = table(lines, at, nodes);
    } else {
      const start = at++;
      while (at < lines.length && isPlain(lines[at])) at++;
      nodes.push(h("p", {}, paragraph(lines.slice(start, at))));
    }
  }
  return nodes;
}

/** Whether a line goes on with the paragraph before it. */
function isPlain(line) {
  return line.trim() !== "" && ![FENCE, HEADING, RULE, QUOTE, ITEM].some(rule => rule.test(line));
}

function paragraph(lines) {
  return lines.flatMap((line, at) => {
    const last = at === lines.length - 1;
    const hard = !last && / {2,}$|\\$/.test(line);
    const text = line.trim().replace(/\\$/, hard ? "" : "\\");
    return [...inline(text), hard ? h("br") : last ? null : "\n"].filter(node => node !== null);
  });
}

function fenced(lines, start, [, fence, language], nodes) {
  const closes = line => {
    const text = line.trim();
    return text.length >= fence.length && [...text].every(character => character === fence[0]);
  };
  let end = start + 1;
  while (end < lines.length && !closes(lines[end])) end++;
  nodes.push(codeBlock(lines.slice(start + 1, end).join("\n"), language));
  return [null, end + 1];
}

function codeBlock(text, language) {
  const copy = iconButton("copy", "copy", async () => {
    await navigator.clipboard.writeText(text);
    copy.replaceChildren(icon("check"));
    setTimeout(() => copy.replaceChildren(icon("copy")), 1200);
  });
  const head = h("div", { class: "code-head" }, h("span", {}, language || ""), copy);
  return h("div", { class: "code" }, head, h("pre", { tabindex: "0" }, h("code", {}, text)));
}

function list(lines, start, nodes, depth) {
  const [, , first] = ITEM.exec(lines[start]);
  const ordered = /\d/.test(first);
  const sameKind = line => {
    const found = ITEM.exec(line);
    return found && !RULE.test(line) && /\d/.test(found[2]) === ordered ? found : null;
  };
  const items = [];
  let at = start;
  while (at < lines.length) {
    const found = sameKind(lines[at]);
    if (!found) break;
    const indent = found[1].length + found[2].length + (found[3]?.length ?? 1);
    const own = [found[4] ?? ""];
    at++;
    for (; at < lines.length; at++) {
      const line = lines[at];
      const depthOf = line.search(/\S/);
      if (depthOf < 0) {
        // A blank line belongs to the item if something indented follows.
        const next = lines.slice(at).find(text => text.trim());
        if (next === undefined || next.search(/\S/) < indent) break;
        own.push("");
      } else if (depthOf >= Math.min(indent, 2) && depthOf > found[1].length) own.push(line.slice(Math.min(depthOf, indent)));
      else if (isPlain(line) && own.at(-1) !== "") own.push(line);
      else break;
    }
    items.push(own);
    while (at < lines.length && !lines[at].trim() && sameKind(lines[at + 1] ?? "")) at++;
  }
  const number = Number.parseInt(first, 10);
  nodes.push(
    h(
      ordered ? "ol" : "ul",
      { start: ordered && number !== 1 ? number : null },
      items.map(own => {
        const inner = blocks(own, depth + 1);
        return h(
          "li",
          {},
          inner.flatMap(node =>
            node.tagName === "P" && inner.filter(other => other.tagName === "P").length === 1 ? [...node.childNodes] : [node],
          ),
        );
      }),
    ),
  );
  return at;
}

function cells(line) {
  const inner = line
    .trim()
    .replace(/^\|/, "")
    .replace(/(^|[^\\])\|$/, "$1");
  return inner.split(/(?<!\\)\|/).map(cell => cell.trim().replaceAll("\\|", "|"));
}

function table(lines, start, nodes) {
  const align = cells(lines[start + 1]).map(cell => (cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : ""));
  const row = (tag, line) =>
    h(
      "tr",
      {},
      align.map((side, at) =>
        h(tag, { class: side && `to-${side}`, scope: tag === "th" ? "col" : null }, inline(cells(line)[at] ?? "")),
      ),
    );
  let end = start + 2;
  while (end < lines.length && lines[end].includes("|") && lines[end].trim()) end++;
  const body = lines.slice(start + 2, end).map(line => row("td", line));
  nodes.push(
    h("div", { class: "table", tabindex: "0" }, h("table", {}, h("thead", {}, row("th", lines[start])), h("tbody", {}, body))),
  );
  return end;
}

const EMPHASIS = [
  ["**", "strong"],
  ["__", "strong"],
  ["~~", "del"],
  ["*", "em"],
  ["_", "em"],
];

/** Emphasis, code, links and line breaks of one stretch of text. */
function inline(text, depth = 0) {
  const nodes = [];
  /** Marks that have no end in this text: not looked for again, so that a long text takes time in its length. */
  const unclosed = new Set();
  let plain = "";
  let at = 0;
  const push = (node, length) => {
    if (plain) nodes.push(plain);
    plain = "";
    nodes.push(node);
    at += length;
  };
  const find = (mark, from) => {
    if (unclosed.has(mark)) return -1;
    const end = text.indexOf(mark, from);
    if (end < 0) unclosed.add(mark);
    return end;
  };
  while (at < text.length) {
    const character = text[at];
    if (character === "\\" && /[!-/:-@[-`{-~]/.test(text[at + 1] ?? "")) {
      plain += text[at + 1];
      at += 2;
      continue;
    }
    if (character === "`") {
      const ticks = /^`+/.exec(text.slice(at, at + 20))[0];
      const end = find(ticks, at + ticks.length);
      if (end > 0) {
        push(h("code", {}, text.slice(at + ticks.length, end).replace(/^ (.*[^ ].*) $/, "$1")), end + ticks.length - at);
        continue;
      }
    }
    if (character === "[" && depth < MAX_DEPTH) {
      const found = link(text, at, find);
      if (found) {
        push(anchor(found.address, inline(found.label, depth + 1)), found.length);
        continue;
      }
    }
    if (character === "h" && !/\w/.test(text[at - 1] ?? "")) {
      const found = /^https?:\/\/[^\s<>"`]{1,2000}/.exec(text.slice(at, at + 2010));
      const address = found && trimmed(found[0]);
      if (address) {
        push(anchor(address, [address]), address.length);
        continue;
      }
    }
    if (depth < MAX_DEPTH && "*_~".includes(character)) {
      const found = emphasis(text, at, find);
      if (found) {
        push(h(found.tag, {}, inline(found.inner, depth + 1)), found.length);
        continue;
      }
    }
    plain += character;
    at++;
  }
  if (plain) nodes.push(plain);
  return nodes;
}

function emphasis(text, at, find) {
  for (const [mark, tag] of EMPHASIS) {
    if (!text.startsWith(mark, at)) continue;
    const start = at + mark.length;
    if (/\s/.test(text[start] ?? " ") || (mark[0] === "_" && /[\p{L}\p{N}]/u.test(text[at - 1] ?? ""))) continue;
    let end = find(mark, start + 1);
    // The end of a single mark is not the beginning of a double one.
    while (mark.length === 1 && end > 0 && text[end + 1] === mark) end = find(mark, end + 2);
    if (end < 0 || /\s/.test(text[end - 1])) continue;
    if (mark[0] === "_" && /[\p{L}\p{N}]/u.test(text[end + mark.length] ?? "")) continue;
    return { tag, inner: text.slice(start, end), length: end + mark.length - at };
  }
  return null;
}

function link(text, at, find) {
  const middle = find("](", at);
  if (middle < 0 || middle - at > 1000) return null;
  const end = closing(text, middle + 2);
  if (end < 0) return null;
  const [address] = text
    .slice(middle + 2, end)
    .trim()
    .replace(/^<(.*)>$/, "$1")
    .split(/\s/);
  const label = text.slice(at + 1, middle);
  return label.includes("[") ? null : { label, address, length: end + 1 - at };
}

/** The place of the parenthesis that closes an address, which may have pairs of its own. */
function closing(text, from) {
  let open = 1;
  for (let at = from; at < Math.min(text.length, from + 2000); at++) {
    if (text[at] === "(") open++;
    if (text[at] === ")" && --open === 0) return at;
  }
  return -1;
}

/** An address without the punctuation that follows it in a sentence. */
function trimmed(address) {
  const bare = address.replace(/[.,;:!?'*_~\]]+$/, "");
  return bare.endsWith(")") && !bare.includes("(") ? bare.slice(0, -1) : bare;
}

function anchor(address, label) {
  let url = null;
  try {
    url = new URL(address);
  } catch {
    /* Not an address of its own: shown, not linked. */
  }
  if (!url || !["http:", "https:"].includes(url.protocol)) return h("span", {}, label);
  return h("a", { href: url.href, target: "_blank", rel: "noopener noreferrer nofollow" }, label);
}
