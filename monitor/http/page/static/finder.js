// A search for a feature, or for a policy: type, and choose from what is found.

import { get } from "./api.js";
import { button, failed, field, h, show } from "./dom.js";

/** `chosen({feature} or {policy})`. Policies that clamp something are offered too where `policies` is given. */
export function finder(label, chosen, policies = []) {
  const input = h("input", { type: "search", autocomplete: "off", spellcheck: "false", placeholder: "number, label or text" });
  const found = h("ul", { class: "found" });
  let turn = 0;
  let timer;
  const row = (text, pick) => h("li", {}, button(text, () => {
    input.value = "";
    show(found);
    input.focus();
    chosen(pick);
  }, { class: "row" }));
  async function look() {
    const mine = (turn += 1);
    const words = input.value.trim();
    if (!words) return show(found);
    const named = policies.filter((one) => one.toLowerCase().includes(words.toLowerCase()));
    try {
      const { features } = await get(`/api/features?q=${encodeURIComponent(words)}`);
      if (mine !== turn) return undefined;
      return show(found, named.map((one) => row(`policy ${one}`, { policy: one })),
        features.slice(0, 12).map((one) => row(`${one.feature}  ${one.label}`, { feature: one.feature })),
        !named.length && !features.length ? h("li", { class: "muted" }, "nothing found") : null);
    } catch (error) {
      if (mine !== turn) return undefined;
      return show(found, named.map((one) => row(`policy ${one}`, { policy: one })), named.length ? null : h("li", {}, failed(error)));
    }
  }
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(look, 200);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter") {
      event.preventDefault();
      found.querySelector("button")?.click();
    }
  });
  return h("div", { class: "finder" }, field(label, input), found);
}
