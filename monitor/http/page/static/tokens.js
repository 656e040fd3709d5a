// A strip of tokens: shaded, reachable by click and by arrow keys, evidence underlined.

import { h } from "./dom.js";

export const RULE_LEVELS = [1, 2, 4, 8, 12];
export const READING_LEVELS = [0.1, 0.25, 0.4, 0.6, 0.8];

/** Give the scores of tokens the names of the rules that judged them: of later requests other policies may be in force. */
export function named(tokens, rules) {
  for (const token of tokens) token.rules = (token.rules ?? []).map(([rule, share]) => [rules[rule], share]);
  return tokens;
}

/** What tokens are shaded by: all rules, those of one policy, or one feature. */
export const byRules = (policy = "") => ({
  key: policy ? `policy:${policy}` : "rules",
  levels: RULE_LEVELS,
  unit: "of the threshold",
  name: policy ? `policy ${policy}` : "strongest policy",
  of(token) {
    let best = 0;
    for (const [rule, share] of token.rules ?? []) {
      if ((!policy || rule[0] === policy) && share > best) best = share;
    }
    return best;
  },
});

export const byFeature = (feature) => ({
  key: `feature:${feature}`,
  levels: READING_LEVELS,
  unit: "of its maximum",
  name: `feature ${feature}`,
  of(token) {
    const watched = (token.readings ?? []).find((one) => one.feature === feature);
    if (watched) return watched.after ?? watched.reading;
    const found = (token.features ?? []).find(([other]) => other === feature);
    return found ? found[1] : 0;
  },
});

const level = (measure, value) => measure.levels.filter((low) => value >= low).length;
const spelt = (text) => text.replaceAll("\n", "↵\n").replaceAll("\t", "⇥") || "·";

export function legend(measure) {
  return h(
    "p",
    { class: "legend" },
    h("span", {}, `Shaded by ${measure.name}:`),
    measure.levels.map((low, i) => h("span", { class: `swatch heat-${i + 1}` }, `${low}`)),
    h("span", {}, `${measure.unit} · `),
    h("span", { class: "evidence" }, "evidence"),
  );
}

export class TokenStrip {
  /** `chosen(token)` is called when a token is selected. */
  constructor(label, chosen) {
    this.tokens = [];
    this.places = new Map();
    this.chosen = chosen;
    this.measure = null;
    this.evidence = new Set();
    this.element = h("div", {
      class: "strip",
      role: "listbox",
      "aria-label": label,
      "aria-orientation": "horizontal",
      tabindex: -1,
      on: {
        click: (event) => this.picked(event.target.closest("[role=option]")),
        keydown: (event) => this.moved(event),
      },
    });
  }

  add(tokens) {
    for (const token of tokens) {
      const place = h("span", {
        role: "option",
        "aria-selected": "false",
        tabindex: this.places.size ? -1 : 0,
        data: { position: token.position },
        class: token.passed_over ? "token passed" : "token",
      }, spelt(token.text));
      token.element = place;
      this.tokens.push(token);
      this.places.set(token.position, token);
      this.paint(token);
      this.element.append(place);
    }
  }

  shade(measure) {
    this.measure = measure;
    for (const token of this.tokens) this.paint(token);
  }

  mark(positions) {
    for (const position of positions) {
      this.evidence.add(position);
      const token = this.places.get(position);
      if (token) this.paint(token);
    }
  }

  paint(token) {
    const value = this.measure && !token.passed_over ? this.measure.of(token) : 0;
    const at = this.measure ? level(this.measure, value) : 0;
    const place = token.element;
    for (let i = 1; i <= 5; i += 1) place.classList.toggle(`heat-${i}`, i === at);
    place.classList.toggle("evidence", this.evidence.has(token.position));
    place.title = this.measure && !token.passed_over
      ? `token ${token.position}: ${value.toFixed(2)} ${this.measure.unit}`
      : `token ${token.position}: passed over by rules`;
  }

  select(position, focus = false) {
    const token = this.places.get(position);
    if (!token) return false;
    for (const other of this.element.querySelectorAll('[aria-selected="true"]')) {
      other.setAttribute("aria-selected", "false");
      other.tabIndex = -1;
    }
    this.element.querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
    token.element.setAttribute("aria-selected", "true");
    token.element.tabIndex = 0;
    if (focus) token.element.focus();
    this.chosen(token);
    return true;
  }

  deselect() {
    for (const other of this.element.querySelectorAll('[aria-selected="true"]')) other.setAttribute("aria-selected", "false");
  }

  picked(option) {
    if (option) this.select(Number(option.dataset.position), true);
  }

  moved(event) {
    const option = event.target.closest("[role=option]");
    if (!option) return;
    const go = { ArrowRight: "nextElementSibling", ArrowLeft: "previousElementSibling" }[event.key];
    const to = go ? option[go]
      : event.key === "Home" ? this.element.firstElementChild
      : event.key === "End" ? this.element.lastElementChild
      : event.key === "Enter" || event.key === " " ? option : null;
    if (!to) return;
    event.preventDefault();
    this.picked(to);
  }
}
