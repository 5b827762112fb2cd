// The list of conversations beside a chat.

import { announce, h, icon, iconButton } from "./dom.js";
import { conversations, exported, imported, remove } from "./store.js";
import { translate } from "./texts.js";

export function conversationList({ open, isOpen, begin, discard }) {
  const items = h("ul", { class: "items" });
  const told = h("p", { class: "hint", role: "status", hidden: true });
  const file = h("input", { type: "file", accept: "application/json,.json", hidden: true, tLabel: "import" });
  const node = h(
    "aside",
    { class: "conversations", tLabel: "conversations" },
    h(
      "button",
      {
        type: "button",
        class: "plain full",
        onclick: () => {
          close();
          begin();
        },
      },
      icon("plus"),
      h("span", { t: "newChat" }),
    ),
    items,
    told,
    h(
      "div",
      { class: "row tight" },
      h("button", { type: "button", class: "quiet text", onclick: download }, icon("down"), h("span", { t: "export" })),
      h("button", { type: "button", class: "quiet text", onclick: () => file.click() }, icon("up"), h("span", { t: "import" })),
      file,
    ),
  );

  file.addEventListener("change", async () => {
    const [chosen] = file.files;
    if (!chosen) return;
    try {
      tell({ key: "importDone", count: await imported(chosen) });
    } catch (error) {
      tell({ key: error.message });
    }
    file.value = "";
    refresh();
  });
  node.addEventListener("keydown", event => {
    if (event.key === "Escape") close();
  });

  function tell({ key, ...values }) {
    told.textContent = translate(key, values);
    told.hidden = false;
    announce(key, values);
  }

  async function download() {
    const address = URL.createObjectURL(new Blob([await exported()], { type: "application/json" }));
    const link = h("a", { href: address, download: `andiron-${new Date().toISOString().slice(0, 10)}.json` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  }

  function close() {
    node.classList.remove("open");
  }

  async function refresh() {
    const all = await conversations();
    items.replaceChildren(
      ...all.map(conversation => {
        const title = conversation.title || translate("untitled");
        const current = isOpen(conversation.id);
        return h(
          "li",
          { class: current ? "item current" : "item" },
          h(
            "button",
            {
              type: "button",
              class: "item-open",
              "aria-current": current ? "true" : null,
              onclick: () => {
                close();
                open(conversation);
              },
            },
            title,
          ),
          iconButton(
            "trash",
            "delete",
            async () => {
              if (isOpen(conversation.id)) discard();
              await remove(conversation.id);
              refresh();
            },
            { class: "quiet small", "aria-label": `${translate("delete")}: ${title}` },
          ),
        );
      }),
    );
    if (all.length === 0) items.replaceChildren(h("li", { class: "hint", t: "noConversations" }));
  }

  return { node, refresh, toggle: () => node.classList.toggle("open") && node.querySelector("button").focus() };
}
