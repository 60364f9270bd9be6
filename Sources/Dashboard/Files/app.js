// The frame: signing in, finding the way, light and dark.

import { h, fill, icon } from "./dom.js";
import { resume, signIn, signOut, whenSignedOut, session, get } from "./api.js";
import { badge, count, span } from "./format.js";
import { overview } from "./overview.js";
import { keys, keyPage, auditTable } from "./keys.js";
import { accounts } from "./account.js";

const app = document.getElementById("app");
let leave = () => {};
let status = null;
let main = null;

function logo() {
  return h("span", { class: "logo" }, h("img", { src: "/icon.svg", alt: "", width: 26, height: 26 }), h("b", {}, "Gateway"));
}

// MARK: Theme

const themes = ["auto", "light", "dark"];

function theme(value) {
  if (value) localStorage.setItem("theme", value);
  const chosen = localStorage.getItem("theme") ?? "auto";
  document.documentElement.dataset.theme = chosen;
  return chosen;
}

function themeButton() {
  const word = h("span", {}, `Theme: ${theme()}`);
  return h("button", { type: "button", class: "nav", onclick: () => {
    word.textContent = `Theme: ${theme(themes[(themes.indexOf(theme()) + 1) % themes.length])}`;
  } }, icon("sun"), word);
}

// MARK: Signing in

function showSignIn(message) {
  leave();
  leave = () => {};
  main = null;
  document.title = "Sign in – Gateway";
  const input = h("input", { type: "password", name: "token", id: "token", autocomplete: "current-password", required: true, "aria-describedby": "why" });
  const why = h("p", { class: "error", id: "why", role: "alert" }, message ?? "");
  const button = h("button", { type: "submit", class: "button primary wide" }, "Sign in");
  fill(app, h("main", { class: "sign-in", id: "main" }, h("form", { class: "card", onsubmit: async (event) => {
    event.preventDefault();
    button.disabled = true;
    why.textContent = "";
    try {
      await signIn(input.value.trim());
      input.value = "";
      await start();
    } catch (error) {
      why.textContent = error.message;
      input.setAttribute("aria-invalid", "true");
      input.select();
    } finally {
      button.disabled = false;
    }
  } }, logo(), h("h1", {}, "Sign in"), h("p", { class: "hint" }, "With the token in the file that ", h("code", {}, "admin.token_file"), " names, or the read-only one."),
  h("div", { class: "field" }, h("label", { for: "token" }, "Admin token"), input, why), button)));
  input.focus();
}

function showClosed(message) {
  fill(app, h("main", { class: "sign-in", id: "main" }, h("div", { class: "card" }, logo(), h("h1", {}, "The dashboard is closed"), h("p", {}, message),
    h("pre", { class: "mono", tabindex: "0" }, "umask 077; openssl rand -hex 32 > /etc/gateway/admin-token\n\n# gateway.conf\nadmin:\n  address: \"127.0.0.1:9901\"\n  token_file: /etc/gateway/admin-token"))));
}

// MARK: Pages

const places = [
  { path: "overview", label: "Overview", drawing: "overview" },
  { path: "keys", label: "API Keys", drawing: "key", group: "Settings" },
  { path: "tiers", label: "Tiers", drawing: "tiers", group: "Settings" },
  { path: "accounts", label: "Accounts", drawing: "account", group: "Watch" },
  { path: "audit", label: "Audit trail", drawing: "audit", group: "Watch" },
];

function showFrame() {
  main = h("main", { id: "main", tabindex: "-1" });
  let group = null;
  const links = places.map((place) => {
    const heading = place.group && place.group !== group ? h("p", { class: "nav-group" }, place.group) : null;
    group = place.group;
    return [heading, h("a", { class: "nav", href: `#/${place.path}`, "data-place": place.path }, icon(place.drawing), h("span", {}, place.label))];
  });
  fill(app, h("div", { class: "frame" },
    h("nav", { class: "side", "aria-label": "Pages" }, logo(), h("div", { class: "links" }, links), h("div", { class: "grow" }),
      h("div", { class: "tools" }, session.role === "read" ? badge("read only", "calm") : null, themeButton(),
        h("button", { type: "button", class: "nav", onclick: async () => { await signOut().catch(() => {}); showSignIn(); } }, icon("exit"), h("span", {}, "Sign out")))),
    main));
}

function tiers(place) {
  fill(place, h("div", { class: "title" }, h("div", {}, h("p", { class: "crumb" }, "Settings"), h("h1", {}, "Tiers"))),
    h("p", { class: "hint" }, "As gateway.conf has them. An account may make so many calls in any stretch of time of that length; refused calls cost nothing. A key may have limits of its own."),
    h("div", { class: "tiers" }, status.tiers.map((tier) => h("section", { class: "card tier", "aria-label": tier.name },
      h("h2", {}, tier.name), tier.windows.map((one) => h("p", { class: "big" }, count(one.limit), h("small", {}, ` in ${span(one.seconds)}`))),
      h("a", { href: `#/keys?tier=${encodeURIComponent(tier.name)}` }, "Its keys")))));
  return () => {};
}

function audit(place, parameters) {
  let cursor = null;
  const list = h("div", {});
  const filter = h("input", { name: "key", type: "search", value: parameters.get("key") ?? "", placeholder: "Key id", "aria-label": "Key id", autocomplete: "off", spellcheck: "false" });
  const more = h("button", { type: "button", class: "button", hidden: true, onclick: () => load(entries) }, "Load more");
  let entries = [];
  async function load(before) {
    const values = new URLSearchParams({ limit: "50" });
    if (filter.value.trim()) values.set("key", filter.value.trim());
    if (before.length && cursor) values.set("cursor", cursor);
    try {
      const page = await get(`/v1/audit?${values}`);
      entries = [...before, ...page.entries];
      cursor = page.next_cursor;
      more.hidden = cursor === null;
      fill(list, auditTable(entries));
    } catch (error) {
      fill(list, h("p", { class: "trouble", role: "alert" }, error.message));
    }
  }
  fill(place, h("div", { class: "title" }, h("div", {}, h("p", { class: "crumb" }, "Watch"), h("h1", {}, "Audit trail"))),
    h("form", { class: "filters", role: "search", onsubmit: (event) => { event.preventDefault(); load([]); } }, filter, h("button", { type: "submit", class: "button" }, "Show")),
    h("div", { class: "card flush" }, list), h("div", { class: "center" }, more));
  load([]);
  return () => {};
}

/** Shows what the address says. */
function go() {
  if (!main) return;
  leave();
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [place, rest] = path.split("/");
  const parameters = new URLSearchParams(query ?? "");
  const known = places.some((one) => one.path === place) ? place : "overview";
  for (const link of app.querySelectorAll("[data-place]")) {
    if (link.dataset.place === known) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${places.find((one) => one.path === known).label} – Gateway`;
  const name = rest ? decodeURIComponent(rest) : null;
  if (known === "keys") leave = name ? keyPage(main, name, status) : keys(main, parameters, status);
  else if (known === "accounts") leave = accounts(main, name);
  else if (known === "audit") leave = audit(main, parameters);
  else if (known === "tiers") leave = tiers(main);
  else leave = overview(main);
  scrollTo(0, 0);
}

async function start() {
  status = await get("/v1/status");
  showFrame();
  go();
}

addEventListener("hashchange", () => {
  go();
  // A screen reader goes on reading at the new page.
  main?.focus({ preventScroll: true });
});
whenSignedOut((message) => {
  for (const box of document.querySelectorAll("dialog")) box.close();
  showSignIn(message);
});
theme();
try {
  if (await resume()) await start();
  else showSignIn();
} catch (error) {
  if (error.code === "ADMIN_DISABLED") showClosed(error.message);
  else showSignIn(error.message);
}
