// What is shown of a token, a verdict and a feature, wherever they stand.

import { brief, briefs } from "./api.js";
import { button, h, number, percent, scroller, several, show } from "./dom.js";

const SHOWN = 8;

export function meter(value, most = 1, label = "") {
  return h("span", { class: "meter", role: "img", "aria-label": label || `${number(value)}` },
    h("span", { vars: { width: `${Math.max(0, Math.min(1, value / most)) * 100}%` } }));
}

export function badge(text, kind = "") {
  return h("span", { class: `badge ${kind}` }, text);
}

export function featureLink(feature) {
  const known = brief(feature);
  return h("a", { href: `#features/${feature}`, class: "feature" },
    h("span", { class: "mono" }, `${feature}`), " ", known?.label || "");
}

const how = { reads: "counts for", explains: "explains", clamps: "clamped by" };

export function counted(known) {
  return (known?.counted_by ?? []).map((one) =>
    badge(`${how[one.how]} ${one.policy}${one.rule ? ` / ${one.rule}` : ""} ${one.how === "clamps" ? "→" : "×"} ${number(one.weight)}`, one.how));
}

/** The panel of one token. `actions(feature)` gives the buttons of a feature's row. */
export async function tokenPanel(panel, token, about, actions) {
  const shares = [...(token.rules ?? [])].sort((a, b) => b[1] - a[1]).slice(0, 5);
  const found = token.features
    ? token.features.slice(0, SHOWN).map(([feature, reading]) => ({ feature, reading }))
    : [...(token.readings ?? [])].sort((a, b) => b.reading - a.reading).slice(0, SHOWN);
  const list = h("ul", { class: "rows" });
  show(panel,
    h("h2", {}, "Token ", h("code", {}, JSON.stringify(token.text))),
    h("p", { class: "muted" }, `position ${token.position}, ${token.phase}${token.passed_over ? "; rules pass over it" : ""}`),
    shares.length ? h("h3", {}, "Near which rules") : null,
    shares.length ? h("ul", { class: "rows" }, shares.map(([rule, share]) => h("li", {},
      h("span", { class: "grow" }, rule.join(" / ")),
      meter(share, 4), h("span", { class: "mono" }, `${number(share)} ×`)))) : null,
    h("h3", {}, token.features ? "Strongest features" : "Watched features that are active"),
    found.length ? list : h("p", { class: "muted" }, "none"),
    token.features ? null : h("p", { class: "muted" }, !about.inspects
      ? "This engine shows the features that policies watch, and no others."
      : about.roles.includes("inspect") ? "All features come with the end of the answer."
      : "All features need the role inspect."),
  );
  const draw = () => show(list, found.map((one) => {
    const known = brief(one.feature);
    const clamped = (token.readings ?? []).find((other) => other.feature === one.feature)?.after;
    return h("li", { class: "stacked" },
      h("div", { class: "line" }, h("span", { class: "grow" }, featureLink(one.feature)),
        meter(one.reading), h("span", { class: "mono" }, number(one.reading)),
        clamped === undefined || clamped === null ? null : h("span", { class: "mono muted", title: "after the clamps" }, `→ ${number(clamped)}`)),
      known?.promoted?.length ? h("div", { class: "chips muted" }, "promotes ",
        known.promoted.slice(0, 5).map((word) => h("code", {}, JSON.stringify(word)))) : null,
      h("div", { class: "chips" }, counted(known)),
      h("div", { class: "chips" }, actions(one.feature)));
  }));
  draw();
  if (about.features !== null && about.roles.includes("inspect")) {
    await briefs(found.map((one) => one.feature)).catch(() => []);
    draw();
  }
}

const WORDS = { allow: "allowed", alert: "alert", suppress: "suppressed", block: "blocked" };

/** A verdict: status, coverage and detections whose evidence is linked. `jump(position)` selects a token. */
export function verdictView(verdict, jump) {
  const { coverage } = verdict;
  const action = verdict.action ?? "allow";
  const run = coverage.tokens_run ?? 0;
  const scored = coverage.tokens_scored ?? 0;
  const found = verdict.detections ?? [];
  return [
    h("p", { class: "line" },
      badge(verdict.status === "checked" ? "checked" : "unknown", verdict.status === "checked" ? "good" : "bad"),
      badge(WORDS[action], action),
      h("span", { class: "muted" }, `${scored} of ${several(run, "token")} scored`),
      verdict.failure ? badge(verdict.failure, "bad") : null),
    coverage.tokens_truncated ? h("p", { class: "muted" }, `${several(coverage.tokens_truncated, "token")} were dropped from the front.`) : null,
    found.length ? h("ul", { class: "rows" }, found.map((one) => detectionView(one, jump)))
      : h("p", { class: "muted" }, "No rule fired."),
    (verdict.suppressions ?? []).map((one) => h("p", { class: "muted" },
      `${one.policy}: ${several(one.tokens_edited, "token")} edited, reading ${number(one.before)} → ${number(one.after)}; ${one.held ? "held" : "did not hold"}`)),
  ];
}

export function detectionView(one, jump) {
  return h("li", { class: "stacked" },
    h("div", { class: "line" }, h("strong", { class: "grow" }, `${one.policy} / ${one.rule}`),
      badge(one.action, one.action), one.mode === "shadow" ? badge("shadow", "shadow") : null, badge(one.severity, `severity-${one.severity}`)),
    h("div", { class: "muted" }, `in the ${one.phase}, at token ${one.position}: `,
      one.conditions?.length
        ? one.conditions.map((part) => `${part.name} ${number(part.score)} of ${number(part.threshold)}`).join(", ")
        : `score ${number(one.score, 3)}, threshold ${number(one.threshold, 3)}`),
    one.evidence?.length ? h("div", { class: "chips" }, "evidence ", one.evidence.map((part) => jump
      ? button(evidenceName(part), () => jump(part.position), { class: "small evidence", title: `token ${part.position}, score ${number(part.score)}` })
      : h("span", { class: "badge", title: `token ${part.position}` }, `${evidenceName(part)} ${number(part.score)}`))) : null);
}

/** A token that a detection rests on: its text; where the log holds none, what its strongest feature is called. */
const evidenceName = (part) => part.text?.trim() || (part.label ? `token ${part.position} (${part.label})` : `token ${part.position}`);

/** What a policy's suppression was measured to do and to cost, by target; or which command measures it. */
export function costView(policy, points) {
  if (!points?.length) {
    return h("p", { class: "muted" }, "What its suppression costs was not measured on this pair. ",
      h("code", {}, `sae-monitor policy cost ${policy} -o OVERLAY/costs`), " measures it.");
  }
  const change = (value) => `${value > 0 ? "+" : ""}${percent(value, 1)}`;
  const moved = (share) => (share === undefined ? "–" : `${share > 0 ? "+" : ""}${(100 * share).toFixed(1)} points`);
  return scroller("What suppression costs", h("table", {},
    h("thead", {}, h("tr", {}, ["held at", "unsafe answers", "minimal pairs", "benign perplexity", "KL, nats per token"].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, [...points].sort((a, b) => b.strength - a.strength).map((one) => h("tr", {}, h("th", { scope: "row", class: "mono" }, `${number(one.strength)} × maximum`),
      h("td", { class: "mono" }, moved(one.change)), h("td", { class: "mono" }, moved(one.right_change)),
      h("td", { class: "mono" }, change(one.perplexity_ratio - 1)), h("td", { class: "mono" }, number(one.kl, 3)))))));
}

export const evidenceOf = (verdict) => (verdict.detections ?? []).flatMap((one) => (one.evidence ?? []).map((part) => part.position));

export function scoresView(verdict) {
  const rows = [...(verdict.scores ?? [])]
    .map((one) => ({ ...one, share: one.threshold > 0 ? one.score / one.threshold : one.score >= one.threshold ? 1 : 0 }))
    .sort((a, b) => b.share - a.share).slice(0, 8);
  if (!rows.length) return null;
  return h("details", {}, h("summary", {}, "How far every rule came"),
    h("ul", { class: "rows" }, rows.map((one) => h("li", {},
      h("span", { class: "grow" }, `${one.policy} / ${one.rule} (${one.phase})`),
      meter(one.share), h("span", { class: "mono" }, percent(Math.max(0, one.share)))))));
}
