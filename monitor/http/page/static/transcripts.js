// Transcripts: texts and conversations are read; what fires where, as lines, heat and shaded tokens.

import { post } from "./api.js";
import { heat, key, lines } from "./charts.js";
import { button, download, failed, field, h, number, say, scroller, select, several, show } from "./dom.js";
import { finder } from "./finder.js";
import { badge, evidenceOf, scoresView, tokenPanel, verdictView } from "./readings.js";
import { byFeature, byRules, legend, named, READING_LEVELS, RULE_LEVELS, TokenStrip } from "./tokens.js";

const MOST = 200;
const DRAWN = 6;

/** What a person pasted or dropped: JSON, JSON lines, or a text. */
export function parsed(text) {
  const trimmed = text.trim();
  if (!trimmed) return [];
  const whole = json(trimmed);
  if (whole !== undefined) return (Array.isArray(whole) && whole.every((one) => one?.role) ? [{ messages: whole }] : [whole].flat()).map(row);
  const rows = trimmed.split("\n").filter((line) => line.trim());
  const read = rows.map(json);
  if (read.some((one) => one !== undefined)) {
    return read.map((one, i) => {
      if (one === undefined) throw new Error(`line ${i + 1} is not JSON`);
      return row(one, i);
    });
  }
  return [{ text: trimmed }];
}

function json(text) {
  try {
    const found = JSON.parse(text);
    return typeof found === "object" && found !== null ? found : undefined;
  } catch {
    return undefined;
  }
}

function row(one, i) {
  const messages = one.messages ?? one.conversation ?? one.conversations?.map((turn) => ({ role: { human: "user", gpt: "assistant" }[turn.from] ?? turn.from, content: turn.value }));
  if (Array.isArray(messages)) return { messages: messages.map(({ role, content }) => ({ role, content })) };
  if (typeof one.prompt === "string" && typeof (one.response ?? one.completion) === "string") {
    return { messages: [{ role: "user", content: one.prompt }, { role: "assistant", content: one.response ?? one.completion }] };
  }
  if (typeof one.text === "string") return { text: one.text };
  throw new Error(`entry ${i + 1} has neither messages nor text`);
}

export class TranscriptsView {
  constructor(about) {
    this.about = about;
    this.read = [];
    this.features = [];
    this.measure = byRules();
    this.area = h("textarea", { rows: 8, placeholder: '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}\nor plain text' });
    this.file = h("input", { type: "file", accept: ".json,.jsonl,.txt", on: { change: () => this.dropped(this.file.files) } });
    this.list = h("ol", { class: "rows transcripts" });
    this.state = h("p", { class: "muted", role: "status" });
    this.detail = h("div", { class: "stack" });
    this.tokenCard = h("section", { class: "card", "aria-label": "Token", hidden: true });
    const form = h("form", { class: "card drop", on: {
      submit: (event) => {
        event.preventDefault();
        this.start();
      },
      dragover: (event) => event.preventDefault(),
      drop: (event) => {
        event.preventDefault();
        this.dropped(event.dataTransfer.files);
      },
    } }, field("Paste a conversation, JSON lines or a text; or drop a file", this.area, "Each line of a JSONL file is read as one transcript. Nothing is generated."),
    h("div", { class: "line wrap" }, h("button", { class: "primary" }, "Read"), field("File", this.file)), this.state);
    this.exporter = button("Export readings (JSONL)", () => this.exported(), { hidden: true });
    this.element = h("div", { class: "two wide" },
      h("div", { class: "stack" }, h("h1", {}, "Transcripts"), form, this.exporter, this.list, this.tokenCard), this.detail);
    if (!about.roles.includes("infer")) show(this.state, "Reading transcripts needs the role infer.");
  }

  async dropped(files) {
    const texts = await Promise.all([...files].map((file) => file.text()));
    this.area.value = texts.join("\n");
    this.start();
  }

  async start() {
    let asked;
    try {
      asked = parsed(this.area.value);
    } catch (error) {
      show(this.state, failed(error));
      return;
    }
    const mine = (this.turn = (this.turn ?? 0) + 1);
    const left = asked.length - MOST;
    asked = asked.slice(0, MOST);
    this.read = [];
    show(this.list);
    for (const [i, one] of asked.entries()) {
      this.state.textContent = `reading ${i + 1} of ${asked.length} …`;
      try {
        const found = await post("/api/transcript", one);
        if (mine !== this.turn) return;
        this.add(one, found);
      } catch (error) {
        if (mine !== this.turn) return;
        this.list.append(h("li", {}, failed(error)));
        if ([0, 401, 403].includes(error.status)) break;
      }
      if (i === 0 && this.read.length) this.open(0);
    }
    const found = this.read.filter((one) => one.found.verdict.detections?.length).length;
    this.state.textContent = `${several(this.read.length, "transcript")} read, rules fired on ${found}.${left > 0 ? ` ${left} more were left out; at most ${MOST} are read at once.` : ""}`;
    say(this.state.textContent);
    this.exporter.hidden = !this.read.length;
  }

  add(asked, found) {
    const at = this.read.length;
    named(found.tokens, found.rules);
    this.read.push({ asked, found });
    const first = asked.text ?? asked.messages[0].content;
    const action = found.verdict.action ?? "allow";
    this.list.append(h("li", {}, button([h("span", { class: "grow" }, first.slice(0, 70)), badge(found.verdict.status === "checked" ? action : "unknown", found.verdict.status === "checked" ? action : "bad")], () => this.open(at), { class: "row line" })));
  }

  open(at) {
    this.at = at;
    const { found } = this.read[at];
    found.tokens.forEach((token, i) => (token.features = found.features?.[i]));
    this.draw();
  }

  shadeBy(measure) {
    this.measure = measure;
    this.draw();
  }

  draw() {
    const { found } = this.read[this.at];
    const strip = new TokenStrip("Tokens of the transcript", (token) => this.chose(token));
    strip.shade(this.measure);
    strip.add(found.tokens);
    strip.mark(evidenceOf(found.verdict));
    this.strip = strip;
    const jump = (position) => strip.select(position, true);
    const rules = found.rules.map((rule) => ({ name: rule.join(" / "), values: found.tokens.map((token) => token.rules.find(([one]) => one === rule)?.[1] ?? 0) }))
      .map((one) => ({ ...one, most: Math.max(0, ...one.values) })).filter((one) => one.most > 0).sort((a, b) => b.most - a.most);
    const chosen = this.features.map((feature) => ({ name: `feature ${feature}`, values: found.tokens.map((token) => byFeature(feature).of(token)) }));
    const options = [["rules", "strongest policy"], ...this.about.policies.map((one) => [`policy:${one.name}`, one.title])];
    if (this.measure.key.startsWith("feature:")) options.push([this.measure.key, this.measure.name]);
    show(this.detail,
      h("section", { class: "card" }, h("h2", {}, `Transcript ${this.at + 1}`), verdictView(found.verdict, jump), scoresView(found.verdict)),
      h("section", { class: "card" }, h("h2", {}, "Policies over tokens"),
        h("p", { class: "muted" }, "Each token's own score as a multiple of its rule's threshold. Rules pool these before they fire."),
        rules.length ? [lines("Scores of rules over tokens", rules.slice(0, DRAWN), found.tokens.length, found.turns, 1), key(rules.slice(0, DRAWN).map((one) => one.name)),
          heat("Scores of rules, as heat", rules.slice(0, 12), found.tokens.length, RULE_LEVELS, jump)] : h("p", { class: "muted" }, "No token scores for any rule."),
        turnTable("Highest score of each turn", found, rules.slice(0, DRAWN))),
      h("section", { class: "card" }, h("h2", {}, "Features over tokens"),
        found.features ? finder("Add a feature", ({ feature }) => {
          this.features = [...new Set([...this.features, feature])];
          this.draw();
        }) : h("p", { class: "muted" }, !this.about.inspects ? "This engine shows the features that policies watch, and no others." : "All features need the role inspect."),
        chosen.length ? [lines("Readings of features over tokens", chosen.slice(0, DRAWN), found.tokens.length, found.turns, 1), key(chosen.slice(0, DRAWN).map((one) => one.name)),
          heat("Readings of features, as heat", chosen, found.tokens.length, READING_LEVELS, jump), turnTable("Highest reading of each turn", found, chosen)] : null,
        h("div", { class: "chips" }, this.features.map((feature) => button(`Remove ${feature}`, () => {
          this.features = this.features.filter((one) => one !== feature);
          this.draw();
        }, { class: "small" })))),
      h("section", { class: "card" }, h("h2", {}, "Tokens"),
        field("Shade tokens by", select(options, this.measure.key, (name) => this.shadeBy(name.startsWith("policy:") ? byRules(name.slice(7)) : name === "rules" ? byRules() : this.measure))),
        legend(this.measure), strip.element));
  }

  chose(token) {
    this.tokenCard.hidden = false;
    tokenPanel(this.tokenCard, token, this.about, (feature) => [
      button("Shade by it", () => this.shadeBy(byFeature(feature)), { class: "small" }),
      button("Add to the chart", () => {
        this.features = [...new Set([...this.features, feature])];
        this.draw();
      }, { class: "small" })]);
  }

  exported() {
    const rows = this.read.map(({ asked, found }) => JSON.stringify({
      ...asked,
      verdict: found.verdict,
      turns: found.turns,
      rules: found.rules.map((one) => one.join("/")),
      tokens: found.tokens.map(({ position, text, phase, readings, rules, passed_over: passed }, i) => ({ position, text, phase, readings: readings ?? [], shares: rules.map(([rule, share]) => [found.rules.indexOf(rule), share]), passed_over: passed ?? false, ...(found.features ? { features: found.features[i] } : {}) })),
    }));
    download("readings.jsonl", `${rows.join("\n")}\n`, "application/jsonl");
  }
}

/** Of rules, or of features: [{name, values}]. */
function turnTable(title, found, rows) {
  if (!found.turns.length || !rows.length) return null;
  const ends = [...found.turns.slice(1).map((one) => one.start), found.tokens.length];
  return h("details", {}, h("summary", {}, title), scroller(title, h("table", {},
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "turn"), rows.map((one) => h("th", { scope: "col" }, one.name)))),
    h("tbody", {}, found.turns.map((turn, i) => h("tr", {}, h("th", { scope: "row" }, `${i + 1} ${turn.role}`),
      rows.map((one) => h("td", { class: "mono" }, number(Math.max(0, ...one.values.slice(turn.start, ends[i])))))))))));
}
