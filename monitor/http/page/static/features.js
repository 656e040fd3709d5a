// Features: search by words or by example texts, one feature's card, its map, and its name.

import { forget, get, post } from "./api.js";
import { button, failed, field, h, number, percent, reveal, s, say, scroller, several, show } from "./dom.js";
import { badge, counted, featureLink } from "./readings.js";
import { READING_LEVELS } from "./tokens.js";

const heat = (share) => READING_LEVELS.filter((low) => share >= low).length;

export function contextLine(context) {
  return h("p", { class: "context" }, context.tokens.map((token, i) =>
    h("span", { class: `token heat-${heat(context.levels[i] / 100)}`, title: `${context.levels[i]} % of its maximum` }, token.replaceAll("\n", "↵"))));
}

export class FeaturesView {
  constructor(about) {
    this.about = about;
    this.results = h("div", { "aria-live": "polite" });
    this.detail = h("div", { class: "stack detail" });
    if (about.features === null) {
      this.element = h("div", { class: "stack" }, h("h1", {}, "Features"), h("p", {}, "This engine shows the features that policies watch, and no others."));
      return;
    }
    if (!about.roles.includes("inspect")) {
      this.element = h("div", { class: "stack" }, h("h1", {}, "Features"), h("p", { class: "muted" }, "Looking at features needs the role inspect."));
      return;
    }
    this.words = h("input", { type: "search", autocomplete: "off", placeholder: "a number, a label, a word in its contexts" });
    const search = h("form", { class: "card", on: { submit: (event) => {
      event.preventDefault();
      this.find();
    } } }, h("h2", {}, "By words"), field("Number, label or text", this.words), h("button", { class: "primary" }, "Search"));
    this.having = h("textarea", { rows: 4, placeholder: "one text in each line" });
    this.lacking = h("textarea", { rows: 3, placeholder: "one text in each line, or nothing" });
    const examples = h("form", { class: "card", on: { submit: (event) => {
      event.preventDefault();
      this.compare();
    } } }, h("h2", {}, "By examples"),
    field("What do these texts have in common …", this.having), field("… and these not?", this.lacking),
    h("button", { class: "primary" }, "Compare"));
    this.element = h("div", { class: "two wide" },
      h("div", { class: "stack" }, h("h1", {}, "Features"),
        h("p", { class: "muted" }, `${about.features.toLocaleString("en")} features of the dictionary`), search,
        about.inspects ? examples : h("p", { class: "muted" }, "This engine reads the features that policies watch, and no others: texts cannot be compared here."), this.results),
      this.detail);
  }

  async open(feature) {
    if (!this.words || feature === undefined) return;
    reveal(show(this.detail, h("p", { class: "muted" }, "loading …")));
    try {
      this.draw(await get(`/api/features/${encodeURIComponent(feature)}`));
    } catch (error) {
      show(this.detail, failed(error));
    }
  }

  async find() {
    const words = this.words.value.trim();
    if (!words) return;
    await this.answered(get(`/api/features?q=${encodeURIComponent(words)}`), (one) => percent(one.density, 2), "density");
  }

  async compare() {
    const lines = (area) => area.value.split("\n").map((line) => line.trim()).filter(Boolean);
    const asked = { with: lines(this.having), without: lines(this.lacking) };
    await this.answered(post("/api/features/examples", asked), (one) =>
      one.auroc_texts === undefined ? `fires on ${one.fired}, ${number(one.score)}` : `AUROC ${number(one.auroc_texts)} (${number(one.low)}–${number(one.high)})`,
    asked.without.length ? "how well it tells the texts apart" : "texts on which it fires, score");
  }

  async answered(asked, value, what) {
    show(this.results, h("p", { class: "muted" }, "reading …"));
    try {
      const { features } = await asked;
      say(several(features.length, "feature") + " found");
      if (!features.length) {
        show(this.results, h("p", { class: "muted" }, "no feature found"));
        return;
      }
      show(this.results, scroller("Features that were found", h("table", {},
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "feature"), h("th", { scope: "col" }, what), h("th", { scope: "col" }, "promotes"))),
        h("tbody", {}, features.map((one) => h("tr", {},
          h("td", {}, h("a", { href: `#features/${one.feature}` }, h("span", { class: "mono" }, `${one.feature} `), one.label), one.by_hand ? badge("by hand") : null),
          h("td", { class: "mono" }, value(one)),
          h("td", { class: "muted mono" }, one.promoted.slice(0, 4).join(" "))))))));
    } catch (error) {
      show(this.results, failed(error));
    }
  }

  draw(one) {
    const label = h("input", { value: one.by_hand ? one.label : "", maxlength: 200, placeholder: one.label });
    const told = h("span", { class: "muted" });
    const rename = h("form", { class: "line wrap", on: { submit: async (event) => {
      event.preventDefault();
      try {
        const now = await post(`/api/features/${one.feature}/label`, { label: label.value });
        forget(one.feature);
        this.draw({ ...one, ...now });
        say("label saved");
      } catch (error) {
        show(told, failed(error));
      }
    } } }, field("Label", label), h("button", {}, "Save label"), told);
    const may = this.about.saves && this.about.roles.includes("admin");
    const map = h("div");
    const tokens = (list) => h("p", { class: "chips" }, list.map(([text, value]) => h("code", { title: `logit ${number(value)}` }, JSON.stringify(text))));
    show(this.detail,
      h("section", { class: "card" },
        h("h2", {}, `Feature ${one.feature} `, h("span", { class: "label" }, one.label)),
        h("p", { class: "line wrap muted" },
          one.by_hand ? badge("named by hand") : badge("automatic label"),
          one.auroc === null ? null : h("span", {}, `label predicts with AUROC ${number(one.auroc)}`),
          h("span", {}, `maximum ${number(one.maximum)}`), h("span", {}, `active on ${percent(one.density, 3)} of ${(one.tokens ?? 0).toLocaleString("en")} tokens`)),
        one.maximum ? null : h("p", { class: "warning" }, "Never active on the corpus: its readings have no unit, so no policy can use it."),
        h("div", { class: "chips" }, counted(one)),
        may ? rename : h("p", { class: "muted" }, this.about.saves ? "Renaming needs the role admin." : "Labels can be saved where the operator sets page_overlay.")),
      one.card ? h("section", { class: "card" }, h("h2", {}, "Where it fires"), one.card.contexts.map(contextLine), one.card.contexts.length ? null : h("p", { class: "muted" }, "nowhere in the corpus"))
        : h("p", { class: "muted" }, "The dictionary has no cards; dictionary describe writes them."),
      one.card ? h("section", { class: "card" }, h("h2", {}, "Promotes"), tokens(one.card.promoted), h("h3", {}, "Suppresses"), tokens(one.card.suppressed)) : null,
      h("section", { class: "card" }, h("h2", {}, "Neighbours"),
        h("p", { class: "muted" }, "By the cosine of their decoder rows."),
        h("ul", { class: "rows" }, one.neighbours.map((other) => h("li", {}, h("span", { class: "grow" }, h("a", { href: `#features/${other.feature}` }, h("span", { class: "mono" }, `${other.feature} `), other.label)), h("span", { class: "mono" }, number(other.cosine))))),
        button("Draw the map", (event) => this.drawMap(one.feature, map, event.target)), map));
  }

  async drawMap(feature, place, asked) {
    asked.disabled = true;
    show(place, h("p", { class: "muted" }, "laying out …"));
    try {
      const { points } = await get(`/api/features/${feature}/map`);
      show(place, neighbourMap(points));
    } catch (error) {
      show(place, failed(error));
    }
    asked.disabled = false;
  }
}

function neighbourMap(points) {
  const width = window.innerWidth < 640 ? 400 : 640;
  const across = (one) => 16 + (width - 32) * one.x;
  const down = (one) => 20 + 380 * one.y;
  const dots = [...points].reverse().map((one) => s("a", { href: `#features/${one.feature}`, "aria-label": `feature ${one.feature} ${one.label}, cosine ${number(one.cosine)}` },
    s("circle", {
      class: one === points[0] ? "dot focus" : "dot", cx: across(one), cy: down(one),
      r: one === points[0] ? 9 : 4 + 5 * Math.max(0, one.cosine),
      vars: { "--share": Math.max(0.15, Math.min(1, one.cosine * 1.6)) },
    }), s("title", {}, `${one.feature} ${one.label} (cosine ${number(one.cosine)})`)));
  const placed = [];
  const free = points.slice(0, 24).filter((one) => {
    const [x, y] = [across(one) + 11, down(one)];
    if (placed.some(([ox, oy]) => Math.abs(oy - y) < 14 && Math.abs(ox - x) < 200)) return false;
    placed.push([x, y]);
    return true;
  });
  const left = (one) => across(one) > width - 200;
  const named = free.slice(0, width < 640 ? 8 : 14).map((one) => s("text", { class: one === points[0] ? "name focus" : "name", x: across(one) + (left(one) ? -11 : 11), y: down(one) + 4, "text-anchor": left(one) ? "end" : "start", "aria-hidden": "true" }, `${one.feature} ${one.label}`.slice(0, 30)));
  return h("figure", {}, s("svg", { viewBox: `0 0 ${width} 420`, class: "map", role: "group", "aria-label": `Map of ${points.length - 1} neighbours` }, dots, named),
    h("figcaption", { class: "muted" }, "t-SNE: only nearness has a meaning. Larger and darker dots point more nearly the same way."));
}

export { featureLink };
