// Numbers, times and words as people read them.

import { h } from "./dom.js";

const whole = new Intl.NumberFormat("en");
const compactFormat = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const dateTime = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const dateOnly = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium" });
const utc = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short", timeZone: "UTC" });
const clockOnly = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

export const count = (value) => whole.format(value);
export const compact = (value) => (value < 10_000 ? whole.format(value) : compactFormat.format(value));
export const clock = (milliseconds) => clockOnly.format(milliseconds);

/** A rate a second. */
export function rate(value) {
  if (value >= 100) return compact(Math.round(value));
  return value >= 10 ? value.toFixed(1).replace(/\.0$/, "") : value.toFixed(value > 0 && value < 1 ? 2 : 1).replace(/\.0+$/, "");
}

/** Seconds as a latency. */
export function latency(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 0.0995) return `${(seconds * 1000).toFixed(1)} ms`;
  return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(2)} s`;
}

/** Seconds as a length of time: "15 minutes". */
export function span(seconds) {
  for (const [unit, size] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    if (seconds >= size) {
      const value = Math.round((seconds / size) * 10) / 10;
      return `${value} ${unit}${value === 1 ? "" : "s"}`;
    }
  }
  const value = Math.round(seconds * 100) / 100;
  return `${value} second${value === 1 ? "" : "s"}`;
}

function relativeText(seconds, now) {
  const distance = seconds - now;
  for (const [unit, size, from] of [["year", 31_557_600, 1.5], ["month", 2_629_800, 4], ["day", 86400, 1], ["hour", 3600, 1], ["minute", 60, 1]]) {
    if (Math.abs(distance) >= size * from) return relative.format(Math.round(distance / size), unit);
  }
  return Math.abs(distance) < 5 ? "just now" : relative.format(Math.trunc(distance), "second");
}

/** A moment, told by its distance, with the whole date behind it. */
export function ago(seconds, otherwise = "never") {
  if (seconds === undefined || seconds === null) return h("span", { class: "faint" }, otherwise);
  return h("time", { datetime: new Date(seconds * 1000).toISOString(), title: dateTime.format(seconds * 1000) },
    relativeText(seconds, Date.now() / 1000));
}

export function date(seconds, otherwise = "never") {
  if (seconds === undefined || seconds === null) return h("span", { class: "faint" }, otherwise);
  return h("time", { datetime: new Date(seconds * 1000).toISOString(), title: dateTime.format(seconds * 1000) },
    dateOnly.format(seconds * 1000));
}

/** A moment to the minute, in the time that the command line shows too. */
export function deadline(seconds) {
  if (seconds === undefined || seconds === null) return h("span", { class: "faint" }, "it is revoked");
  return h("time", { datetime: new Date(seconds * 1000).toISOString(), title: dateTime.format(seconds * 1000) },
    `${utc.format(seconds * 1000)} UTC`);
}

export const moment = (milliseconds) => dateTime.format(milliseconds);

/** Reasons of the access log in words. */
export const reasons = {
  bad_request: "Malformed request", key_missing: "No key", key_malformed: "Malformed key", key_unknown: "Unknown key",
  key_expired: "Expired key", key_disabled: "Disabled key", key_revoked: "Revoked key",
  key_record_unusable: "Unusable key record", too_many_failures: "Guessing stopped", scope_missing: "Scope missing",
  no_route: "No such route", method_not_allowed: "Method not allowed", limited: "Over the limit",
  request_timeout: "Request too slow", too_large: "Body too large", misdirected: "Wrong host", plain_http: "Plain HTTP",
  store_unavailable: "Key store unreachable", overloaded: "Overloaded", no_healthy_endpoint: "No healthy upstream",
  connect_failed: "Upstream unreachable", upstream_closed: "Upstream hung up", upstream_nonsense: "Upstream answered nonsense",
  upstream_timeout: "Upstream too slow", caller_gone: "Caller hung up", draining: "Draining",
  tunnel_cut: "Upstream cut a tunnel",
};

export const reasonText = (name) => reasons[name] ?? name.replaceAll("_", " ");

/** The condition of a key now. */
export function condition(key) {
  if (key.status !== "active") return key.status;
  return key.expires_at !== undefined && key.expires_at <= Date.now() / 1000 ? "expired" : "active";
}

export function badge(text, kind = text) { return h("span", { class: `badge ${kind}` }, text); }
