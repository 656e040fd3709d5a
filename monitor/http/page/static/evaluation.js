// What was measured of a policy on unseen texts: on each labelled source, and on benign texts by length.

import { byLengths, curves, key } from "./charts.js";
import { field, h, number, percent, scroller, select, show } from "./dom.js";
import { meter } from "./readings.js";

export const METHODS = { policy: "this policy", features: "features", combined: "features and probe", probe: "probe, per token", linear_probe: "linear probe", difference_of_means: "difference of means", bag_of_words: "bag of words", random_features: "random features" };
/** The methods that a chart shows beside each other. */
export const DRAWN = ["policy", "probe", "features", "bag_of_words", "random_features"];
/** Lines in one chart, which are as many as the style sheet can tell apart. */
const LINES = 6;
const AGAINST = {
  curves: ["benign requests", "benign requests that fire"],
  own_curves: ["the source's own negatives", "negatives of the source that fire"],
};
const COMMAND = "sae-monitor policy evaluate POLICIES --data DATA --json -o OVERLAY/evaluation.json";

const head = (...names) => h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name))));

/** The card of an evaluation, or what makes one where there is none. */
export function evaluationCard(found) {
  if (!found) return h("section", { class: "card" }, h("h2", {}, "On unseen texts"), h("p", { class: "muted" }, "Results by source and by length were not measured on this pair. ", h("code", {}, COMMAND), " measures them."));
  const { sources, rates, same, pair } = found;
  return h("section", { class: "card" }, h("h2", {}, "On unseen texts"),
    pair ? h("p", { class: "muted" }, `Measured on the pair ${pair}.`) : null,
    same ? null : h("p", { class: "warning" }, "Measured under other policies than those in force."),
    sources.length ? [h("h3", {}, "By source"), bySource(sources), drawnBySource(found)] : null,
    rates.length ? [h("h3", {}, "Benign texts that fire, by length in tokens"), drawnByLength(rates), byLength(rates)] : null);
}

function bySource(sources) {
  return scroller("Results by source", h("table", { class: "figures" }, head("source", "texts", "AUROC", "caught", "benign that fire"),
    h("tbody", {}, sources.map((one) => h("tr", {}, h("th", { scope: "row" }, one.source), h("td", { class: "mono" }, `${one.positive} / ${one.negative}`),
      h("td", { class: "mono" }, one.negative ? `${number(one.methods.policy?.auroc)} (${number(one.methods.policy?.auroc_low)}–${number(one.methods.policy?.auroc_high)})` : "–"),
      h("td", { class: "mono" }, meter(one.caught), " ", percent(one.caught)), h("td", { class: "mono" }, one.fired === null ? "–" : percent(one.fired, 1)))))));
}

/** Recall on each source against the share of benign texts that fire; or on one source, beside the baselines. */
function drawnBySource({ sources, rates, curve_rates: steps }) {
  if (!sources.some((one) => one.curves?.policy?.length)) {
    return h("p", { class: "muted" }, "These results hold no curves by source. ", h("code", {}, COMMAND), " of this version measures them.");
  }
  const drawn = h("div");
  let chosen = "", against = "curves";
  const redraw = () => show(drawn, (chosen === "" ? ofPolicy(sources, rates, steps, against) : ofMethods(sources[Number(chosen)], steps, against)));
  const many = new Set(sources.map((one) => one.rule)).size > 1;
  const lines = [["", "this policy on every source"], ...sources.map((one, i) => [String(i), `methods on ${named(one, many)}`])];
  const kinds = Object.entries(AGAINST).filter(([kind]) => sources.some((one) => one[kind]?.policy?.length)).map(([kind, [name]]) => [kind, name]);
  redraw();
  return [h("h3", {}, "Recall by source"),
    h("div", { class: "line wrap" },
      field("Curves of", select(lines, chosen, (value) => { chosen = value; redraw(); })),
      field("False positives among", select(kinds, against, (value) => { against = value; redraw(); }))),
    drawn];
}

const named = (one, many) => (many && one.rule ? `${one.source}, ${one.rule}` : one.source);

/** Of a policy, a chart for so many sources as can be told apart, a point where its own thresholds stand, and a table. */
function ofPolicy(sources, rates, steps, against) {
  const many = new Set(sources.map((one) => one.rule)).size > 1;
  const list = sources.filter((one) => one[against]?.policy?.length).map((one) => ({ name: named(one, many), values: one[against].policy, point: standing(one, rates, against) }));
  const parts = Math.ceil(list.length / LINES), each = Math.ceil(list.length / parts);
  const charts = Array.from({ length: parts }, (_, n) => list.slice(n * each, (n + 1) * each)).map((part, n) => {
    const title = `Recall by source against ${AGAINST[against][1]}${parts > 1 ? `, ${n + 1} of ${parts}` : ""}`;
    return [chart(title, part, steps, against), key(part.map((one) => one.name))];
  });
  return [charts, h("p", { class: "muted" }, "Points: what the policy catches with its own thresholds, which go with a text's length."), asTable("source", list, steps, against)];
}

/** On one source, this policy beside what else could be done. */
function ofMethods(source, steps, against) {
  const list = [...DRAWN, "linear_probe"].filter((name) => source[against]?.[name]?.length).map((name) => ({ name: METHODS[name], values: source[against][name] }));
  if (!list.length) return h("p", { class: "muted" }, `${source.source} has no negatives of its own.`);
  return [chart(`Recall of methods on ${source.source} against ${AGAINST[against][1]}`, list, steps, against), key(list.map((one) => one.name)), asTable("method", list, steps, against)];
}

function chart(title, list, steps, against) {
  const at = steps.indexOf(0.01);
  const told = `Where 1 % fire: ${list.map((one) => `${one.name} ${percent(one.values[at])}`).join(", ")}.`;
  return curves(title, steps, list.map((one) => [one.name, one.values, one.point]), 0.01, AGAINST[against][1], told);
}

/** The share of benign texts that fire with a policy's own thresholds, and its recall; null where that was not counted. */
function standing(one, rates, against) {
  if (against === "own_curves") return one.fired === null ? null : [one.fired, one.caught];
  const asked = rates.filter((rate) => rate.kind === "requests" && rate.rule === one.rule);
  const texts = asked.reduce((sum, rate) => sum + rate.texts, 0);
  return texts ? [asked.reduce((sum, rate) => sum + rate.fired, 0) / texts, one.caught] : null;
}

function asTable(what, list, steps, against) {
  const shown = steps.map((rate, i) => [rate, i]).filter(([rate]) => rate > 0 && rate < 1);
  return h("details", {}, h("summary", {}, "As a table"), scroller("Recall by source, as a table", h("table", { class: "figures" }, h("caption", {}, `Recall by ${AGAINST[against][1]}`),
    head(what, ...shown.map(([rate]) => percent(rate, rate < 0.01 ? 1 : 0)), "as it runs"),
    h("tbody", {}, list.map((one) => h("tr", {}, h("th", { scope: "row" }, one.name), shown.map(([, i]) => h("td", { class: "mono" }, percent(one.values[i]))),
      h("td", { class: "mono" }, one.point ? `${percent(one.point[1])} at ${percent(one.point[0], 1)}` : "–")))))));
}

const lengthsOf = (one) => `${one.longer_than + 1} ${one.up_to === null ? "and more" : `to ${one.up_to}`}`;

function byLength(rates) {
  return scroller("Benign texts by length", h("table", { class: "figures" }, head("rule", "texts from", "tokens", "fire", "asked for"),
    h("tbody", {}, rates.map((one) => h("tr", {}, h("th", { scope: "row" }, one.rule), h("td", {}, one.source), h("td", { class: "mono" }, lengthsOf(one)),
      h("td", { class: "mono" }, one.texts ? `${percent(one.fired / one.texts, 1)} (${percent(one.interval[0], 1)}–${percent(one.interval[1], 1)}) of ${one.texts}` : "–"),
      h("td", { class: "mono" }, one.asked === null ? "–" : percent(one.asked, 1)))))));
}

/** Of the sources with most texts, how the share of benign texts that fire goes with their length. */
function drawnByLength(rates) {
  const ranges = [...new Map(rates.map((one) => [one.longer_than, lengthsOf(one)])).entries()].sort(([a], [b]) => a - b);
  const groups = Map.groupBy(rates, (one) => `${one.rule}, ${one.source}`);
  const lines = [...groups].map(([name, rows]) => ({
    name,
    texts: rows.reduce((sum, one) => sum + one.texts, 0),
    values: ranges.map(([from]) => rows.find((one) => one.longer_than === from && one.texts)).map((one) => (one ? one.fired / one.texts : null)),
  })).filter((one) => one.texts).sort((a, b) => b.texts - a.texts).slice(0, LINES);
  if (!lines.length) return null;
  return [byLengths("Benign texts that fire, by length and source", ranges.map(([, name]) => name), lines, rates[0].asked), key(lines.map((one) => one.name))];
}
