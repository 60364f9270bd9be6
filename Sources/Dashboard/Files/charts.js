// Pictures drawn as SVG from numbers: lines over the last minutes, bars, and the calls inside an account's window.

import { h, s, fill } from "./dom.js";
import { clock } from "./format.js";

/** A round number at or above `value`, so that the axis does not jitter. */
function roundUp(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  for (const step of [1, 2, 2.5, 5, 10]) if (value <= step * power) return step * power;
  return 10 * power;
}

/** Draws again when its width changes. */
function watchWidth(element, draw) {
  let last = 0;
  new ResizeObserver(() => {
    if (element.clientWidth && element.clientWidth !== last) {
      last = element.clientWidth;
      draw();
    }
  }).observe(element);
}

/**
 * Lines over time. `series` are `{ name, kind, area }`; `update(at, columns)` brings new numbers, null being a gap.
 * `text` makes a value readable.
 */
export function timeChart(label, series, text, height = 190) {
  const plot = h("div", { class: "plot" });
  const legend = h("ul", { class: "legend" }, series.map((line) => h("li", {}, h("i", { class: `key ${line.kind}` }), line.name)));
  const tip = h("div", { class: "tip", hidden: true });
  const figure = h("figure", { class: "chart" }, plot, tip, legend);
  let at = [];
  let columns = [];
  let geometry = null;
  let marker = null;

  function draw() {
    const width = plot.clientWidth || 600;
    const [left, right, top, bottom] = [52, 8, 10, 22];
    const peak = roundUp(Math.max(0, ...columns.flat().filter((value) => value !== null)));
    const end = at.at(-1) ?? Date.now();
    const start = end - 300_000;
    const x = (time) => left + ((time - start) / 300_000) * (width - left - right);
    const y = (value) => height - bottom - (value / peak) * (height - top - bottom);
    geometry = { x, y, left, right, width };
    const parts = [];
    for (const share of [0, 0.5, 1]) {
      parts.push(s("line", { class: "grid", x1: left, x2: width - right, y1: y(peak * share), y2: y(peak * share) }));
      parts.push(s("text", { class: "axis", x: left - 8, y: y(peak * share) + 4, "text-anchor": "end" }, text(peak * share)));
    }
    for (const minutes of [5, 4, 3, 2, 1]) {
      if (width < 420 && minutes % 2 === 0) continue;
      parts.push(s("text", { class: "axis", x: x(end - minutes * 60_000), y: height - 5, "text-anchor": minutes === 5 ? "start" : "middle" }, `−${minutes} min`));
    }
    parts.push(s("text", { class: "axis", x: width - right, y: height - 5, "text-anchor": "end" }, "now"));
    series.forEach((line, index) => {
      let path = "";
      let runStart = null;
      let previous = null;
      const areas = [];
      const close = () => {
        if (line.area && runStart !== null) areas.push(`${path.slice(path.lastIndexOf("M"))}L${x(previous)},${y(0)}L${x(runStart)},${y(0)}Z`);
        runStart = null;
      };
      at.forEach((time, position) => {
        const value = columns[index]?.[position] ?? null;
        if (value === null || time < start) { close(); return; }
        path += `${runStart === null ? "M" : "L"}${x(time).toFixed(1)},${y(value).toFixed(1)}`;
        runStart ??= time;
        previous = time;
      });
      close();
      if (areas.length) parts.push(s("path", { class: `area ${line.kind}`, d: areas.join("") }));
      parts.push(s("path", { class: `line ${line.kind}`, d: path || "M0,0" }));
    });
    marker = s("line", { class: "marker", y1: top, y2: height - bottom, visibility: "hidden" });
    parts.push(marker);
    const latest = series.map((line, index) => `${line.name} ${columns[index]?.at(-1) == null ? "none" : text(columns[index].at(-1))}`).join(", ");
    fill(plot, s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${label}, last five minutes. Now: ${latest}` }, parts));
  }

  plot.addEventListener("pointermove", (event) => {
    if (!geometry || !at.length) return;
    const place = event.clientX - plot.getBoundingClientRect().left;
    let nearest = 0;
    at.forEach((time, index) => { if (Math.abs(geometry.x(time) - place) < Math.abs(geometry.x(at[nearest]) - place)) nearest = index; });
    const x = geometry.x(at[nearest]);
    marker.setAttribute("x1", x);
    marker.setAttribute("x2", x);
    marker.setAttribute("visibility", "visible");
    fill(tip, h("strong", {}, clock(at[nearest])), series.map((line, index) => {
      const value = columns[index]?.[nearest];
      return h("div", {}, h("i", { class: `key ${line.kind}` }), `${line.name} `, h("b", {}, value == null ? "–" : text(value)));
    }));
    tip.hidden = false;
    tip.style.left = `${Math.min(x + 12, geometry.width - tip.offsetWidth - 4)}px`;
  });
  plot.addEventListener("pointerleave", () => {
    tip.hidden = true;
    marker?.setAttribute("visibility", "hidden");
  });
  watchWidth(plot, draw);
  return {
    element: figure,
    update(newAt, newColumns) {
      at = newAt;
      columns = newColumns;
      draw();
    },
  };
}

/** A line without axes, beside a number that says what it is. */
export function sparkline(kind) {
  const path = s("path", { class: `line ${kind}` });
  const area = s("path", { class: `area ${kind}` });
  const element = s("svg", { class: "spark", viewBox: "0 0 120 32", preserveAspectRatio: "none", "aria-hidden": "true" }, area, path);
  return {
    element,
    update(values) {
      const known = values.map((value) => value ?? 0).slice(-60);
      const peak = Math.max(1e-9, ...known);
      const step = 120 / Math.max(1, known.length - 1);
      const d = known.map((value, index) => `${index ? "L" : "M"}${(index * step).toFixed(1)},${(29 - (value / peak) * 26).toFixed(1)}`).join("");
      path.setAttribute("d", d || "M0,29");
      area.setAttribute("d", d ? `${d}L120,32L0,32Z` : "M0,29");
    },
  };
}

/** Rows with a bar each, the longest first. Rows are `{ name, value, kind }`. */
export function bars(rows, text, empty) {
  if (!rows.length) return h("p", { class: "empty" }, empty);
  const peak = Math.max(...rows.map((row) => row.value), 1);
  return h("ul", { class: "bars" }, rows.toSorted((one, other) => other.value - one.value).map((row) => {
    const bar = h("i", { class: `bar ${row.kind ?? ""}` });
    bar.style.width = `${Math.max(1.5, (row.value / peak) * 100)}%`;
    return h("li", {}, h("span", {}, row.name), h("b", {}, text(row.value)), h("div", { class: "track" }, bar));
  }));
}
