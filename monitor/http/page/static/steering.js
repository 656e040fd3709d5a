// Sliders: features and policies held at a value, what that was measured to cost, and the request to copy.

import { brief, briefs } from "./api.js";
import { button, copier, fresh, h, number, percent, several, show } from "./dom.js";
import { finder } from "./finder.js";

const LOW = -2;
const HIGH = 5;

const yaml = (text) => JSON.stringify(text);

export class Steering {
  /** `changed()` is called when a slider moves; `request()` gives the body that the chat would send. */
  constructor(about, changed, request) {
    this.about = about;
    this.changed = changed;
    this.request = request;
    this.held = [];
    this.may = about.roles.includes("admin") && about.caller_clamps !== "none";
    this.most = about.caller_clamps === "any" ? HIGH : 0;
    this.list = h("ul", { class: "rows sliders" });
    this.element = h("section", { class: "card", "aria-labelledby": "steering" });
    this.draw();
  }

  get active() {
    return this.held.length > 0;
  }

  /** The clamps as a request has them; of a feature that is held twice the lower value. */
  get clamps() {
    const found = new Map();
    for (const one of this.held) {
      for (const feature of this.featuresOf(one)) {
        const target = Math.min(one.target, found.get(feature) ?? Infinity);
        found.set(feature, target);
      }
    }
    return [...found].map(([feature, target]) => ({ feature, target }));
  }

  featuresOf(one) {
    if (one.feature !== undefined) return [one.feature];
    return (this.about.policies.find((policy) => policy.name === one.policy)?.clamps ?? []).map((clamp) => clamp.feature);
  }

  add(pick) {
    const there = this.held.find((one) => one.feature === pick.feature && one.policy === pick.policy);
    if (!there) this.held.push({ ...pick, target: -1 });
    if (pick.feature !== undefined) briefs([pick.feature]).then(() => this.drawList()).catch(() => {});
    this.drawList();
    this.changed();
  }

  draw() {
    const why = !this.about.roles.includes("admin") ? "Holding features at a value needs the role admin."
      : this.about.caller_clamps === "none" ? "The operator allows no clamps in requests (caller_clamps)." : "";
    const policies = this.about.policies.filter((one) => one.clamps.length).map((one) => one.name);
    show(this.element,
      h("h2", { id: "steering" }, "Steering"),
      why ? h("p", { class: "muted" }, why) : null,
      this.may ? finder("Add a feature or a policy", (pick) => this.add(pick), policies) : null,
      this.may && this.most === 0 ? h("p", { class: "muted" }, "Values above 0 need the server's setting caller_clamps: any.") : null,
      this.list,
      h("div", { class: "chips" },
        copier("Copy as OpenAI request", () => this.asOpenAi()),
        copier("Copy as gRPC request", () => this.asGrpc()),
        copier("Copy as policy", () => this.asPolicy())));
    this.drawList();
  }

  drawList() {
    show(this.list, this.held.map((one) => this.slider(one)));
  }

  slider(one) {
    const name = one.policy ? `policy ${one.policy}` : `feature ${one.feature}`;
    const label = one.policy ? several(this.featuresOf(one).length, "feature") : brief(one.feature)?.label ?? "";
    const value = h("output", { class: "mono" }, number(one.target));
    const warning = h("p", { class: "warning" });
    const warn = () => show(warning, this.damage(one));
    const id = fresh("slider");
    const range = h("input", {
      type: "range", id, min: LOW, max: this.most, step: 0.25, value: one.target,
      "aria-valuetext": `${number(one.target)} times its maximum`,
      on: {
        input: () => {
          one.target = Number(range.value);
          value.textContent = number(one.target);
          range.setAttribute("aria-valuetext", `${number(one.target)} times its maximum`);
          warn();
          this.changed();
        },
      },
    });
    warn();
    return h("li", { class: "stacked" },
      h("div", { class: "line" }, h("label", { for: id, class: "grow" }, h("strong", {}, name), " ", h("span", { class: "muted" }, label)),
        value, button("Remove", () => {
          this.held = this.held.filter((other) => other !== one);
          this.drawList();
          this.changed();
        }, { class: "small", "aria-label": `Remove ${name}` })),
      range,
      h("div", { class: "scale muted", "aria-hidden": "true" }, h("span", {}, LOW), h("span", {}, "× its maximum"), h("span", {}, this.most)),
      warning);
  }

  /** What was measured of a policy's clamps at the nearest target that was tried, where the slider is among those. */
  damage(one) {
    const points = one.policy ? this.about.costs[one.policy] : undefined;
    if (!points?.length) {
      if (one.policy) return `What this costs was not measured on this pair; sae-monitor policy cost ${one.policy} measures it.`;
      return Math.abs(one.target) > 2 ? "So far from its ordinary range the text may fall apart." : null;
    }
    const tried = points.map((point) => point.strength);
    const [low, high] = [Math.min(...tried), Math.max(...tried)];
    if (one.target < low || one.target > high) return `Nothing was measured here: targets that were tried go from ${number(low)} to ${number(high)}.`;
    const near = points.reduce((a, b) => (Math.abs(b.strength - one.target) < Math.abs(a.strength - one.target) ? b : a));
    return `Measured at ${number(near.strength)}: benign perplexity ${near.perplexity_ratio >= 1 ? "+" : ""}${percent(near.perplexity_ratio - 1, 1)}, KL ${number(near.kl, 3)} nats per token.`;
  }

  asOpenAi() {
    const body = this.request();
    const at = this.about.http_listen ?? "127.0.0.1:8000";
    const shell = `'${JSON.stringify(body, null, 1).replaceAll("'", `'\\''`)}'`;
    return `curl http${this.about.encrypted ? "s" : ""}://${at}/v1/chat/completions -H 'content-type: application/json'${this.about.logs_in ? " -H \"authorization: Bearer $TOKEN\"" : ""} -d ${shell}`;
  }

  asGrpc() {
    const body = this.request();
    const message = {
      generation: {
        input: {
          conversation: { messages: body.messages.map((one) => ({ role: `ROLE_${one.role.toUpperCase()}`, content: one.content })) },
        },
        sampling: { maxNewTokens: body.max_completion_tokens, temperature: body.temperature, seed: body.seed },
        clamps: body.sae_monitor?.clamps ?? [],
        includeTokens: true,
      },
    };
    const shell = `'${JSON.stringify(message, null, 1).replaceAll("'", `'\\''`)}'`;
    return `grpcurl${this.about.encrypted ? "" : " -plaintext"}${this.about.logs_in ? " -H \"authorization: Bearer $TOKEN\"" : ""} -d ${shell} ${this.about.listen} monitor.v1.MonitorService/Generate`;
  }

  asPolicy() {
    const clamps = this.clamps;
    const features = clamps.map((one) => one.feature);
    if (!features.length) throw new Error(this.may ? "Hold a feature or a policy at a value first: add one above, then copy." : "There is no slider to copy: holding features at a value needs the role admin.");
    const target = Math.min(...clamps.map((one) => one.target));
    const names = features.map((f) => `#   ${f}  ${(brief(f)?.label ?? "").replace(/[^\x20-\x7e]/g, " ")}`);
    const head = [
      "apiVersion: monitor/v1",
      "metadata:",
      "  name: from-the-page",
      `  title: ${yaml("Written with the page")}`,
      "  category: custom",
      "  severity: medium",
      `  description: ${yaml(`Features ${features.join(", ")}.`)}`,
    ];
    const dictionary = `dictionary: ${this.about.digests.dictionary}`;
    const pins = ["features:", ...features.map((f) => `  - {index: ${f}, weight: ${(1 / features.length).toFixed(4)}}`)];
    if (target > 0) {
      return [...head, "# No policy turns features up; this one alerts where they are read.", ...names, ...pins, dictionary,
        "rules:", "  - name: read", "    threshold: 0.5", "    action: alert", ""].join("\n");
    }
    return [...head, ...names, ...pins, dictionary, "suppress:", `  features: [${features.join(", ")}]`, `  target: ${Math.max(-20, target)}`,
      "  when: always", "  where: active", ""].join("\n");
  }
}
