// Markdown of an answer as elements: parsed by markdown-it with HTML as text, cleaned by DOMPurify.
// Nothing here loads anything: no pictures, and links only of http, https and mailto, without a referrer.

import "./vendor/markdown-it.umd.min.js";
import "./vendor/purify.min.js";
import { copyText, h } from "./common.js";

// Longer texts and deeper lists are shown as they are.
const LONGEST = 60_000, DEEPEST = 16;
const LINK = /^(?:https?:|mailto:)/i;
const CLEAN = {
  ALLOWED_TAGS: ["p", "br", "hr", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code", "em", "strong", "s", "a", "table", "thead", "tbody", "tr", "th", "td"],
  ALLOWED_ATTR: ["href", "start", "class"],
  ALLOWED_URI_REGEXP: LINK,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

const parser = globalThis.markdownit({ html: false, linkify: false, breaks: true }).disable("image");
parser.validateLink = (url) => LINK.test(url);

// markdown-it drops what is nested deeper than its bound; here the rest of such a block stays, as it was written.
parser.block.ruler.before("table", "deep", (state, from, to, silent) => {
  if (state.level < DEEPEST || silent) return false;
  const token = state.push("code_block", "code", 0);
  token.content = state.getLines(from, to, state.blkIndent, true);
  state.line = to;
  return true;
});

// The page has headings of its own above an answer's; the alignment of cells would be a style.
parser.core.ruler.push("page", (state) => {
  for (const token of state.tokens) {
    if (token.type === "heading_open" || token.type === "heading_close") token.tag = `h${Math.min(6, Number(token.tag[1]) + 2)}`;
    else if (token.type === "th_open" || token.type === "td_open") token.attrs = null;
  }
});

const asText = (text) => h("div", { class: "plain", tabindex: "0", role: "region", "aria-label": "Answer as text" }, text);

export function rendered(text) {
  if (text.length > LONGEST) return asText(text);
  let fragment = null;
  try { fragment = globalThis.DOMPurify.sanitize(parser.render(text), CLEAN); } catch { return asText(text); }
  for (const link of fragment.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
  }
  for (const table of fragment.querySelectorAll("table")) {
    const region = h("div", { class: "scroll tablet", tabindex: "0", role: "region", "aria-label": "Table in the answer" });
    table.replaceWith(region);
    region.append(table);
  }
  for (const block of fragment.querySelectorAll("pre")) withCopy(block);
  return fragment;
}

function withCopy(block) {
  const code = block.querySelector("code");
  const language = code ? (/^language-([\w+#.-]{1,24})/.exec(code.className) || [])[1] || "" : "";
  if (code) code.removeAttribute("class");
  block.tabIndex = 0;
  const button = h("button", { type: "button", class: "quiet" }, "Copy");
  button.addEventListener("click", async () => { button.textContent = (await copyText(block)) ? "Copied" : "Selected"; });
  const frame = h("div", { class: "code" }, h("div", { class: "row" }, h("span", { class: "muted" }, language || "text"), h("span", { class: "grow" }), button));
  block.replaceWith(frame);
  frame.append(block);
}

// A text that grows: drawn again at most every 80 ms, and in at most a tenth of the time.
export function growing(element) {
  let text = "", timer = null, took = 0;
  const draw = () => {
    const began = performance.now();
    clearTimeout(timer);
    timer = null;
    element.replaceChildren(rendered(text));
    took = performance.now() - began;
  };
  return {
    add(part) { text += part; if (timer === null) timer = setTimeout(draw, Math.max(80, 10 * took)); },
    end: draw,
  };
}
