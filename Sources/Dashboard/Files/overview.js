// Overview: what goes through, what is turned away and why, how fast, and whether everything around is well.

import { h, fill } from "./dom.js";
import { timeChart, sparkline, bars } from "./charts.js";
import { badge, compact, count, latency, rate, reasonText, span, ago, date } from "./format.js";
import { get } from "./api.js";
import { repeat } from "./repeat.js";

const failing = new Set(["store_unavailable", "overloaded", "no_healthy_endpoint", "connect_failed", "upstream_closed", "tunnel_cut", "upstream_nonsense", "upstream_timeout"]);

function tile(label, kind) {
  const value = h("strong", {}, "–");
  const note = h("small", {}, " ");
  const spark = sparkline(kind);
  return {
    element: h("article", { class: "tile" }, h("h3", {}, label), value, note, spark.element),
    update(text, noteText, values) {
      value.textContent = text;
      note.textContent = noteText;
      spark.update(values);
    },
  };
}

function card(title, body, extra) {
  return h("section", { class: "card", "aria-label": title }, h("header", {}, h("h2", {}, title), extra), body);
}

function healthLine(isWell, name, note) {
  return h("li", { class: isWell ? "well" : "ill" }, h("i", { class: "dot" }),
    h("span", { class: "grow" }, name, note ? h("small", {}, note) : null), h("b", {}, isWell ? "up" : "down"));
}

function storeLines(status) {
  const { store, latency: { store: times } } = status;
  const notes = [];
  if (store.kind === "memory") notes.push("keys stand in the configuration, limits in this process");
  else {
    if (!store.up) notes.push({ local: "limits are kept by each node for itself", closed: "calls are refused", open: "calls are let through and counted" }[store.on_outage]);
    if (times.p99 !== null) notes.push(`p50 ${latency(times.p50)}, p99 ${latency(times.p99)}`);
    if (store.revocation_lag !== null) notes.push(`a revocation is heard within ${span(Math.max(0.1, store.revocation_lag))}`);
  }
  return healthLine(store.up, `Store: ${store.kind}`, notes.join(" · "));
}

function healthList(status) {
  const soon = 21 * 86400;
  return h("ul", { class: "health" },
    storeLines(status),
    status.upstreams.flatMap((upstream) => upstream.endpoints.map((endpoint) =>
      healthLine(endpoint.healthy, `${upstream.name}: ${endpoint.endpoint}`, upstream.checked ? null : "not checked: health is not configured"))),
    status.certificates.map((certificate) => {
      const left = certificate.not_after - status.now;
      return h("li", { class: left > soon ? "well" : "ill" }, h("i", { class: "dot" }),
        h("span", { class: "grow" }, `Certificate: ${certificate.subject}`, h("small", {}, "ends ", ago(certificate.not_after))), h("b", {}, date(certificate.not_after)));
    }),
    status.reload_succeeded ? null : healthLine(false, "Configuration", "the last reload failed: the old configuration serves; see the log"));
}

export function overview(main) {
  const tiles = {
    requests: tile("Requests a second", "accent"), refused: tile("Refused", "warn"),
    p50: tile("Latency p50", "calm"), p99: tile("Latency p99", "calm"), connections: tile("Connections", "accent"),
  };
  const traffic = timeChart("Requests a second", [
    { name: "All", kind: "accent", area: true }, { name: "Refused (4xx)", kind: "warn" }, { name: "Failed (5xx)", kind: "bad" },
  ], rate, 250);
  const times = timeChart("Latency", [{ name: "p50", kind: "calm", area: true }, { name: "p99", kind: "accent" }], (value) => (value ? latency(value) : "0"));
  const refusals = h("div", {});
  const decisions = h("div", {});
  const health = h("div", {});
  const facts = h("p", { class: "facts" });
  const trouble = h("div", { role: "alert" });
  fill(main,
    h("div", { class: "title" }, h("h1", {}, "Overview"), facts), trouble,
    h("div", { class: "tiles" }, Object.values(tiles).map((one) => one.element)),
    h("div", { class: "columns two-one" },
      card("Traffic", traffic.element), card("Refusals by reason", refusals, h("small", {}, "since the start"))),
    h("div", { class: "columns two-one" },
      card("Latency", times.element), card("Health", health)),
    card("Limit decisions", decisions, h("small", {}, "since the start")));

  function show(status) {
    const { history } = status;
    const last = (column) => history[column].at(-1);
    const refusedNow = last("refused") ?? 0;
    const requestsNow = last("requests") ?? 0;
    const minute = status.latency.requests;
    fill(trouble);
    tiles.requests.update(rate(requestsNow), `${compact(status.requests.total)} since the start`, history.requests);
    tiles.refused.update(requestsNow ? `${Math.round((refusedNow / requestsNow) * 100)}%` : "0%",
      `${compact(status.requests["4xx"])} refused, ${compact(status.requests["5xx"])} failed`, history.refused);
    tiles.p50.update(latency(minute.p50), minute.count ? "over the last minute" : "no call in the last minute", history.p50);
    tiles.p99.update(latency(minute.p99), minute.count ? `${compact(minute.count)} calls` : " ", history.p99);
    tiles.connections.update(compact(status.connections.active), `${compact(status.connections.idle)} idle, ${compact(status.connections.limit)} allowed`, history.connections);
    traffic.update(history.at, [history.requests, history.refused, history.failed]);
    times.update(history.at, [history.p50, history.p99]);
    fill(refusals, bars(Object.entries(status.refusals).map(([name, value]) => (
      { name: reasonText(name), value, kind: failing.has(name) ? "bad" : name === "limited" ? "accent" : "warn" })), count,
    "Nothing has been refused."));
    fill(decisions, h("dl", { class: "numbers" }, [
      ["Allowed", status.limits.allowed], ["Limited (429)", status.limits.limited],
      ["Allowed without the store", status.limits.allowed_degraded], ["Limited without the store", status.limits.limited_degraded],
      ["Plain HTTP refused", status.plaintext_refused],
    ].map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, count(value))))));
    fill(health, healthList(status));
    fill(facts, badge(status.phase, status.phase === "serving" ? "active" : "disabled"),
      ` version ${status.version} · ${status.workers} worker${status.workers === 1 ? "" : "s"} · ${status.nodes} node${status.nodes === 1 ? "" : "s"} · started `, ago(status.started_at));
  }

  return repeat(2000, async () => {
    try {
      show(await get("/v1/status"));
    } catch (error) {
      fill(trouble, h("p", { class: "trouble" }, error.message));
    }
  });
}
