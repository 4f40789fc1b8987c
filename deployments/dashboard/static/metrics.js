// Metrics in the text format of Prometheus: read, subtracted, summed over all replicas.
// Every series is subtracted from itself before any sum, so that a replica that comes, goes or
// restarts never makes a total run backwards.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;

export function parse(text) {
  const series = new Map();
  for (const line of text.split("\n")) {
    const match = LINE.exec(line);
    if (!match || line[0] === "#") continue;
    const labels = {};
    for (const [, name, value] of (match[2] || "").matchAll(LABEL)) {
      labels[name] = value.replace(/\\(.)/g, (_, escaped) => (escaped === "n" ? "\n" : escaped));
    }
    const value = match[3] === "+Inf" ? Infinity : Number(match[3]);
    series.set(`${match[1]}{${match[2] || ""}}`, { name: match[1], labels, value });
  }
  return series;
}

// Every series as it was last seen, up to and with this view, without those not seen since `oldest`.
// A replica that one gathering missed must not count its whole life when it is back.
export function seen(before, now, at, oldest) {
  const kept = new Map();
  for (const [id, sample] of before) if (sample.at >= oldest) kept.set(id, sample);
  for (const [id, sample] of now) kept.set(id, { ...sample, at });
  return kept;
}

// Growth of every counter since it was last seen, up to an earlier view. A counter that is smaller now,
// or that no view had seen, started from zero.
export function growth(before, now) {
  const grown = [];
  for (const [id, sample] of now) {
    const earlier = before.get(id);
    const from = earlier && earlier.value <= sample.value ? earlier.value : 0;
    grown.push({ ...sample, value: sample.value - from });
  }
  return grown;
}

const fits = (sample, name, where) => sample.name === name
  && Object.entries(where).every(([label, value]) => sample.labels[label] === value);

export function sum(samples, name, where = {}) {
  let total = 0;
  for (const sample of samples) if (fits(sample, name, where)) total += sample.value;
  return total;
}

export function by(samples, name, label, where = {}) {
  const totals = new Map();
  for (const sample of samples) {
    if (!fits(sample, name, where)) continue;
    const value = sample.labels[label];
    totals.set(value, (totals.get(value) || 0) + sample.value);
  }
  return totals;
}

// The values of a gauge, one for each replica.
export const each = (samples, name, where = {}) => [...samples].filter((sample) => fits(sample, name, where)).map((sample) => sample.value);

// A percentile from buckets: a value, and the bounds of the bucket that it lies in.
export function quantile(samples, name, where, q) {
  const buckets = [...by(samples, `${name}_bucket`, "le", where)]
    .map(([le, count]) => [le === "+Inf" ? Infinity : Number(le), count]).sort((a, b) => a[0] - b[0]);
  const total = buckets.length ? buckets[buckets.length - 1][1] : 0;
  if (!total) return null;
  let low = 0, below = 0;
  for (const [high, count] of buckets) {
    if (count >= q * total) {
      if (high === Infinity) return { value: low, low, high };
      const share = count === below ? 1 : (q * total - below) / (count - below);
      return { value: low + (high - low) * share, low, high };
    }
    low = high;
    below = count;
  }
  return null;
}

export function mean(samples, name, where) {
  const count = sum(samples, `${name}_count`, where);
  return count ? sum(samples, `${name}_sum`, where) / count : null;
}
