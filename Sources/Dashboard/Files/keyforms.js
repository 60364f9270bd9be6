// The forms behind the keys' buttons. A key's text lives in one dialog and nowhere else: not in the address, not in
// storage, and not in the page once the dialog is closed.

import { h, fill, icon, dialog, toast, copyButton } from "./dom.js";
import { date, span } from "./format.js";
import { call, idempotencyKey } from "./api.js";

let fieldNumber = 0;

/** A labelled field with room for what is wrong with it. */
function field(label, input, hint) {
  const id = `f${++fieldNumber}`;
  input.id = id;
  const error = h("p", { class: "error", id: `${id}e`, role: "alert" });
  input.setAttribute("aria-describedby", `${id}h ${id}e`);
  return h("div", { class: "field", "data-field": input.getAttribute("name") },
    h("label", { for: id }, label), input, hint ? h("p", { class: "hint", id: `${id}h` }, hint) : null, error);
}

function say(form, error) {
  for (const other of form.querySelectorAll(".error")) other.textContent = "";
  for (const other of form.querySelectorAll("[aria-invalid]")) other.removeAttribute("aria-invalid");
  const place = error.field && form.querySelector(`[data-field="${CSS.escape(error.field)}"]`);
  if (place) {
    place.querySelector(".error").textContent = error.message;
    const input = place.querySelector("input, select, textarea");
    input?.setAttribute("aria-invalid", "true");
    input?.focus();
  } else form.querySelector(".form-error").textContent = error.message;
}

/** A form in a dialog: `submit` does the work and says what comes next. */
function form(title, parts, submitLabel, submit, { danger = false, guard = null } = {}) {
  const send = h("button", { type: "submit", class: `button ${danger ? "danger" : "primary"}` }, submitLabel);
  const element = h("form", { novalidate: true, onsubmit: async (event) => {
    event.preventDefault();
    if (send.disabled) return;
    send.disabled = true;
    send.classList.add("busy");
    try {
      await submit(element, box);
    } catch (error) {
      say(element, error);
    } finally {
      send.classList.remove("busy");
      send.disabled = guard ? !guard(element) : false;
    }
  } }, parts, h("p", { class: "error form-error", role: "alert" }),
  h("footer", {}, h("button", { type: "button", class: "button ghost", onclick: () => box.close() }, "Cancel"), send));
  if (guard) {
    send.disabled = true;
    element.addEventListener("input", () => { send.disabled = !guard(element); });
  }
  const box = dialog(title, element);
  element.querySelector("input, select")?.focus();
  return box;
}

// MARK: Scopes

/** A list of scopes with those that the routes ask for at hand. */
function scopeField(chosen, known) {
  const scopes = new Set(chosen);
  const list = h("span", { class: "chips" });
  const input = h("input", { name: "scopes", list: "known-scopes", placeholder: "projects:read", autocomplete: "off", spellcheck: "false", autocapitalize: "off",
    onkeydown: (event) => {
      if ((event.key === "Enter" || event.key === "," || event.key === " ") && input.value.trim()) {
        event.preventDefault();
        take();
      } else if (event.key === "Backspace" && !input.value && scopes.size) {
        scopes.delete([...scopes].at(-1));
        draw();
      }
    }, onchange: take, onblur: take });
  const suggestions = h("div", { class: "chips suggestions" });
  function take() {
    for (const word of input.value.split(/[\s,]+/)) if (word) scopes.add(word);
    input.value = "";
    draw();
  }
  function draw() {
    fill(list, [...scopes].map((scope) => h("button", { type: "button", class: "chip removable", "aria-label": `Remove scope ${scope}`, onclick: () => { scopes.delete(scope); draw(); input.focus(); } }, scope, icon("close"))));
    fill(suggestions, [...known, "*"].filter((scope) => !scopes.has(scope)).map((scope) =>
      h("button", { type: "button", class: "chip add", "aria-label": `Add scope ${scope}`, onclick: () => { scopes.add(scope); draw(); } }, icon("plus"), scope)));
  }
  draw();
  const element = field("Scopes", input, "What it may do: as a route asks for it, projects:* for all below, * for everything.");
  element.insertBefore(list, input);
  element.insertBefore(suggestions, element.querySelector(".hint"));
  return { element, value: () => { take(); return [...scopes]; } };
}

function tierField(status, chosen) {
  return field("Tier", h("select", { name: "tier" }, status.tiers.map((tier) =>
    h("option", { value: tier.name, selected: tier.name === chosen }, `${tier.name} – ${tier.limits.replaceAll(",", ", ")}`))));
}

const text = (name, value, placeholder) => h("input", { name, value: value ?? "", placeholder: placeholder ?? "", autocomplete: "off", spellcheck: "false", autocapitalize: "off" });

// MARK: Expiry

const lifetimes = [["7 days", 7], ["30 days", 30], ["90 days", 90], ["1 year", 365]];

function expiryField(chosen, current) {
  const custom = h("input", { type: "date", name: "expires_on", "aria-label": "Last day", min: new Date(Date.now() + 86400_000).toISOString().slice(0, 10), hidden: true });
  const select = h("select", { name: "expires_at", onchange: () => { custom.hidden = select.value !== "custom"; if (!custom.hidden) custom.focus(); } },
    current !== undefined ? h("option", { value: "keep" }, "Leave as it is") : null,
    lifetimes.map(([label, days]) => h("option", { value: String(days), selected: days === chosen }, label)),
    h("option", { value: "custom" }, "On a date…"), h("option", { value: "never" }, "Never"));
  const element = field("Expires", select, current !== undefined ? ["Now: ", date(current ?? undefined)] : "A key that ends by itself cannot be forgotten.");
  element.insertBefore(custom, element.querySelector(".hint"));
  return { element, choice: () => [select.value, custom.value], value() {
    if (select.value === "keep") return undefined;
    if (select.value === "never") return null;
    if (select.value === "custom") {
      const end = Date.parse(`${custom.value}T23:59:59`);
      if (!custom.value || Number.isNaN(end)) throw Object.assign(new Error("choose a day"), { field: "expires_at" });
      return Math.floor(end / 1000);
    }
    return Math.floor(Date.now() / 1000) + Number(select.value) * 86400;
  } };
}

// MARK: Generate

/** Shows a key for the first and last time. */
function showKey(box, key, status, title, note) {
  const base = status.public_url ?? `https://${location.hostname}${status.https_port === 443 ? "" : `:${status.https_port}`}`;
  const line = `curl ${base}${status.example_path} -H "Authorization: Bearer ${key.key}"`;
  const secret = h("input", { class: "mono secret", readonly: true, value: key.key, "aria-label": "The new key", onfocus: (event) => event.target.select() });
  box.querySelector("h2").textContent = title;
  // A slip of the hand must not lose it.
  box.dataset.guarded = "yes";
  fill(box.querySelector(".body"),
    h("p", { class: "notice" }, icon("warning"), h("span", {}, h("b", {}, "Copy it now."), " It is shown this once: only its digest is kept.")),
    h("div", { class: "reveal" }, secret, copyButton("Copy key", () => key.key)),
    h("h3", {}, "Try it"),
    h("div", { class: "reveal" }, h("pre", { class: "mono curl", tabindex: "0", "aria-label": "A call to paste" }, line), copyButton("Copy call", () => line)),
    key.static_entry ? [h("h3", {}, "Keep it"), h("p", { class: "hint" }, "This gateway has no store: the key ends with the process, unless this line stands under keys.static."),
      h("div", { class: "reveal" }, h("pre", { class: "mono entry", tabindex: "0", "aria-label": "A line of the configuration" }, key.static_entry), copyButton("Copy line", () => key.static_entry))] : null,
    note ?? null,
    h("dl", { class: "facts-list small" }, [["Account", key.account], ["Tier", key.tier], ["Scopes", key.scopes?.join(" ") || "none"], ["Expires", date(key.expires_at)]]
      .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    h("footer", {}, h("button", { type: "button", class: "button primary", onclick: () => box.close() }, "Done, it is copied")));
  secret.focus();
}

export function askForNewKey(status, done) {
  const scopes = scopeField([], status.scopes);
  const expiry = expiryField(90);
  // What was sent, as it was sent: pressing again after a broken connection makes one key, while a form that has been
  // edited asks for another.
  let attempt = null;
  form("Generate new key", [
    field("Name", text("name", "", "ci, mobile app, partner …"), "What its owner calls it. Names are unique within an account."),
    field("Account", text("account", "", "acme"), "Whom its calls count against. Left empty, the key is an account of its own."),
    tierField(status, status.tiers[0]?.name), scopes.element, expiry.element,
    h("details", {}, h("summary", {}, "Limits of its own"),
      field("Limits", text("limits", "", "5000/minute, 200/second"), "Instead of the tier's.")),
  ], "Generate key", async (element, box) => {
    const values = { tier: element.elements.tier.value, scopes: scopes.value() };
    for (const name of ["name", "account", "limits"]) {
      const value = element.elements[name].value.trim();
      if (value) values[name] = value;
    }
    // A lifetime ends a little later with every press; what was chosen stays the same.
    const asked = JSON.stringify([values, expiry.choice()]);
    if (attempt?.asked !== asked) attempt = { asked, values: { ...values, expires_at: expiry.value() }, key: idempotencyKey() };
    const { value } = await call("POST", "/v1/keys", attempt.values, { "Idempotency-Key": attempt.key });
    if (value.key) showKey(box, value, status, "Your new key");
    else {
      box.close();
      toast("The key had been made already and was shown then.", "bad");
    }
    done();
  });
}

// MARK: Changes

export function askForEdit(key, etag, status, done) {
  const scopes = scopeField(key.scopes ?? [], status.scopes);
  const expiry = expiryField(null, key.expires_at ?? null);
  form("Edit key", [
    field("Name", text("name", key.name)), tierField(status, key.tier), scopes.element,
    field("Limits", text("limits", key.limits, "the tier's"), "Left empty, the tier's hold. Changes act on the next call and reset nothing."), expiry.element,
  ], "Save", async (element, box) => {
    const values = {};
    for (const name of ["name", "limits"]) {
      const value = element.elements[name].value.trim();
      if (value !== (key[name] ?? "")) values[name] = value || null;
    }
    if (element.elements.tier.value !== key.tier) values.tier = element.elements.tier.value;
    const wanted = scopes.value();
    if (wanted.join(" ") !== (key.scopes ?? []).join(" ")) values.scopes = wanted;
    const expires = expiry.value();
    if (expires !== undefined) values.expires_at = expires;
    if (Object.keys(values).length) {
      try {
        await call("PATCH", `/v1/keys/${encodeURIComponent(key.id)}`, values, { "If-Match": etag });
      } catch (error) {
        if (error.status === 412) error.message = "Somebody changed this key while the form was open. Close it, look at the key again, and repeat your change.";
        throw error;
      }
      toast("Saved.");
    }
    box.close();
    done();
  });
}

const overlaps = [["Now", 0, "the old key ends at once"], ["15 minutes", 900, ""], ["1 hour", 3600, ""], ["6 hours", 21_600, ""], ["24 hours", 86_400, ""]];

export function askForRotation(key, status, done) {
  const choices = h("fieldset", { class: "choices", "data-field": "overlap_seconds" }, h("legend", {}, "The old key keeps working for"),
    overlaps.map(([label, seconds, hint]) => h("label", {}, h("input", { type: "radio", name: "overlap", value: String(seconds), checked: seconds === 86_400 }), h("span", {}, label, hint ? h("small", {}, hint) : null))),
    h("p", { class: "error", role: "alert" }));
  form(`Rotate ${key.name || key.id}`, [
    h("p", {}, "A new key takes over account, tier, scopes and limits. Give it to the key's owner within the time you choose here.",
      key.expires_at !== undefined ? [" The overlap ends with the old key at the latest: ", date(key.expires_at), "."] : null),
    choices, field("Reason", text("reason", "", "yearly rotation")),
  ], "Rotate key", async (element, box) => {
    const values = { overlap_seconds: Number(new FormData(element).get("overlap")) };
    const reason = element.elements.reason.value.trim();
    if (reason) values.reason = reason;
    const { value } = await call("POST", `/v1/keys/${encodeURIComponent(key.id)}/rotate`, values);
    const left = (value.old.expires_at ?? 0) - Date.now() / 1000;
    showKey(box, value.new, status, "The key that takes over",
      value.warning ? h("p", { class: "notice bad" }, icon("warning"), value.warning)
        : h("p", { class: "hint" }, left > 1 ? `The old key works for another ${span(Math.round(left))}.` : "The old key no longer works."));
    done();
  });
}

export function askForReason(key, action, label, done) {
  form(`${label} ${key.name || key.id}?`, [
    h("p", {}, action === "disable" ? "Calls with this key are refused until it is enabled again." : "Calls with this key are let in again."),
    field("Reason", text("reason", "")),
  ], label, async (element, box) => {
    const reason = element.elements.reason.value.trim();
    await call("POST", `/v1/keys/${encodeURIComponent(key.id)}/${action}`, reason ? { reason } : {});
    toast(action === "disable" ? "Disabled." : "Enabled.");
    box.close();
    done();
  });
}

export function askForRevocation(key, done) {
  const word = key.name || key.id;
  form(`Revoke ${word}?`, [
    h("p", { class: "notice bad" }, icon("warning"), h("span", {}, "Calls with this key are refused within a second, on every gateway. ", h("b", {}, "This cannot be undone."))),
    field("Reason", text("reason", "", "leaked in a build log"), "Stands in the audit trail."),
    field(h("span", {}, "Type ", h("code", {}, word), " to confirm"), text("confirmation", "")),
  ], "Revoke for good", async (element, box) => {
    await call("POST", `/v1/keys/${encodeURIComponent(key.id)}/revoke`, { reason: element.elements.reason.value.trim() });
    toast("Revoked.");
    box.close();
    done();
  }, { danger: true, guard: (element) => element.elements.confirmation.value === word && element.elements.reason.value.trim() !== "" });
}
