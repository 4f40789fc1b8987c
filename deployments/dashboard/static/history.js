// What Board knows over time: the history that the server kept before the page was opened, and what the page
// saw since. Both are growth of counters, and they meet at one snapshot, so that nothing is counted twice.

import { growth, parse, seen } from "./metrics.js";

const KEEP_S = 600;
// The history is read again before the page forgets the snapshot where both meet.
const REFRESH_S = 300;

export class TimeLine {
  constructor() { this.views = []; this.past = null; }

  get now() { return this.views[this.views.length - 1]; }

  // The first time of which anything is known.
  get start() { return this.past ? this.past.at[0] : this.views[0].at; }

  get needsHistory() { return !this.past || !this.views.length || this.now.at - this.past.end >= REFRESH_S; }

  take(snapshot) {
    if (this.views.length && snapshot.at <= this.now.at) return;
    const series = parse(snapshot.metrics), oldest = snapshot.at - KEEP_S - 5;
    const before = this.views.length ? this.now.seen : new Map();
    this.views.push({ ...snapshot, series, seen: seen(before, series, snapshot.at, oldest), metrics: null, history: null });
    this.views = this.views.filter((view) => view.at >= oldest);
    const { history } = snapshot;
    if (history && history.at.length) {
      const ids = Object.keys(history.series), known = [...parse(ids.map((id) => `${id} 0`).join("\n")).values()];
      this.past = { at: history.at, end: snapshot.at, series: known.map((one, i) => ({ ...one, steps: history.series[ids[i]] })) };
    }
  }

  // [{a, b, samples}] from `from` on: the growth between neighbouring points.
  intervals(from) {
    const meet = this.past ? this.past.end : -Infinity;
    const views = this.views.filter((view) => view.at >= meet - 0.01);
    const parts = [];
    if (this.past) {
      const { at, series } = this.past;
      for (let i = 1; i < at.length; i += 1) {
        if (at[i - 1] < from - 0.5) continue;
        parts.push({ a: at[i - 1], b: at[i], samples: series.map((one) => ({ ...one, value: one.steps[i - 1] || 0 })) });
      }
    }
    for (let i = 1; i < views.length; i += 1) {
      if (views[i - 1].at < from - 0.5) continue;
      parts.push({ a: views[i - 1].at, b: views[i].at, samples: growth(views[i - 1].seen, views[i].series) });
    }
    return parts;
  }

  // The growth since `from`: where it began, and its samples.
  since(from) {
    const views = this.views.filter((view) => view.at >= from - 0.5 && (!this.past || view.at >= this.past.end - 0.01));
    if (!this.past || from >= this.past.end - 0.5) {
      const first = this.views.find((view) => view.at >= from - 0.5) || this.views[0];
      return { from: first.at, samples: growth(first.seen, this.now.series) };
    }
    const { at, series } = this.past, begin = Math.max(0, at.findIndex((time) => time >= from - 0.5));
    const old = series.map((one) => ({ ...one, value: one.steps.slice(begin).reduce((all, step) => all + step, 0) }));
    return { from: at[begin], samples: [...old, ...growth(views[0].seen, this.now.series)] };
  }
}
