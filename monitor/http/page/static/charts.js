// Charts as SVG. Colours are classes of the style sheet; lines are told apart by dashes and names as well.

import { h, number, percent, s } from "./dom.js";

const KINDS = 6;

/** Units of a chart's width: fewer on a narrow screen, so that its texts stay readable. */
const width = () => (window.innerWidth < 640 ? 400 : 640);

function frame(title, height, children, told) {
  return s("svg", { viewBox: `0 0 ${width()} ${height}`, class: "chart", role: "img", "aria-label": title }, s("title", {}, title), told ? s("desc", {}, told) : null, children);
}

export function key(names) {
  return h("ul", { class: "key" }, names.map((name, i) => h("li", {},
    s("svg", { viewBox: "0 0 28 8", "aria-hidden": "true" }, s("line", { class: `line-${i % KINDS}`, x1: 0, x2: 28, y1: 4, y2: 4 })), name)));
}

/** Lines over tokens. `lines`: [{name, values}], `starts`: [{start, role}] where turns begin, `mark`: a value to show. */
export function lines(title, list, count, starts, mark) {
  const top = 12, bottom = 170, left = 36, right = width() - 8;
  const most = Math.max(mark * 1.2, ...list.flatMap((one) => one.values)) || 1;
  const x = (i) => left + ((right - left) * i) / Math.max(1, count - 1);
  const y = (value) => bottom - ((bottom - top) * Math.min(value, most)) / most;
  return frame(title, 190, [
    starts.map((one) => [s("line", { class: "grid", x1: x(one.start), x2: x(one.start), y1: top, y2: bottom }),
      s("text", { class: "tick", x: x(one.start) + 3, y: bottom + 14 }, one.role)]),
    s("line", { class: "mark", x1: left, x2: right, y1: y(mark), y2: y(mark) }),
    s("text", { class: "tick", x: left - 4, y: y(mark) + 4, "text-anchor": "end" }, `${mark}`),
    s("text", { class: "tick", x: left - 4, y: y(most) + 8, "text-anchor": "end" }, number(most, most < 10 ? 1 : 0)),
    list.map((one, i) => s("polyline", { class: `line-${i % KINDS}`, points: one.values.map((value, at) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`).join(" ") })),
  ]);
}

/** Rows of shades over tokens, in at most so many cells: each shows the highest value in it. */
export function heat(title, rows, count, levels, chosen) {
  const left = width() < 640 ? 140 : 190;
  const cells = Math.min(count, left < 190 ? 100 : 160), height = 22, right = width() - 4;
  const step = (right - left) / Math.max(1, cells);
  const level = (value) => levels.filter((low) => value >= low).length;
  return frame(title, rows.length * height + 6, rows.map((row, n) => [
    s("text", { class: "name", x: left - 8, y: n * height + 16, "text-anchor": "end" }, row.name.slice(0, left < 190 ? 22 : 31)),
    s("rect", { class: "empty", x: left, y: n * height + 3, width: right - left, height: height - 5 }),
    Array.from({ length: cells }, (_, cell) => {
      const first = Math.floor((cell * count) / cells), last = Math.max(first + 1, Math.floor(((cell + 1) * count) / cells));
      const part = row.values.slice(first, last);
      const value = Math.max(0, ...part);
      const at = level(value);
      if (!at) return null;
      const where = first + part.indexOf(value);
      return s("rect", { class: `fill-${at}`, x: left + cell * step, y: n * height + 3, width: Math.max(0.6, step - 0.4), height: height - 5, on: { click: () => chosen(where) } },
        s("title", {}, `${row.name}: ${number(value)} at token ${where}`));
    }),
  ]));
}

/** Recall against the share of benign texts that fire, on a logarithmic axis, with a mark. `named`: [[name, recalls, point]], where a point is
 * a share and a recall, or nothing; `texts` says what fires, `told` the same to those who cannot see it. */
export function curves(title, rates, named, at, texts = "benign texts that fire", told = null) {
  const top = 10, bottom = 190, left = 44, right = width() - 26;
  const shown = rates.map((rate, i) => [rate, i]).filter(([rate]) => rate > 0);
  const least = Math.log(shown[0][0]);
  const x = (rate) => left + (right - left) * (1 - Math.log(Math.max(rate, shown[0][0])) / least);
  const y = (recall) => bottom - (bottom - top) * recall;
  return frame(title, 226, [
    [0, 0.25, 0.5, 0.75, 1].map((r) => [s("line", { class: "grid", x1: left, x2: right, y1: y(r), y2: y(r) }), s("text", { class: "tick", x: left - 6, y: y(r) + 4, "text-anchor": "end" }, percent(r))]),
    [0.002, 0.01, 0.05, 0.2, 1].map((r) => s("text", { class: "tick", x: x(r), y: bottom + 16, "text-anchor": "middle" }, percent(r, r < 0.01 ? 1 : 0))),
    s("text", { class: "tick", x: (left + right) / 2, y: bottom + 33, "text-anchor": "middle" }, texts),
    named.map(([, values], i) => s("polyline", { class: `line-${i % KINDS}`, points: shown.map(([rate, n]) => `${x(rate).toFixed(1)},${y(values[n]).toFixed(1)}`).join(" ") })),
    at === null ? null : s("line", { class: "mark", x1: x(at), x2: x(at), y1: top, y2: bottom }),
    named.map(([name, , point], i) => (point ? s("circle", { class: `point line-${i % KINDS}`, cx: x(point[0]).toFixed(1), cy: y(point[1]).toFixed(1), r: 3.5 }, s("title", {}, `${name}: ${percent(point[1])} at ${percent(point[0], 1)}`)) : null)),
  ], told);
}

/** Shares over ranges of lengths. `list`: [{name, values}], null where there are no texts; `mark`: a share to show, or null. */
export function byLengths(title, lengths, list, mark) {
  const top = 12, bottom = 150, left = 44, right = width() - 44;
  const most = Math.min(1, 1.1 * Math.max(mark ?? 0, 0.005, ...list.flatMap((one) => one.values)));
  const x = (i) => left + ((right - left) * (i + 0.5)) / lengths.length;
  const y = (share) => bottom - ((bottom - top) * share) / most;
  return frame(title, 186, [
    [0, most].map((share) => [s("line", { class: "grid", x1: left, x2: right, y1: y(share), y2: y(share) }), s("text", { class: "tick", x: left - 6, y: y(share) + 4, "text-anchor": "end" }, percent(share, 1))]),
    lengths.map((name, i) => s("text", { class: "tick", x: x(i), y: bottom + 16, "text-anchor": "middle" }, name)),
    s("text", { class: "tick", x: (left + right) / 2, y: bottom + 32, "text-anchor": "middle" }, "tokens"),
    mark === null ? null : s("line", { class: "mark", x1: left, x2: right, y1: y(mark), y2: y(mark) }),
    list.map((one, i) => {
      const known = one.values.map((share, at) => [x(at), share]).filter(([, share]) => share !== null);
      return [s("polyline", { class: `line-${i % KINDS}`, points: known.map(([at, share]) => `${at.toFixed(1)},${y(share).toFixed(1)}`).join(" ") }),
        known.map(([at, share]) => s("circle", { class: `point line-${i % KINDS}`, cx: at, cy: y(share), r: 3 }, s("title", {}, `${one.name}: ${percent(share, 1)}`)))];
    }),
  ]);
}

/** Where a recall curve stands at a rate, between its points on the logarithmic axis. */
export function recallAt(rates, values, rate) {
  const next = rates.findIndex((one) => one >= rate);
  if (next <= 0) return values[Math.max(0, next)] ?? 0;
  const low = rates[next - 1] || rates[next] / 10, high = rates[next];
  const share = high === low ? 1 : (Math.log(rate) - Math.log(low)) / (Math.log(high) - Math.log(low));
  return values[next - 1] + Math.max(0, Math.min(1, share)) * (values[next] - values[next - 1]);
}

/** Counts by the hour, enforced below and shadow above. */
export function bars(title, hours, counts, now) {
  const top = 10, bottom = 120, left = 36, right = width() - 8;
  const total = (hour, mode) => counts.filter((one) => one.hour === hour && one.mode === mode).reduce((sum, one) => sum + one.count, 0);
  const all = Array.from({ length: hours }, (_, hour) => [total(hour, "enforce"), total(hour, "shadow")]);
  const most = Math.max(1, ...all.map(([a, b]) => a + b));
  const step = (right - left) / hours;
  const height = (count) => ((bottom - top) * count) / most;
  return frame(title, 150, [
    s("line", { class: "grid", x1: left, x2: right, y1: bottom, y2: bottom }),
    s("text", { class: "tick", x: left - 6, y: top + 8, "text-anchor": "end" }, `${most}`),
    all.map(([enforced, shadow], hour) => [
      s("rect", { class: "bar-enforced", x: left + hour * step + 1, y: bottom - height(enforced), width: Math.max(1, step - 2), height: height(enforced) }, s("title", {}, `${enforced} enforced`)),
      s("rect", { class: "bar-shadow", x: left + hour * step + 1, y: bottom - height(enforced + shadow), width: Math.max(1, step - 2), height: height(shadow) }, s("title", {}, `${shadow} in shadow`)),
      hour % Math.ceil(hours / (width() < 640 ? 4 : 8)) === 0 ? s("text", { class: "tick", x: left + (hour + 0.5) * step, y: bottom + 16, "text-anchor": "middle" },
        new Date((now - 3600 * (hours - hour)) * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })) : null,
    ]),
  ]);
}
