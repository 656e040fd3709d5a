// Policies: what each looks for, how well it was measured, what it did lately, and drafts.

import { get, post } from "./api.js";
import { bars, curves, key, recallAt } from "./charts.js";
import { button, failed, field, h, number, percent, reveal, say, scroller, select, several, show } from "./dom.js";
import { DRAWN, METHODS, evaluationCard } from "./evaluation.js";
import { badge, costView, featureLink } from "./readings.js";

const BLANK = `apiVersion: monitor/v1
metadata:
  name: my-policy
  title: My policy
  category: custom
  severity: low
  description: What it looks for.
features:
  - {index: 0, weight: 1.0}
rules:
  - name: read
    threshold: 0.5
    action: alert
    mode: shadow
`;

export class PoliciesView {
  constructor(about) {
    this.about = about;
    this.list = h("ul", { class: "rows" });
    this.detail = h("div", { class: "stack detail" });
    this.activity = h("section", { class: "card" });
    this.element = h("div", { class: "two wide" },
      h("div", { class: "stack" }, h("h1", {}, "Policies"), h("section", { class: "card" }, h("h2", {}, "In force"), this.list), this.activity,
        h("section", { class: "card" }, h("h2", {}, "Drafts"), this.drafts = h("ul", { class: "rows" }), button("Write a policy", () => this.edit("my-policy", BLANK)))),
      this.detail);
    this.named();
    this.hours = 6;
  }

  named() {
    show(this.list, this.about.policies.map((one) => h("li", {}, h("a", { class: "grow", href: `#policies/${one.name}` }, one.title),
      one.enforced ? null : badge("shadow", "shadow"), badge(one.maturity), badge(one.severity, `severity-${one.severity}`))));
  }

  async opened() {
    this.watch();
    try {
      Object.assign(this.about, await get("/api/about"));  // others may be in force by now
      this.named();
      const { drafts } = await get("/api/drafts");
      show(this.drafts, drafts.length ? drafts.map((name) => h("li", {}, h("a", { href: `#policies/${name}` }, name))) : h("li", { class: "muted" }, this.about.saves ? "none saved yet" : "Drafts can be saved where the operator sets page_overlay."));
    } catch (error) {
      show(this.drafts, h("li", {}, failed(error)));
    }
  }

  async open(name) {
    if (!name) return;
    reveal(show(this.detail, h("p", { class: "muted" }, "loading …")));
    try {
      this.draw(await get(`/api/policies/${encodeURIComponent(name)}`));
    } catch (error) {
      show(this.detail, failed(error));
    }
  }

  async watch() {
    const { about } = this;
    const head = [h("h2", {}, "Lately"), field("Detections of the last", select([["6", "6 hours"], ["24", "24 hours"], ["168", "7 days"]], String(this.hours), (value) => {
      this.hours = Number(value);
      this.watch();
    }))];
    if (!about.roles.includes("inspect") || !about.log.kept) {
      show(this.activity, head[0], h("p", { class: "muted" }, about.log.kept ? "Seeing detections needs the role inspect." : "No decision log is kept (decision_log)."));
      return;
    }
    try {
      const { counts, hours, now } = await get(`/api/alerts/activity?hours=${this.hours}`);
      const by = new Map();
      for (const one of counts) {
        const held = by.get(one.policy) ?? { enforce: 0, shadow: 0 };
        held[one.mode] += one.count;
        by.set(one.policy, held);
      }
      show(this.activity, head, counts.length ? [bars(`Detections by the hour, last ${hours} hours`, hours, counts, now),
        h("p", { class: "legend" }, h("span", { class: "swatch bar-enforced" }, " "), h("span", {}, "enforced"), h("span", { class: "swatch bar-shadow" }, " "), h("span", {}, "shadow")),
        scroller("Detections by policy", h("table", {}, h("thead", {}, h("tr", {}, ["policy", "enforced", "shadow"].map((name) => h("th", { scope: "col" }, name)))),
          h("tbody", {}, [...by].sort((a, b) => b[1].enforce + b[1].shadow - a[1].enforce - a[1].shadow).map(([name, held]) => h("tr", {}, h("td", {}, h("a", { href: `#policies/${name}` }, name)), h("td", { class: "mono" }, held.enforce), h("td", { class: "mono" }, held.shadow))))))]
        : h("p", { class: "muted" }, "Nothing was detected."));
    } catch (error) {
      show(this.activity, head, failed(error));
    }
  }

  draw(one) {
    const { policy } = one;
    show(this.detail,
      h("section", { class: "card" }, h("h2", {}, policy?.title ?? one.name, " ", one.draft ? badge("saved draft") : null),
        policy ? [h("p", { class: "line wrap" }, badge(policy.category), badge(policy.severity, `severity-${policy.severity}`), badge(policy.maturity), policy.enforced ? badge("enforced", "good") : badge("shadow", "shadow"),
          h("span", { class: "muted" }, policy.closed ? "blocks what could not be scored" : "lets pass what could not be scored")),
        h("p", {}, policy.description), policy.note ? h("p", { class: "note" }, policy.note) : null] : h("p", { class: "muted" }, "It is not in force."),
        one.false_positives.length ? [h("h3", {}, "Known false positives"), h("ul", {}, one.false_positives.map((text) => h("li", {}, text)))] : null),
      policy ? this.rules(policy, one.lock) : null,
      policy?.clamps.length ? h("section", { class: "card" }, h("h2", {}, "What suppression costs"), costView(one.name, one.costs)) : null,
      one.lock?.card ? this.card(policy, one.lock) : policy ? h("p", { class: "muted" }, "Its lock has no card: nothing was measured.") : null,
      one.evaluation || policy ? evaluationCard(one.evaluation) : null,
      one.beneath ? h("section", { class: "card" }, h("details", {}, h("summary", {}, "As the folder of the policies has it"), h("pre", { class: "mono", tabindex: 0 }, one.beneath))) : null,
      this.editor(one.name, one.text, one.draft));
  }

  rules(policy, lock) {
    return h("section", { class: "card" }, h("h2", {}, "Rules"), scroller("Rules", h("table", {},
      h("thead", {}, h("tr", {}, ["rule", "phases", "action", "reads", "threshold by tokens", "benign texts that fire", "caught"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, policy.rules.map((rule) => {
        const held = lock?.rules[rule.name];
        return h("tr", {}, h("th", { scope: "row" }, rule.name), h("td", {}, rule.phases.join(", ")), h("td", {}, badge(rule.action, rule.action), rule.shadow ? badge("shadow", "shadow") : null), h("td", {}, rule.reads),
          h("td", { class: "mono" }, rule.lengths.length > 1 ? rule.lengths.map(([upTo, value]) => `${number(value, 3)} ${upTo === null ? "beyond" : `to ${upTo}`}`).join(", ") : number(rule.threshold, 3)),
          h("td", { class: "mono" }, rule.benign_rate === null ? "–" : `${percent(rule.benign_rate, 1)}${held ? ` of ${held.benign_texts}` : ""}`),
          h("td", { class: "mono" }, held?.caught === null || held?.caught === undefined ? "–" : percent(held.caught)));
      })))),
    h("details", {}, h("summary", {}, "Features"), h("ul", { class: "rows" }, policy.rules.flatMap((rule) => rule.features).slice(0, 40).map(([feature, weight]) => h("li", {}, h("span", { class: "grow" }, featureLink(feature)), h("span", { class: "mono" }, `× ${number(weight, 3)}`))))),
    policy.clamps.length ? h("p", { class: "muted" }, `Suppression holds ${several(policy.clamps.length, "feature")} at ${number(policy.clamps[0].target)} of their maxima, ${policy.clamps_always ? "always" : "once a rule has fired"}.`) : null);
  }

  card(policy, lock) {
    const { card, rates } = lock;
    const named = DRAWN.filter((name) => card.curves[name]).map((name) => [METHODS[name], card.curves[name]]);
    const chart = h("div");
    const told = h("p", { "aria-live": "polite" });
    const stands = h("ul", { class: "rows", "aria-live": "polite" });
    const asked = Object.values(lock.rules)[0]?.asked_rate ?? 0.01;
    const steps = rates.filter((rate) => rate > 0);
    const range = h("input", { type: "range", min: 0, max: 100, step: 0.1, on: { input: () => move() } });
    const [low, high] = [Math.log(steps[0]), Math.log(0.5)];
    range.value = (100 * (Math.log(asked) - low)) / (high - low);
    const move = () => {
      const shown = Math.exp(low + ((high - low) * Number(range.value)) / 100);
      const rate = Math.abs(Math.log(shown / asked)) < 0.01 ? asked : shown;  // the range has steps
      const recall = recallAt(rates, card.curves.policy, rate);
      range.setAttribute("aria-valuetext", percent(rate, 1));
      told.textContent = `Where ${percent(rate, 1)} of benign texts fire (${Math.round(10000 * rate)} of 10,000), ${percent(recall)} of the held-out positives are caught; as written it asks for ${percent(asked, 1)}, which catches ${percent(recallAt(rates, card.curves.policy, asked))}.`;
      show(stands, thresholdsAt(policy, lock, rate, asked));
      show(chart, curves("Recall against false positives", rates, named, rate));
    };
    if (card.curves.policy) move();
    return h("section", { class: "card" }, h("h2", {}, "What was measured"),
      h("p", { class: "muted" }, `Cross-validation over ${several(card.groups, "group")} of its own examples: ${card.positive} positive, ${card.negative} negative, ${card.hard_negative} look-alikes. Fires by topic alone on ${percent(card.negative_rate)} of its negatives.`),
      card.curves.policy ? [field("False-positive rate", range), told, stands, chart, key(named.map(([name]) => name))] : null,
      scroller("Methods beside each other", h("table", {}, h("thead", {}, h("tr", {}, ["method", "AUROC", "recall at 1 %", "look-alikes, AUROC"].map((name) => h("th", { scope: "col" }, name)))),
        h("tbody", {}, Object.entries(card.methods).map(([name, one]) => h("tr", {}, h("th", { scope: "row" }, METHODS[name] ?? name), h("td", { class: "mono" }, `${number(one.auroc)} (${number(one.auroc_low)}–${number(one.auroc_high)})`), h("td", { class: "mono" }, `${percent(one.recall)} (${percent(one.recall_low)}–${percent(one.recall_high)})`), h("td", { class: "mono" }, one.hard_auroc === null ? "–" : number(one.hard_auroc))))))));
  }

  edit(name, text) {
    show(this.detail, this.editor(name, text, true));
    this.detail.querySelector("textarea").focus();
  }

  editor(name, text, draft) {
    const { about } = this;
    if (!about.roles.includes("inspect")) return h("section", { class: "card" }, h("h2", {}, draft ? "As it was saved here" : "As written"), h("pre", { class: "mono", tabindex: 0 }, text));
    return new Editor(about, name, text, () => this.opened()).element;
  }
}

const byLength = (lengths, times) => lengths.map(([upTo, value]) => `${number(value * times, 4)}${lengths.length > 1 ? ` ${upTo === null ? "beyond" : `to ${upTo} tokens`}` : ""}`).join(", ");

/** The thresholds that a false-positive rate stands for: those that catch as many of the held-out positives. */
function thresholdsAt(policy, lock, rate, asked) {
  const { rates, card } = lock;
  return (policy?.rules ?? []).filter((rule) => lock.rules[rule.name]).map((rule) => {
    const { multiples, caught } = lock.rules[rule.name];
    const lengths = rule.lengths.length ? rule.lengths : [[null, rule.threshold]];
    const head = h("span", { class: "grow" }, `Threshold of ${rule.name}`);
    if (rate === asked) return h("li", {}, head, h("span", { class: "mono" }, `${byLength(lengths, 1)}, as written`));
    if (!multiples?.length || caught === null) return h("li", {}, head, h("span", { class: "muted" }, `${byLength(lengths, 1)} as written; for other rates its lock lacks the scores that policy fit writes into it`));
    const wanted = caught + recallAt(rates, card.curves.policy, rate) - recallAt(rates, card.curves.policy, asked);
    const times = multiples[Math.max(0, Math.min(multiples.length - 1, Math.round((1 - wanted) * multiples.length)))];
    return h("li", {}, head, h("span", { class: "mono" }, `about ${byLength(lengths, times)} (× ${number(times)})`));
  });
}

/** What `metadata.name` says in a policy's text, which need not be right yet; other names may stand before it. */
function nameIn(text) {
  const within = text.match(/^metadata:(.*(?:\n(?:[ \t].*|[ \t]*(?:#.*)?))*)/m)?.[1] ?? "";
  return within.match(/(?:^|[{,])\s*["']?name["']?\s*:\s*["']?([a-z0-9-]+)/m)?.[1] ?? "draft";
}

/** A policy's text with line numbers, its problems at their lines, and texts to try it on. */
class Editor {
  constructor(about, name, text, saved) {
    this.saved = saved;
    this.area = h("textarea", { class: "code mono", spellcheck: "false", wrap: "off", rows: Math.min(34, Math.max(14, text.split("\n").length + 1)), value: text, on: {
      input: () => this.typed(),
      scroll: () => (this.gutter.scrollTop = this.area.scrollTop),
    } });
    this.gutter = h("div", { class: "gutter mono", "aria-hidden": "true" });
    this.problems = h("ul", { class: "rows" });
    this.texts = h("textarea", { rows: 3, placeholder: "one text in each line" });
    this.phase = select([["prompt", "what a user says"], ["response", "what the model says"]], "prompt", () => {});
    this.results = h("div", { "aria-live": "polite" });
    this.told = h("p", { role: "status", class: "muted" });
    const may = about.saves && about.roles.includes("admin");
    this.element = h("section", { class: "card" }, h("h2", {}, `Edit a draft of ${name}`),
      h("div", { class: "editor" }, this.gutter, h("div", { class: "field grow" }, this.label(name), this.area)), h("div", { role: "status" }, this.problems),
      h("div", { class: "line wrap" }, button("Check", () => this.check()),
        may ? button("Save draft", () => this.save(), { class: "primary" }) : h("span", { class: "muted" }, about.saves ? "Saving needs the role admin." : "Saving needs the operator's page_overlay.")), this.told,
      h("h3", {}, "Try it on texts"), field("Texts", this.texts), h("div", { class: "line wrap" }, field("Read as", this.phase), button("Try", () => this.attempt())), this.results);
    this.numbers([]);
  }

  label(name) {
    this.area.id = `draft-${name}`;
    return h("label", { for: this.area.id }, "Policy");
  }

  get name() {
    return nameIn(this.area.value);
  }

  typed() {
    this.numbers([]);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.check(), 600);
  }

  numbers(problems) {
    const wrong = new Map(problems.map((one) => [one.line, one.message]));
    show(this.gutter, this.area.value.split("\n").map((_, i) => h("div", { class: wrong.has(i + 1) ? "wrong" : "", title: wrong.get(i + 1) }, i + 1)));
  }

  list(problems) {
    const own = `${this.name}.yaml`;
    this.numbers(problems.filter((one) => one.file === own));
    show(this.problems, problems.length ? problems.map((one) => h("li", { class: "stacked" },
      one.file === own ? button(`line ${one.line}, column ${one.column}`, () => this.go(one), { class: "small" }) : h("span", {}, `${one.file}, line ${one.line}`),
      h("div", { class: "problem" }, one.message), one.hint ? h("div", { class: "muted" }, one.hint) : null)) : h("li", { class: "good" }, "No problems."));
  }

  go({ line, column }) {
    const before = this.area.value.split("\n").slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
    this.area.focus();
    this.area.setSelectionRange(before + column - 1, before + column - 1);
  }

  async ask(path, more = {}) {
    return post(path, { name: this.name, text: this.area.value, ...more });
  }

  async check() {
    try {
      this.list((await this.ask("/api/drafts/check")).problems);
    } catch (error) {
      show(this.problems, h("li", {}, failed(error)));
    }
  }

  async save() {
    try {
      const done = await this.ask("/api/drafts/save");
      this.list(done.problems);
      this.told.textContent = done.saved ? `Saved as ${done.file}. The policies in force stay as they are.` : "Not saved: it has problems.";
      if (done.saved) this.saved();
    } catch (error) {
      show(this.told, failed(error));
    }
  }

  async attempt() {
    const texts = this.texts.value.split("\n").map((line) => line.trim()).filter(Boolean);
    show(this.results, h("p", { class: "muted" }, "reading …"));
    try {
      const { problems, results } = await this.ask("/api/drafts/try", { texts, phase: this.phase.value });
      if (problems.length) this.list(problems);
      show(this.results, results.length ? scroller("Results on the texts", h("table", {}, h("thead", {}, h("tr", {}, ["text", "rule", "score", "threshold", "", "tokens"].map((name) => h("th", { scope: "col" }, name)))),
        h("tbody", {}, results.flatMap((one) => one.rules.map((rule) => h("tr", {}, h("td", {}, one.text.slice(0, 60)), h("td", {}, rule.rule), h("td", { class: "mono" }, rule.score === null ? "–" : number(rule.score, 3)), h("td", { class: "mono" }, number(rule.threshold, 3)), h("td", {}, rule.fired ? badge(rule.action, rule.action) : badge("quiet")),
          h("td", { class: "mono muted" }, rule.tokens.slice(0, 3).map((token) => token.text.trim()).join(" · ")))))))) : h("p", { class: "muted" }, "Nothing was read: it has problems."));
      say("texts were read");
    } catch (error) {
      show(this.results, failed(error));
    }
  }
}
