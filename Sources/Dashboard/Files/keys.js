// Settings > API Keys: the list with its filters, and a key with everything that can be done to it.

import { h, fill, icon, dialog, toast } from "./dom.js";
import { ago, badge, condition, count, date, deadline } from "./format.js";
import { call, get, session } from "./api.js";
import { repeat } from "./repeat.js";
import { askForEdit, askForNewKey, askForReason, askForRevocation, askForRotation } from "./keyforms.js";
import { windows } from "./account.js";

const PAGE = 50;

function scopeList(key) {
  if (!key.scopes?.length) return h("span", { class: "faint" }, "none");
  const shown = key.scopes.slice(0, 3);
  return h("span", { class: "chips", title: key.scopes.join("\n") }, shown.map((scope) => h("span", { class: "chip" }, scope)),
    key.scopes.length > 3 ? h("span", { class: "chip faint" }, `+${key.scopes.length - 3}`) : null);
}

function marks(key) {
  const due = { age: "made over 90 days ago: rotate it", unused: "not used for 90 days: rotate or revoke it" }[key.rotation_due];
  return [
    due ? h("span", { class: "badge due", title: due }, "rotate") : null,
    key.rotated_to && condition(key) === "active" ? h("span", { class: "badge calm", title: `replaced by ${key.rotated_to}` }, "replaced") : null,
    key.static ? h("span", { class: "badge calm", title: "stands in the configuration" }, "static") : null,
  ];
}

export const titleOf = (key) => key.name || key.id;

function row(key, open) {
  const link = h("a", { href: `#/keys/${encodeURIComponent(key.id)}`, class: "strong", onclick: (event) => { event.preventDefault(); open(key); } }, titleOf(key));
  return h("tr", { "data-key": key.id },
    h("td", { "data-label": "Name" }, link, h("small", { class: "mono" }, key.hint ? `…${key.hint}` : key.id)),
    h("td", { "data-label": "Account" }, h("a", { class: "quiet", href: `#/accounts/${encodeURIComponent(key.account)}` }, key.account)),
    h("td", { "data-label": "Tier" }, key.tier, key.limits ? h("small", {}, key.limits) : null),
    h("td", { "data-label": "Scopes" }, scopeList(key)),
    h("td", { "data-label": "Last used" }, ago(key.last_used)),
    h("td", { "data-label": "Expires" }, condition(key) === "revoked" ? h("span", { class: "faint" }, "–") : ago(key.expires_at)),
    h("td", { "data-label": "Status" }, h("span", { class: "chips" }, badge(condition(key)), marks(key))));
}

/** The filters stand in the address, so that a view can be shared and comes back with the back button. */
export function keys(main, parameters, status) {
  let cursor = null;
  let generation = 0;
  const body = h("tbody", {});
  const more = h("button", { type: "button", class: "button", hidden: true, onclick: () => load(false) }, "Load more");
  const note = h("p", { class: "empty", role: "status" });
  const select = (label, name, options) => h("label", { class: "field inline" }, h("span", { class: "offscreen" }, label),
    h("select", { name, onchange: changed }, h("option", { value: "" }, label), options.map((value) => h("option", { value }, value))));
  const search = h("input", { type: "search", name: "q", placeholder: "Search name, id or last four characters", "aria-label": "Search keys", oninput: soon, autocomplete: "off", spellcheck: "false" });
  const account = h("input", { type: "search", name: "account", placeholder: "Account", "aria-label": "Account", oninput: soon, autocomplete: "off", spellcheck: "false" });
  const filters = h("form", { class: "filters", role: "search", onsubmit: (event) => { event.preventDefault(); changed(); } },
    h("div", { class: "searchbox" }, icon("search"), search), account,
    select("Any status", "status", ["active", "disabled", "expired", "revoked"]),
    select("Any tier", "tier", status.tiers.map((tier) => tier.name)),
    h("label", { class: "check" }, h("input", { type: "checkbox", name: "due", onchange: changed }), "Due for rotation"));
  for (const [name, value] of parameters) {
    const field = filters.elements[name];
    if (field?.type === "checkbox") field.checked = value === "true";
    else if (field) field.value = value;
  }

  function query() {
    const values = new URLSearchParams();
    for (const name of ["q", "account", "status", "tier"]) {
      const value = filters.elements[name].value.trim();
      if (value) values.set(name, value);
    }
    if (filters.elements.due.checked) values.set("due", "true");
    return values;
  }

  let timer = null;
  function soon() {
    clearTimeout(timer);
    timer = setTimeout(changed, 250);
  }
  function changed() {
    clearTimeout(timer);
    const values = query().toString();
    history.replaceState(null, "", `#/keys${values ? `?${values}` : ""}`);
    load(true);
  }

  async function load(afresh) {
    const mine = ++generation;
    const values = query();
    values.set("limit", PAGE);
    if (!afresh && cursor) values.set("cursor", cursor);
    try {
      const page = await get(`/v1/keys?${values}`);
      if (mine !== generation) return;
      const rows = page.keys.map((key) => row(key, open));
      if (afresh) fill(body, rows);
      else body.append(...rows);
      cursor = page.next_cursor;
      more.hidden = cursor === null;
      const isFiltered = query().size > 0;
      note.textContent = body.children.length ? "" : isFiltered ? "No key fits these filters." : "There is no key yet. Generate the first one.";
      // A page may hold nothing and still have a successor.
      if (!body.children.length && cursor) load(false);
    } catch (error) {
      if (mine === generation) note.textContent = error.message;
    }
  }

  function open(key) { location.hash = `#/keys/${encodeURIComponent(key.id)}`; }

  const canWrite = session.role === "write";
  fill(main,
    h("div", { class: "title" }, h("div", {}, h("p", { class: "crumb" }, "Settings"), h("h1", {}, "API Keys")),
      canWrite ? h("button", { type: "button", class: "button primary", id: "generate", onclick: () => askForNewKey(status, () => load(true)) }, icon("plus"), "Generate new key") : badge("read only", "calm")),
    status.store.kind === "memory" ? h("p", { class: "notice" }, icon("warning"), h("span", {}, "This gateway has no store: keys made here live as long as its process. Each is shown with the line that keeps it.")) : null,
    filters,
    h("div", { class: "card flush" },
      h("table", { class: "stack" },
        h("caption", { class: "offscreen" }, "API keys, the newest first"),
        h("thead", {}, h("tr", {}, ["Name", "Account", "Tier", "Scopes", "Last used", "Expires", "Status"].map((name) => h("th", { scope: "col" }, name)))),
        body)),
    note, h("div", { class: "center" }, more));
  load(true);
  return () => { clearTimeout(timer); generation += 1; };
}

function fact(name, ...value) { return h("div", {}, h("dt", {}, name), h("dd", {}, value)); }

/** One key: what it is, its account's window, and what can be done. */
export function keyPage(main, id, status) {
  const path = `/v1/keys/${encodeURIComponent(id)}`;
  let etag = null;
  const heading = h("h1", {}, "Key");
  const state = h("span", { class: "chips" });
  const actions = h("div", { class: "actions" });
  const facts = h("dl", { class: "facts-list" });
  const notice = h("div", {});
  const picture = h("div", {});
  const trail = h("div", {});
  let ends = () => {};
  let isShown = true;
  fill(main,
    h("div", { class: "title" }, h("div", {}, h("p", { class: "crumb" }, "Settings / ", h("a", { href: "#/keys" }, "API Keys")), heading, state), actions),
    notice, h("div", { class: "columns even" },
      h("section", { class: "card", "aria-label": "Details" }, h("header", {}, h("h2", {}, "Details")), facts),
      h("section", { class: "card", "aria-label": "Window" }, h("header", {}, h("h2", {}, "Window of its account")), picture)),
    h("section", { class: "card flush", "aria-label": "History" }, h("header", {}, h("h2", {}, "History")), trail));

  function show(key) {
    const now = condition(key);
    heading.textContent = titleOf(key);
    document.title = `${titleOf(key)} – Gateway`;
    fill(state, badge(now), marks(key));
    fill(facts,
      fact("Id", h("code", {}, key.id)), fact("Ends in", key.hint ? h("code", {}, `…${key.hint}`) : "–"),
      fact("Account", h("a", { href: `#/accounts/${encodeURIComponent(key.account)}` }, key.account)),
      fact("Tier", key.tier), fact("Own limits", key.limits ?? h("span", { class: "faint" }, "none: the tier's")),
      fact("Scopes", key.scopes?.length ? h("span", { class: "chips" }, key.scopes.map((scope) => h("span", { class: "chip" }, scope))) : h("span", { class: "faint" }, "none")),
      fact("Made", date(key.created_at, "unknown")), fact("Expires", ago(key.expires_at)), fact("Last used", ago(key.last_used)),
      key.rotated_from ? fact("Replaces", h("a", { href: `#/keys/${encodeURIComponent(key.rotated_from)}` }, key.rotated_from)) : null,
      key.rotated_to ? fact("Replaced by", h("a", { href: `#/keys/${encodeURIComponent(key.rotated_to)}` }, key.rotated_to)) : null);
    fill(notice, key.rotated_to && now === "active" ? h("p", { class: "notice" }, icon("warning"),
      h("span", {}, "This key has been replaced and still works until ", deadline(key.expires_at), ". It was last used ", ago(key.last_used),
        key.calls_since_rotation !== undefined ? `; ${count(key.calls_since_rotation)} calls since then.` : ".")) : null);
    const canChange = session.role === "write" && !key.static && now !== "revoked";
    fill(actions, canChange ? [
      h("button", { type: "button", class: "button", onclick: () => askForEdit(key, etag, status, load) }, "Edit"),
      now !== "expired" ? h("button", { type: "button", class: "button", onclick: () => askForRotation(key, status, load) }, "Rotate") : null,
      key.status === "active"
        ? h("button", { type: "button", class: "button", onclick: () => askForReason(key, "disable", "Disable", load) }, "Disable")
        : h("button", { type: "button", class: "button", onclick: () => askForReason(key, "enable", "Enable", load) }, "Enable"),
      h("button", { type: "button", class: "button danger", onclick: () => askForRevocation(key, load) }, "Revoke"),
    ] : session.role === "write" && key.static ? badge("changed in the configuration only", "calm") : null);
  }

  let account = null;
  async function load() {
    try {
      const answer = await call("GET", path);
      if (!isShown) return;
      etag = answer.etag;
      show(answer.value);
      if (account !== answer.value.account) {
        account = answer.value.account;
        ends();
        ends = windows(picture, account);
      }
      const entries = (await get(`/v1/audit?key=${encodeURIComponent(id)}&limit=20`)).entries;
      if (isShown) fill(trail, auditTable(entries, false));
    } catch (error) {
      if (isShown) fill(notice, h("p", { class: "trouble", role: "alert" }, error.message));
    }
  }
  const stop = repeat(5000, load);
  return () => {
    isShown = false;
    stop();
    ends();
  };
}

const changeText = (value) => (value === null || value === undefined ? "none" : Array.isArray(value) ? value.join(" ") || "none" : String(value));

function changes(entry) {
  const names = [...new Set([...Object.keys(Object(entry.before)), ...Object.keys(Object(entry.after))])];
  const shown = names.filter((name) => !["id", "hint", "created_at"].includes(name));
  if (entry.action === "create" || !shown.length) return null;
  const asText = (name, value) => (/_at$/.test(name) && typeof value === "number" ? new Date(value * 1000).toISOString().slice(0, 16).replace("T", " ") : changeText(value));
  return h("ul", { class: "changes" }, shown.map((name) => h("li", {}, h("span", { class: "faint" }, `${name} `),
    h("del", {}, asText(name, entry.before?.[name])), " → ", h("ins", {}, asText(name, entry.after?.[name])))));
}

/** Lines of the audit trail. */
export function auditTable(entries, withKey = true) {
  if (!entries.length) return h("p", { class: "empty" }, "Nothing has been written down.");
  return h("table", { class: "stack" },
    h("caption", { class: "offscreen" }, "Audit trail, the latest first"),
    h("thead", {}, h("tr", {}, ["When", "What", withKey ? "Key" : null, withKey ? "Account" : null, "Who", "Why and what changed"].filter(Boolean).map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, entries.map((entry) => h("tr", {},
      h("td", { "data-label": "When" }, ago(entry.at)),
      h("td", { "data-label": "What" }, badge(entry.action, { create: "active", revoke: "revoked", exposed: "revoked", disable: "disabled" }[entry.action] ?? "calm")),
      withKey ? h("td", { "data-label": "Key" }, h("a", { class: "mono", href: `#/keys/${encodeURIComponent(entry.id)}` }, entry.id)) : null,
      withKey ? h("td", { "data-label": "Account" }, h("a", { class: "quiet", href: `#/accounts/${encodeURIComponent(entry.account)}` }, entry.account)) : null,
      h("td", { "data-label": "Who" }, entry.actor, h("small", {}, entry.from)),
      h("td", { "data-label": "Why" }, entry.reason ? h("span", {}, entry.reason) : null, changes(entry))))));
}
