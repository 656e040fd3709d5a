// Builds elements. Text is always set as text: nothing here makes markup of it.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") for (const [event, call] of Object.entries(value)) element.addEventListener(event, call);
    else if (name === "vars") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "value" || name === "checked" || name === "disabled") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const h = (tag, props, ...children) => fill(document.createElement(tag), props, children);
export const s = (tag, props, ...children) => fill(document.createElementNS(SVG, tag), props, children);

let ids = 0;
export const fresh = (name) => `${name}-${(ids += 1)}`;

/** Replace what an element holds. */
export function show(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter(Boolean));
  return element;
}

/** Bring a part into sight where the page is one column. */
export function reveal(element) {
  if (window.innerWidth <= 1020) requestAnimationFrame(() => element.scrollIntoView({ block: "start" }));
  return element;
}

/** Tell a screen reader. */
export function say(text) {
  document.getElementById("said").textContent = text;
}

/** A field with its label. `control` is an element that takes an id. */
export function field(label, control, hint) {
  control.id ||= fresh("field");
  const told = hint ? h("small", { id: fresh("hint"), class: "muted" }, hint) : null;
  if (told) control.setAttribute("aria-describedby", told.id);
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, told);
}

export function select(options, value, change) {
  const made = h("select", { on: { change: () => change(made.value) } });
  for (const [key, text] of options) made.append(h("option", { value: key }, text));
  made.value = value;
  return made;
}

export const button = (text, click, props) => h("button", { type: "button", on: { click }, ...props }, text);

/** What is wider than its place: it can be scrolled, by keyboard too. */
export const scroller = (label, ...inside) => h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, inside);

export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    say(`${what} copied`);
    return true;
  } catch {
    return false;
  }
}

/** A button that copies, and shows the text where the browser does not allow that. `make` may throw an Error that says
 * what to do before there is something to copy. */
export function copier(label, make) {
  const told = h("p", { role: "status", class: "muted" });
  const made = button(label, async () => {
    told.textContent = "";
    let text;
    try {
      text = make();
    } catch (error) {
      told.textContent = error.message;
      return;
    }
    if (await copy(text, label)) {
      made.textContent = "Copied";
      setTimeout(() => (made.textContent = label), 1500);
    } else {
      const shown = h("textarea", { readonly: true, rows: 8, "aria-label": label, value: text, class: "mono" });
      made.after(shown);
      shown.select();
    }
  });
  made.classList.add("small");
  return [made, told];
}

export function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = h("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

export const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;
export const number = (value, digits = 2) => (Number.isFinite(value) ? value.toFixed(digits) : "–");
export const several = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

export function failed(error) {
  return h("p", { class: "problem", role: "alert" }, error?.message ?? String(error));
}
