// The shell: which view is open, who is logged in, which theme.

import { ApiError, get, login, logout } from "./api.js";
import { AlertsView } from "./alerts.js";
import { ChatView } from "./chat.js";
import { failed, field, h, show } from "./dom.js";
import { FeaturesView } from "./features.js";
import { PoliciesView } from "./policies.js";
import { TranscriptsView } from "./transcripts.js";

const VIEWS = {
  chat: ["Chat", ChatView],
  features: ["Features", FeaturesView],
  transcripts: ["Transcripts", TranscriptsView],
  alerts: ["Alerts", AlertsView],
  policies: ["Policies", PoliciesView],
};
const THEMES = { "": "Theme: as the system", light: "Theme: light", dark: "Theme: dark" };
const main = document.getElementById("main");
const nav = document.getElementById("views");

let about = null;
let made = {};
let current = "";

function theme(next) {
  const wanted = next ?? localStorage.getItem("theme") ?? "";
  if (wanted) document.documentElement.dataset.theme = wanted;
  else delete document.documentElement.dataset.theme;
  localStorage.setItem("theme", wanted);
  document.getElementById("theme").textContent = THEMES[wanted] ?? THEMES[""];
}

/** A part of the address; as it stands where it is cut in a character. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function route() {
  if (!about) return;
  const [name, detail] = location.hash.slice(1).split("/");
  const chosen = VIEWS[name] ? name : "chat";
  const [title, View] = VIEWS[chosen];
  made[chosen] ??= new View(about);
  if (current !== chosen) {
    made[current]?.closed?.();
    current = chosen;
    show(main, made[chosen].element);
    made[chosen].opened?.();
    document.title = `${title} · sae-monitor`;
    for (const link of nav.children) {
      if (link.dataset.view === chosen) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }
  if (detail) made[chosen].open?.(decoded(detail));
}

function form(problem) {
  const token = h("input", { type: "password", autocomplete: "off", required: true });
  const told = h("div", {}, problem ? failed(problem) : null);
  show(nav);
  show(main, h("form", { class: "card login", on: { submit: async (event) => {
    event.preventDefault();
    try {
      await login(token.value.trim());
      token.value = "";
      await start();
    } catch (error) {
      show(told, failed(error instanceof ApiError && error.status === 401 ? new Error("this server does not know the token") : error));
    }
  } } }, h("h1", {}, "Log in"), h("p", { class: "muted" }, "With the token that your operator gave you (sae-monitor token new)."), field("Token", token), h("button", { class: "primary" }, "Log in"), told));
  token.focus();
}

async function start() {
  try {
    about = await get("/api/about");
  } catch (error) {
    about = null;
    if (error.status === 401) form();
    else show(main, failed(error));
    return;
  }
  made = {};
  current = "";
  document.getElementById("logout").hidden = !about.logs_in;
  document.getElementById("running").textContent = `${about.model}${about.caller ? ` · ${about.caller} (${about.roles.join(", ")})` : ""}`;
  show(nav, Object.entries(VIEWS).map(([name, [title]]) => h("a", { href: `#${name}`, data: { view: name } }, title)));
  route();
}

window.addEventListener("hashchange", route);
// What stands behind # names a view, so this link takes nobody to another address.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
window.addEventListener("logged-out", () => {
  if (!about) return;
  made[current]?.closed?.();
  about = null;
  form(new Error("your session has ended"));
});
document.getElementById("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  theme(names[(names.indexOf(localStorage.getItem("theme") ?? "") + 1) % names.length]);
});
document.getElementById("logout").addEventListener("click", async () => {
  made[current]?.closed?.();
  await logout().catch(() => {});
  about = null;
  form();
});

theme();
start();
