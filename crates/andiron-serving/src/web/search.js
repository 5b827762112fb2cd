// Search: documents that are pasted here, sorted by what they have to do with a question.

import { request } from "./api.js";
import { field, h } from "./dom.js";
import { bar, emptyState, fill, taskForm, textArea } from "./parts.js";
import { translate } from "./texts.js";

/** Inputs of one request. */
const BATCH = 32;
const SHOWN = 20;

export function mount(panel, context) {
  const query = h("input", { type: "search", spellcheck: "true" });
  const documents = textArea({ rows: "8", spellcheck: "true", tPlaceholder: "searchDocumentsHint" });
  /** Vectors of documents, by model and text, so that another question asks for its own vector only. */
  const known = new Map();
  const example = () => {
    fill(documents, translate("searchExampleDocuments"));
    fill(query, translate("searchExampleQuery"));
    form.start();
  };
  const form = taskForm({
    fields: [field("documents", documents, "documentsHint"), field("query", query)],
    action: "searchAction",
    empty: emptyState("search", "searchTitle", "searchHint", [{ label: "searchExample", use: example }]),
    run: async signal => {
      const texts = documents.value
        .split(/\n\s*\n|\n(?=[-•*] )/)
        .map(text => text.trim())
        .filter(Boolean);
      const lines =
        texts.length > 1
          ? texts
          : documents.value
              .split("\n")
              .map(text => text.trim())
              .filter(Boolean);
      if (lines.length === 0) {
        documents.focus();
        return null;
      }
      if (!query.value.trim()) {
        query.focus();
        return null;
      }
      const found = context.can("rerank") ? await reranked(lines, signal) : await compared(lines, signal);
      const highest = Math.max(...found.map(({ score }) => Math.abs(score)), 1e-9);
      return h(
        "ol",
        { class: "hits" },
        found
          .slice(0, SHOWN)
          .map(({ text, score }) =>
            h(
              "li",
              { class: "card" },
              h("p", { class: "plain-text" }, text),
              h("ul", { class: "bars" }, bar("", Math.max(0, score) / Math.max(1, highest), score.toFixed(3))),
            ),
          ),
      );
    },
  });
  panel.append(form.node);

  async function reranked(texts, signal) {
    const body = { model: context.model(), query: query.value, documents: texts };
    const { results } = await request("/v1/rerank", body, signal);
    return results
      .map(({ index, relevance_score: score }) => ({ text: texts[index], score }))
      .sort((a, b) => b.score - a.score);
  }

  async function compared(texts, signal) {
    const key = text => `${context.model()}\n${text}`;
    const missing = [...new Set([query.value, ...texts])].filter(text => !known.has(key(text)));
    for (let at = 0; at < missing.length; at += BATCH) {
      const input = missing.slice(at, at + BATCH);
      const { data } = await request("/v1/embeddings", { model: context.model(), input, encoding_format: "float" }, signal);
      for (const { index, embedding } of data) known.set(key(input[index]), embedding);
    }
    const wanted = known.get(key(query.value));
    return texts.map(text => ({ text, score: cosine(wanted, known.get(key(text))) })).sort((a, b) => b.score - a.score);
  }
}

function cosine(a, b) {
  let [dot, aa, bb] = [0, 0, 0];
  for (let at = 0; at < a.length; at++) {
    dot += a[at] * b[at];
    aa += a[at] * a[at];
    bb += b[at] * b[at];
  }
  return dot / (Math.sqrt(aa * bb) || 1);
}
