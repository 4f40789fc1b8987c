// Shared by the three documents: elements from text, the key, requests, numbers as text.
// Text enters the document as text nodes only; nothing here parses HTML.

const KEY = "to-router-key";
const THEME = "to-router-theme";
const THEMES = ["auto", "light", "dark"];

export const $ = (id) => document.getElementById(id);

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined).map(asNode));
  return element;
}

function asNode(child) {
  return child instanceof Node ? child : document.createTextNode(String(child));
}

const share = (fraction) => `${Math.max(0, Math.min(1, fraction || 0)) * 100}%`;

// A bar, hatched from `solid` to `whole`, with a line at `at`; a screen reader reads the number beside it.
export function track({ solid, whole = null, at = null, extra = "" }) {
  const part = (name, property, value) => { const element = h("div", { class: name }); element.style[property] = share(value); return element; };
  return h("div", { class: "track", "aria-hidden": "true" },
    whole === null ? null : part("fill hatched", "width", whole),
    part(`fill ${extra}`, "width", solid),
    at === null ? null : part("line", "insetInlineStart", at));
}

export const bar = (fraction, extra = "") => track({ solid: fraction, extra });

// The browser may deny storage; the page then works without it.
function stored(storage, name) {
  try { return storage().getItem(name); } catch { return null; }
}
function store(storage, name, value) {
  try { value === null ? storage().removeItem(name) : storage().setItem(name, value); } catch { return; }
}

let key = stored(() => sessionStorage, KEY);

export class RequestError extends Error {
  constructor(status, error, retryAfter) {
    super(error && error.message ? error.message : `the server responded with ${status}`);
    this.status = status;
    this.code = error ? error.code : null;
    this.retryAfter = retryAfter;
  }
}

export async function call(path, { body, signal } = {}) {
  const headers = {};
  if (key) headers.authorization = `Bearer ${key}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  const response = await fetch(path, {
    method: body === undefined ? "GET" : "POST", headers, signal, cache: "no-store",
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (response.ok) return response;
  let error = null;
  try { error = (await response.json()).error; } catch { error = null; }
  if (response.status === 401) askForKey(error && error.message);
  throw new RequestError(response.status, error, response.headers.get("retry-after"));
}

export const hasKey = () => Boolean(key);

export function askForKey(why) {
  const dialog = $("key-dialog");
  if (dialog.open) return;
  if (why) $("key-why").textContent = `${why}. The key stays in this tab and is sent to this server only.`;
  dialog.showModal();
  $("key-input").focus();
}

export function notice(text) {
  const element = $("notice");
  if (element.textContent !== (text || "")) element.textContent = text || "";
  element.hidden = !text;
}

const keyListeners = [];
export const onKey = (listener) => keyListeners.push(listener);

function useTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  $("theme").textContent = `Theme: ${theme}`;
}

export function start() {
  let theme = stored(() => localStorage, THEME);
  if (!THEMES.includes(theme)) theme = "auto";
  useTheme(theme);
  $("theme").addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    store(() => localStorage, THEME, theme === "auto" ? null : theme);
    useTheme(theme);
  });
  $("key-button").addEventListener("click", () => askForKey());
  $("key-dialog").addEventListener("close", () => {
    const action = $("key-dialog").returnValue, entry = $("key-input").value.trim();
    $("key-input").value = "";
    if (action === "cancel" || action === "" || (action === "use" && !entry)) return;
    key = action === "use" ? entry : null;
    store(() => sessionStorage, KEY, key);
    notice("");
    for (const listener of keyListeners) listener();
  });
}

export function number(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(1);
  return Number(value.toPrecision(digits)).toLocaleString("en", { maximumFractionDigits: 6 });
}

export function dollars(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "no price";
  if (value === 0) return "$0";
  if (value >= 0.01) return `$${value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 4 : 2 })}`;
  return `$${value.toLocaleString("en", { maximumSignificantDigits: 3, maximumFractionDigits: 12 })}`;
}

export function seconds(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return value < 1 ? `${number(value * 1000)} ms` : `${number(value)} s`;
}

export const percent = (value) => (Number.isFinite(value) ? `${(value * 100).toFixed(1)} %` : "–");

export function table(heads, rows) {
  const cells = (row) => row.map((cell, i) => h(i ? "td" : "th", i ? {} : { scope: "row" }, cell));
  return h("table", {},
    h("thead", {}, h("tr", {}, ...heads.map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, ...rows.map((row) => h("tr", {}, ...cells(row)))));
}

// Copies the text of an element; where the browser denies it, selects the text. Returns whether it is copied.
export async function copyText(element) {
  try {
    await navigator.clipboard.writeText(element.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(element);
    return false;
  }
}
