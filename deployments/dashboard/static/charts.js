// Lines and points as SVG, coloured by the style sheet, described in words for screen readers.

import { h, number } from "./common.js";

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 52, RIGHT = 14, TOP = 12, BOTTOM = 36;

function s(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  if (text !== undefined) element.textContent = text;
  return element;
}

function ticks(low, high, count = 4) {
  const raw = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw);
  const values = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step / 1e6; at += step) values.push(Number(at.toPrecision(12)));
  return values;
}

function range(values, zero) {
  let low = Math.min(...values), high = Math.max(...values);
  if (!Number.isFinite(low)) return [0, 1];
  if (zero) low = Math.min(0, low);
  if (low === high) high = low + (Math.abs(low) || 1);
  return zero ? [low, high * 1.08] : [low - (high - low) * 0.08, high + (high - low) * 0.08];
}

// series: [{name, points: [[x, y, label?]], kind: "line" | "points" | "squares" | "both", color}]
// options: {title, x: {name, format, zero, range}, y: likewise, diagonal, marks: [[x, y, label]]}
export function chart(element, series, options) {
  const draw = () => render(element, series, options);
  if (element.redraw) element.observer.disconnect();
  element.redraw = draw;
  element.observer = new ResizeObserver(() => element.redraw());
  element.observer.observe(element);
  draw();
}

function render(element, series, options) {
  const width = Math.max(240, element.clientWidth), height = Math.max(160, element.clientHeight);
  const all = [...series.flatMap((one) => one.points), ...(options.marks || [])];
  const [x0, x1] = options.x.range || range(all.map((point) => point[0]), options.x.zero);
  const [y0, y1] = options.y.range || range(all.map((point) => point[1]), options.y.zero);
  const X = (x) => LEFT + ((x - x0) / (x1 - x0)) * (width - LEFT - RIGHT);
  const Y = (y) => height - BOTTOM - ((y - y0) / (y1 - y0)) * (height - TOP - BOTTOM);
  const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": options.title });
  for (const at of ticks(y0, y1)) {
    svg.append(s("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: Y(at), y2: Y(at) }));
    svg.append(s("text", { x: LEFT - 6, y: Y(at) + 4, "text-anchor": "end" }, (options.y.format || number)(at)));
  }
  for (const at of ticks(x0, x1, width < 420 ? 3 : 5)) {
    svg.append(s("text", { x: X(at), y: height - BOTTOM + 16, "text-anchor": "middle" }, (options.x.format || number)(at)));
  }
  svg.append(s("text", { x: width - RIGHT, y: height - 4, "text-anchor": "end" }, options.x.name));
  if (options.y.name) svg.append(s("text", { x: LEFT, y: TOP - 2, "text-anchor": "start" }, options.y.name));
  if (options.diagonal) svg.append(s("line", { class: "diagonal", x1: X(x0), y1: Y(x0), x2: X(x1), y2: Y(x1) }));
  for (const one of series) {
    if ((one.kind === "line" || one.kind === "both") && one.points.length > 1) {
      const path = one.points.map(([x, y], i) => `${i ? "L" : "M"}${X(x).toFixed(1)} ${Y(y).toFixed(1)}`).join("");
      svg.append(s("path", { d: path, class: `s${one.color}`, fill: "none", "stroke-width": 2 }));
    }
    if (one.kind !== "line" || one.points.length === 1) {
      for (const [x, y] of one.points) {
        if (one.kind === "squares") svg.append(s("rect", { x: X(x) - 6, y: Y(y) - 6, width: 12, height: 12, class: `f${one.color}` }));
        else svg.append(s("circle", { cx: X(x), cy: Y(y), r: one.kind === "points" ? 6 : 3, class: `f${one.color}` }));
      }
    }
  }
  for (const [x, y, label] of options.marks || []) {
    svg.append(s("circle", { class: "mark", cx: X(x), cy: Y(y), r: 9 }));
    const left = X(x) > width * 0.6;
    svg.append(s("text", { class: "label", x: X(x) + (left ? -14 : 14), y: Y(y) + 20, "text-anchor": left ? "end" : "start" }, label));
  }
  element.replaceChildren(svg);
}

export function legend(series) {
  return h("ul", { class: "legend" }, ...series.map((one) => h("li", {}, h("i", { class: `f${one.color}`, "aria-hidden": "true" }), one.name)));
}
