// Elements without a framework. Text only ever becomes text: there is no way here to insert markup.

const SVG = "http://www.w3.org/2000/svg";

function build(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "disabled") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An HTML element: `h("p", { class: "note", onclick }, "text", child)`. */
export function h(tag, properties, ...children) {
  return build(document.createElement(tag), properties, children);
}

/** An SVG element. */
export function s(tag, properties, ...children) {
  return build(document.createElementNS(SVG, tag), properties, children);
}

/** Puts other content into an element, only where it differs enough to be worth it. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const shapes = {
  overview: "M4 13h4v7H4zM10 4h4v16h-4zM16 9h4v11h-4z",
  key: "M14.5 3a6.5 6.5 0 0 0-6.2 8.4L3 16.7V21h4.3v-2.5h2.5V16h2.1l.8-.8A6.5 6.5 0 1 0 14.5 3zm2 4.5a1.5 1.5 0 1 1 0 3 1.5 1.5 0 0 1 0-3z",
  account: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zm0 2a7 7 0 1 1 0 14 7 7 0 0 1 0-14zm-1 2.5v5.2l4.2 2.5 1-1.6-3.4-2V7.5z",
  audit: "M5 3h14v18H5zm2 2v14h10V5zm2 3h6v1.6H9zm0 3.4h6V13H9zm0 3.4h4v1.6H9z",
  tiers: "M12 3 2.5 8 12 13l9.5-5zM4.6 11.4 2.5 12.5 12 17.5l9.5-5-2.1-1.1L12 15.3zm0 4.5L2.5 17 12 22l9.5-5-2.1-1.1L12 19.8z",
  sun: "M12 7a5 5 0 1 0 0 10 5 5 0 0 0 0-10zM11 1h2v3.5h-2zm0 18.5h2V23h-2zM1 11h3.5v2H1zm18.5 0H23v2h-3.5zM3.5 4.9l1.4-1.4 2.5 2.5-1.4 1.4zM16.6 18l1.4-1.4 2.5 2.5-1.4 1.4zM3.5 19.1 6 16.6 7.4 18l-2.5 2.5zM16.6 6l2.5-2.5 1.4 1.4L18 7.4z",
  exit: "M4 3h9v2H6v14h7v2H4zm11.6 4.6L20 12l-4.4 4.4-1.4-1.4 2-2H9v-2h7.2l-2-2z",
  copy: "M8 3h12v14h-3v4H4V7h4zm2 2v10h8V5zM8 9H6v10h9v-2H8z",
  plus: "M11 5h2v6h6v2h-6v6h-2v-6H5v-2h6z",
  more: "M5 10.2a1.8 1.8 0 1 0 0 3.6 1.8 1.8 0 0 0 0-3.6zm7 0a1.8 1.8 0 1 0 0 3.6 1.8 1.8 0 0 0 0-3.6zm7 0a1.8 1.8 0 1 0 0 3.6 1.8 1.8 0 0 0 0-3.6z",
  search: "M10 3a7 7 0 1 0 4.2 12.6l5.1 5.1 1.4-1.4-5.1-5.1A7 7 0 0 0 10 3zm0 2a5 5 0 1 1 0 10 5 5 0 0 1 0-10z",
  warning: "M12 2.5 1.5 21h21zM11 9h2v6h-2zm0 7.5h2v2h-2z",
  close: "M6.4 5 12 10.6 17.6 5 19 6.4 13.4 12 19 17.6 17.6 19 12 13.4 6.4 19 5 17.6 10.6 12 5 6.4z",
  check: "M9.5 16.2 5.3 12l-1.4 1.4 5.6 5.6L20.5 8l-1.4-1.4z",
  arrow: "M13 5l7 7-7 7-1.4-1.4 4.6-4.6H4v-2h12.2l-4.6-4.6z",
};

/** A drawing of 24 by 24 that says nothing to a screen reader: its neighbour does. */
export function icon(name) {
  return s("svg", { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true", focusable: "false" },
    s("path", { d: shapes[name], "fill-rule": "evenodd" }));
}

/** A word that goes away by itself, read out by screen readers. */
export function toast(text, kind = "good") {
  const note = h("div", { class: `toast ${kind}` }, icon(kind === "good" ? "check" : "warning"), h("span", {}, text));
  document.getElementById("toasts").append(note);
  setTimeout(() => note.remove(), kind === "good" ? 4000 : 8000);
}

/** Copies a text; the older way where a page in plain HTTP may not use the clipboard. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = h("textarea", { class: "offscreen", readonly: true, "aria-hidden": "true" });
    field.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}

/** A button that copies `text()` and says so. */
export function copyButton(label, text) {
  const word = h("span", {}, label);
  return h("button", {
    type: "button", class: "button small copy",
    onclick: async () => {
      word.textContent = (await copy(text())) ? "Copied" : "Select and copy by hand";
      setTimeout(() => { word.textContent = label; }, 2500);
    },
  }, icon("copy"), word);
}

/** A modal dialog: native, so that focus stays inside and Escape closes it; with `data-guarded` only its buttons do. */
export function dialog(title, content) {
  const heading = h("h2", { id: `dialog-${Math.floor(performance.now() * 1000)}` }, title);
  const box = h("dialog", { "aria-labelledby": heading.id },
    h("header", {}, heading,
      h("button", { type: "button", class: "button ghost round", "aria-label": "Close", onclick: () => box.close() }, icon("close"))),
    h("div", { class: "body" }, content));
  box.addEventListener("close", () => box.remove());
  box.addEventListener("cancel", (event) => { if (box.dataset.guarded) event.preventDefault(); });
  // Only a press that also began outside: selecting text may end there.
  let began = null;
  box.addEventListener("pointerdown", (event) => { began = event.target; });
  box.addEventListener("click", (event) => {
    if (event.target === box && began === box && !box.dataset.guarded) box.close();
  });
  document.body.append(box);
  box.showModal();
  return box;
}
