// Alerts: decisions as they happen, filtered; one in full, judged again, or marked as a false positive.

import { get, post } from "./api.js";
import { button, failed, field, h, reveal, say, scroller, select, several, show } from "./dom.js";
import { badge, detectionView, scoresView, verdictView } from "./readings.js";

const KEPT = 500;
const SEVERITIES = ["low", "medium", "high", "critical"];
const ACTIONS = ["allow", "alert", "suppress", "block"];
const word = (name) => String(name ?? "").split("_").at(-1).toLowerCase();

export class AlertsView {
  constructor(about) {
    this.about = about;
    this.records = [];
    this.wanted = { policy: "", severity: "low", action: "allow", mode: "", text: "" };
    this.rows = h("tbody");
    this.state = h("p", { class: "muted", role: "status" }, "connecting …");
    this.detail = h("div", { class: "stack detail" }, h("p", { class: "muted" }, "Choose a decision to see it in full."));
    this.pause = h("input", { type: "checkbox", on: { change: () => this.draw() } });
    const pick = (name, label, options) => field(label, select(options, this.wanted[name], (value) => {
      this.wanted[name] = value;
      this.draw();
    }));
    const text = h("input", { type: "search", placeholder: "request, session, caller", on: { input: () => {
      this.wanted.text = text.value.trim().toLowerCase();
      this.draw();
    } } });
    const filters = h("div", { class: "toolbar wrap" },
      pick("policy", "Policy", [["", "all"], ...about.policies.map((one) => [one.name, one.title])]),
      pick("severity", "Severity from", SEVERITIES.map((one) => [one, one])),
      pick("action", "Action from", [["allow", "any"], ...ACTIONS.slice(1).map((one) => [one, one])]),
      pick("mode", "Mode", [["", "enforced and shadow"], ["enforce", "enforced"], ["shadow", "shadow"]]),
      field("Contains", text), h("label", { class: "check" }, this.pause, "hold the list still"));
    this.element = h("div", { class: "two wide" },
      h("div", { class: "stack" }, h("h1", {}, "Alerts"), this.state, filters,
        scroller("Decisions", h("table", { class: "feed" }, h("caption", { class: "visually-hidden" }, "Decisions, newest first"),
          h("thead", {}, h("tr", {}, ["time", "what", "action", "caller"].map((name) => h("th", { scope: "col" }, name)))), this.rows))),
      this.detail);
  }

  opened() {
    if (this.source || !this.about.roles.includes("inspect")) {
      if (!this.about.roles.includes("inspect")) this.state.textContent = "Watching detections needs the role inspect.";
      return;
    }
    this.source = new EventSource("/api/alerts?recent=200&shadow=1&unknown=1");
    this.source.onopen = () => this.told("live");
    this.source.onerror = () => this.told(this.source.readyState === EventSource.CLOSED ? "closed: the server refuses more feeds, or you are logged out" : "connecting again …");
    this.source.onmessage = (event) => {
      if (event.data === "[DONE]") return;
      const record = JSON.parse(event.data);
      if (record.error) {
        this.told(record.error.message);
        return;
      }
      record.seen = this.records.some((one) => one.request_id === record.request_id);
      if (record.seen) return;
      this.records.unshift(record);
      this.records.length = Math.min(this.records.length, KEPT);
      this.missed = Number(record.dropped ?? 0);
      this.later();
    };
  }

  /** Draw soon: many records may come at once. */
  later() {
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      this.told("live");
      if (!this.pause.checked) this.draw();
    }, 100);
  }

  closed() {
    this.source?.close();
    this.source = undefined;
  }

  told(state) {
    this.state.textContent = `${state}; ${several(this.records.length, "decision")}${this.missed ? `, ${this.missed} missed` : ""}${this.about.log.kept ? "" : "; no decision log is kept, so only what happens now is shown"}`;
  }

  passes(record) {
    const { policy, severity, action, mode, text } = this.wanted;
    if (ACTIONS.indexOf(word(record.action)) < ACTIONS.indexOf(action)) return false;
    if (text && ![record.request_id, record.session_id, record.caller, record.trace_id].some((one) => one?.toLowerCase().includes(text))) return false;
    if (!policy && severity === "low" && !mode) return true;
    return (record.detections ?? []).some((one) => (!policy || one.policy === policy) && (!mode || word(one.mode) === mode)
      && SEVERITIES.indexOf(word(one.severity)) >= SEVERITIES.indexOf(severity));
  }

  draw() {
    const shown = this.records.filter((one) => this.passes(one));
    show(this.rows, shown.map((one) => h("tr", {},
      h("td", { class: "mono" }, new Date(one.time).toLocaleTimeString()),
      h("td", {}, button([...new Set((one.detections ?? []).map((d) => `${d.policy} / ${d.rule}`))].join(", ") || `not checked: ${one.failure ?? "unknown"}`, () => this.open(one), { class: "link" }),
        (one.detections ?? []).every((d) => word(d.mode) === "shadow") && one.detections?.length ? badge("shadow", "shadow") : null),
      h("td", {}, badge(word(one.action), word(one.action)), word(one.status) === "unknown" ? badge("unknown", "bad") : null),
      h("td", { class: "muted" }, one.caller || "–"))));
    if (!shown.length) show(this.rows, h("tr", {}, h("td", { colspan: 4, class: "muted" }, this.records.length ? "nothing passes the filters" : "nothing was detected yet")));
  }

  async open(record) {
    reveal(this.detail);
    if (!Number(record.record)) {
      show(this.detail, h("section", { class: "card" }, h("h2", {}, "Decision"), facts(record),
        h("ul", { class: "rows" }, (record.detections ?? []).map((one) => detectionView({ ...one, action: word(one.action), mode: word(one.mode), severity: word(one.severity), phase: word(one.phase) })))));
      return;
    }
    show(this.detail, h("p", { class: "muted" }, "loading …"));
    try {
      this.draws(record.record, await get(`/api/alerts/${record.record}`));
    } catch (error) {
      show(this.detail, failed(error));
    }
  }

  draws(number, one) {
    const again = h("div", { "aria-live": "polite" });
    const text = one.text;
    const spoken = text && (typeof text.prompt === "string" ? [h("p", { class: "said" }, text.prompt)] : text.prompt.map((turn) => h("p", { class: "said" }, h("strong", {}, `${turn.role} `), turn.content)));
    show(this.detail,
      h("section", { class: "card" }, h("h2", {}, `Decision ${one.seq}`), facts(one), verdictView({ ...one, coverage: one.coverage ?? {} }), scoresView(one)),
      text ? h("section", { class: "card" }, h("h2", {}, "Text"), spoken, text.response ? h("p", { class: "answer" }, text.response) : null)
        : h("p", { class: "muted" }, "The log has no text of requests (decision_log_text)."),
      h("section", { class: "card" }, h("h2", {}, "Under the policies that are in force now"),
        button("Judge it again", async () => {
          show(again, h("p", { class: "muted" }, "reading …"));
          try {
            const found = await post(`/api/alerts/${number}/replay`, {});
            const told = found.stronger > 0 ? "It would be treated more strictly." : found.stronger < 0 ? "It would be treated less strictly." : found.differs ? "Other rules, and the same action." : "The same decision.";
            show(again, h("p", {}, h("strong", {}, told)), verdictView(found.verdict));
            say(told);
          } catch (error) {
            show(again, failed(error));
          }
        }), again),
      this.marker(number, text));
  }

  marker(number, text) {
    if (!this.about.saves || !this.about.roles.includes("admin")) {
      return h("p", { class: "muted" }, this.about.saves ? "Marking a false positive needs the role admin." : "False positives can be marked where the operator sets page_overlay.");
    }
    const area = h("textarea", { rows: 4 });
    const told = h("p", { role: "status" });
    return h("section", { class: "card" }, h("h2", {}, "False positive?"),
      h("p", { class: "muted" }, "Its text becomes a benign example for the next policy fit."),
      text ? null : field("The text that was benign", area),
      button("Mark as false positive", async () => {
        try {
          const done = await post(`/api/alerts/${number}/mark`, text ? {} : { text: area.value });
          show(told, done.saved ? `Saved to ${done.file}.` : "It was marked before.");
        } catch (error) {
          show(told, failed(error));
        }
      }), told);
  }
}

function facts(one) {
  const digests = one.digests ?? {};
  const rows = [["time", new Date(one.time).toLocaleString()], ["method", one.method], ["caller", one.caller || "not named"], ["outcome", one.outcome], ["request", one.request_id],
    ["session", one.session ?? one.session_id], ["trace", one.trace_id], ["model", short(digests.model)], ["dictionary", short(digests.dictionary)], ["policies", short(digests.policies)]];
  return h("dl", { class: "facts" }, rows.filter(([, value]) => value).map(([name, value]) => [h("dt", {}, name), h("dd", { class: "mono" }, value)]));
}

const short = (digest) => digest?.slice(0, 19);
