// Chat: the answer token by token, shaded; beside it the token, the verdict and the sliders.

import { stream } from "./api.js";
import { button, failed, field, h, number, say, select, several, show } from "./dom.js";
import { finder } from "./finder.js";
import { evidenceOf, scoresView, tokenPanel, verdictView } from "./readings.js";
import { Steering } from "./steering.js";
import { byFeature, byRules, legend, named, TokenStrip } from "./tokens.js";

const FINISH = { stop: "ended by itself", length: "reached its longest length", content_filter: "ended by a policy" };

/** One answer on its way. */
class Answer {
  constructor(view, title) {
    this.view = view;
    this.text = "";
    this.verdict = null;
    this.prompt = new TokenStrip("Tokens of the prompt", (token) => view.chose(this, token));
    this.strip = new TokenStrip(`Tokens of the answer${title ? `, ${title}` : ""}`, (token) => view.chose(this, token));
    this.count = h("summary", {}, "Prompt");
    this.folded = h("details", { class: "prompt" }, this.count, this.prompt.element);
    this.state = h("p", { class: "muted state" }, "waiting …");
    this.element = h("article", { class: "answer", "aria-label": title || "Answer" },
      title ? h("h3", {}, title) : null, this.folded, this.strip.element, this.state);
    this.shade(view.measure);
  }

  shade(measure) {
    this.prompt.shade(measure);
    this.strip.shade(measure);
  }

  take(event) {
    if (event.event === "begin") {
      this.count.textContent = `Prompt, ${several(event.prompt_tokens, "token")}`;
      this.rules = event.rules;
    } else if (event.event === "tokens") {
      named(event.tokens, this.rules);
      this.prompt.add(event.tokens.filter((token) => token.phase === "prompt"));
      this.strip.add(event.tokens.filter((token) => token.phase === "response"));
      this.text += event.text;
      this.state.textContent = `${several(this.strip.tokens.length, "token")} so far`;
    } else if (event.event === "detections") {
      this.mark(event.detections.flatMap((one) => (one.evidence ?? []).map((part) => part.position)));
    } else if (event.event === "end") {
      this.verdict = event.verdict;
      this.mark(evidenceOf(event.verdict));
      const found = event.verdict.detections?.length ?? 0;
      const text = `${several(event.tokens_generated, "token")}, ${FINISH[event.finish_reason]}; ${found ? several(found, "detection") : "no rule fired"}`;
      show(this.state, text, event.refusal ? h("span", { class: "refusal" }, event.refusal) : null);
      say(`Answer complete: ${text}`);
      this.view.ended(this);
    } else if (event.event === "features") {
      event.features.forEach((features, position) => {
        const token = this.prompt.places.get(position) ?? this.strip.places.get(position);
        if (token) token.features = features;
      });
      this.shade(this.view.measure);
      this.view.completed(this);
    }
  }

  mark(positions) {
    this.prompt.mark(positions);
    this.strip.mark(positions);
  }

  jump(position) {
    if (this.prompt.places.has(position)) this.folded.open = true;
    return this.strip.select(position, true) || this.prompt.select(position, true);
  }
}

export class ChatView {
  constructor(about) {
    this.about = about;
    this.turns = [];
    this.measure = byRules();
    this.answers = [];
    this.steering = new Steering(about, () => this.steered(), () => this.body(this.steering.clamps));
    this.build();
  }

  build() {
    const { about } = this;
    this.log = h("div", { class: "log" }, h("div", { class: "empty" },
      h("p", {}, h("strong", {}, "Ask something, and see what the model reads and writes.")),
      h("p", { class: "muted" }, `${about.model} is watched by ${several(about.policies.length, "policy", "policies")}. Tokens arrive once they were scored, shaded by how near they bring a rule to its threshold.`)));
    this.input = h("textarea", {
      rows: 3, placeholder: "Tell me about your plans.", required: true,
      on: { keydown: (event) => {
        if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
          event.preventDefault();
          this.send();
        }
      } },
    });
    this.system = h("textarea", { rows: 2 });
    this.longest = h("input", { type: "number", min: 1, max: about.context, value: Math.min(96, about.context) });
    this.temperature = h("input", { type: "number", min: 0, max: 10, step: 0.1, value: 0 });
    this.seed = h("input", { type: "number", value: 1 });
    this.both = h("input", { type: "checkbox", checked: true });
    this.compare = h("label", { class: "check", hidden: true }, this.both, "side by side with the unsteered answer");
    this.go = h("button", { type: "submit", class: "primary" }, "Send");
    this.halt = button("Stop", () => this.aborter?.abort(), { hidden: true });
    this.shades = h("div", { class: "toolbar" });
    this.legend = h("div");
    this.tokenCard = h("section", { class: "card", "aria-label": "Token" },
      h("h2", {}, "Token"), h("p", { class: "muted" }, "Choose a token, by click or by arrow keys, to see its features and rules."));
    this.verdictCard = h("section", { class: "card", "aria-label": "Verdict", hidden: true });
    const may = about.roles.includes("infer") && about.generates;
    const form = h("form", { class: "composer", on: { submit: (event) => {
      event.preventDefault();
      this.send();
    } } },
    may ? null : h("p", { class: "muted" }, about.generates ? "Chatting needs the role infer." : "This server generates nothing."),
    field("Message", this.input),
    h("div", { class: "line wrap" }, this.go, this.halt, button("New conversation", () => this.clear()), this.compare,
      h("details", { class: "options" }, h("summary", {}, "Options"),
        h("div", { class: "grid" }, field("System message", this.system), field("Longest answer, tokens", this.longest),
          field("Temperature (0 takes the likeliest)", this.temperature), field("Seed", this.seed)))));
    if (!may) for (const part of [this.input, this.go]) part.disabled = true;
    this.drawShades();
    this.element = h("div", { class: "two" },
      h("div", { class: "stack" }, h("h1", {}, "Chat"), this.shades, this.legend, this.log, form),
      h("aside", { class: "stack", "aria-label": "Readings" }, this.verdictCard, this.steering.element, this.tokenCard));
  }

  drawShades() {
    const options = [["rules", "strongest policy"], ...this.about.policies.map((one) => [`policy:${one.name}`, one.title])];
    if (this.measure.key.startsWith("feature:")) options.push([this.measure.key, this.measure.name]);
    const pick = select(options, this.measure.key, (key) => this.shadeBy(key.startsWith("policy:") ? byRules(key.slice(7)) : key === "rules" ? byRules() : this.measure));
    show(this.shades, field("Shade tokens by", pick),
      this.about.inspects && this.about.roles.includes("inspect") ? finder("or by a feature", (one) => this.shadeBy(byFeature(one.feature))) : null);
    show(this.legend, legend(this.measure));
  }

  shadeBy(measure) {
    this.measure = measure;
    for (const answer of this.answers) answer.shade(measure);
    this.drawShades();
  }

  steered() {
    this.compare.hidden = !this.steering.active;
  }

  get messages() {
    const system = this.system.value.trim();
    return [...(system ? [{ role: "system", content: system }] : []), ...this.turns];
  }

  body(clamps) {
    const written = this.input.value.trim();
    const messages = written ? [...this.messages, { role: "user", content: written }] : this.messages;
    return {
      model: this.about.model,
      messages,
      max_completion_tokens: Number(this.longest.value) || 1,
      temperature: Number(this.temperature.value) || 0,
      seed: Number(this.seed.value) || 0,
      ...(clamps.length ? { sae_monitor: { clamps } } : {}),
    };
  }

  clear() {
    this.aborter?.abort();
    this.turns = [];
    this.answers = [];
    show(this.log);
    this.verdictCard.hidden = true;
    this.input.focus();
  }

  async send() {
    const written = this.input.value.trim();
    if (!written || this.aborter) return;
    const clamps = this.steering.clamps;
    const runs = clamps.length && this.both.checked ? [["Without", []], ["With", clamps]] : [[clamps.length ? "With" : "", clamps]];
    const bodies = runs.map(([, used]) => this.body(used));
    this.log.querySelector(".empty")?.remove();
    this.turns.push({ role: "user", content: written });
    this.input.value = "";
    const made = runs.map(([title]) => new Answer(this, title && (title === "With" ? `With ${this.names()}` : "Without")));
    this.answers.push(...made);
    this.log.append(h("div", { class: "turn" }, h("p", { class: "said" }, written), h("div", { class: made.length > 1 ? "sides" : "" }, made.map((one) => one.element))));
    this.log.lastElementChild.scrollIntoView({ block: "nearest" });
    this.aborter = new AbortController();
    this.go.hidden = true;
    this.halt.hidden = false;
    try {
      await Promise.all(made.map((one, i) => this.run(one, bodies[i])));
    } finally {
      this.aborter = null;
      this.go.hidden = false;
      this.halt.hidden = true;
    }
    const last = made.at(-1);
    if (!this.answers.includes(last)) return;  // of a conversation that was ended meanwhile
    if (last.text) this.turns.push({ role: "assistant", content: last.text });
    else this.turns.pop();
  }

  names() {
    return this.steering.held.map((one) => `${one.policy ?? `feature ${one.feature}`} at ${number(one.target)}`).join(", ");
  }

  async run(answer, body) {
    try {
      await stream("/api/chat", body, (event) => answer.take(event), this.aborter.signal);
    } catch (error) {
      if (error.name === "AbortError") answer.state.textContent = "stopped";
      else show(answer.state, failed(error));
    }
  }

  ended(answer) {
    this.verdictCard.hidden = false;
    show(this.verdictCard, h("h2", {}, "Verdict"), answer.element.querySelector("h3") ? h("p", { class: "muted" }, answer.element.getAttribute("aria-label")) : null,
      verdictView(answer.verdict, (position) => answer.jump(position)), scoresView(answer.verdict));
  }

  completed(answer) {
    if (this.open && (this.open.answer === answer)) this.chose(answer, this.open.token);
  }

  chose(answer, token) {
    for (const other of this.answers) {
      for (const strip of [other.prompt, other.strip]) if (!strip.tokens.includes(token)) strip.deselect();
    }
    this.open = { answer, token };
    if (answer.verdict) this.ended(answer);
    tokenPanel(this.tokenCard, token, this.about, (feature) => [
      button("Shade by it", () => this.shadeBy(byFeature(feature)), { class: "small" }),
      this.steering.may ? button("Steer", () => this.steering.add({ feature }), { class: "small" }) : null,
    ]);
  }
}
