// An account's windows as a picture that moves: every bar is calls that count now; it slides to the left as time
// passes, and what leaves the picture is free again.

import { h, s, fill } from "./dom.js";
import { count, span } from "./format.js";
import { get } from "./api.js";
import { repeat } from "./repeat.js";

const calm = matchMedia("(prefers-reduced-motion: reduce)");
const WIDTH = 640;
const HEIGHT = 72;

/** One window: told its numbers every second, it moves between them. */
function windowPicture(policy) {
  const bars = s("g", {});
  const drawing = s("svg", { class: "strip", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" },
    s("line", { class: "grid", x1: 0, x2: WIDTH, y1: HEIGHT - 0.5, y2: HEIGHT - 0.5 }), bars);
  const used = h("strong", {}, "0");
  const limit = h("span", {});
  const left = h("span", { class: "left" });
  const meter = h("i", { class: "bar" });
  const next = h("small", {});
  const start = h("small", {});
  let use = null;
  let fetched = 0;

  function move() {
    if (!use) return;
    const age = (performance.now() - fetched) / 1000;
    const share = Math.min(1, age / use.window);
    bars.setAttribute("transform", `translate(${-share * WIDTH},0)`);
    const gone = share * use.course.length;
    const still = use.course.reduce((sum, value, index) => sum + (index + 1 > gone ? value : 0), 0);
    // Permits on lease count as long as gateways hold them; they have no place in the picture.
    const now = Math.min(use.used, still + use.leased);
    used.textContent = count(now);
    const full = now / use.limit;
    meter.style.width = `${Math.min(100, full * 100)}%`;
    meter.className = `bar ${full >= 1 ? "bad" : full >= 0.8 ? "warn" : "good"}`;
    left.textContent = full >= 1 ? "full: 429" : `${count(Math.max(0, use.limit - now))} left`;
    left.className = `left ${full >= 1 ? "bad" : full >= 0.8 ? "warn" : ""}`;
    const wait = use.next_permit_in === undefined ? null : use.next_permit_in - age;
    next.textContent = wait === null || now === 0 ? "nothing counts" : wait > 0 ? `next one free in ${span(Math.ceil(wait))}` : "being freed";
  }

  return {
    element: h("div", { class: "window" },
      h("div", { class: "window-head" }, h("div", {}, used, limit), left),
      h("div", { class: "track thick" }, meter), drawing,
      h("div", { class: "window-foot" }, start, next, h("small", {}, "now"))),
    move,
    update(fresh) {
      use = fresh;
      fetched = performance.now();
      limit.textContent = ` of ${count(use.limit)} in ${span(use.window)}`
        + (use.leased ? `, ${count(use.leased)} of them on lease` : "");
      start.textContent = `−${span(use.window)}`;
      const peak = Math.max(1, ...use.course);
      const step = WIDTH / use.course.length;
      fill(bars, use.course.map((value, index) => (value ? s("rect", {
        class: "slot", x: (index * step + 0.5).toFixed(2), width: Math.max(1, step - 1).toFixed(2), rx: 1.5,
        height: Math.max(4, (value / peak) * (HEIGHT - 8)).toFixed(1), y: (HEIGHT - Math.max(4, (value / peak) * (HEIGHT - 8))).toFixed(1),
      }) : null)));
      drawing.setAttribute("aria-label", `${policy}: ${use.used} of ${use.limit} in the last ${span(use.window)}`);
      move();
    },
  };
}

/** Draws the windows of an account into `place` until the function that it returns is called. */
export function windows(place, account) {
  const pictures = new Map();
  let drawn = null;
  let frame = 0;
  let ended = false;

  function show(limits) {
    const wanted = limits.policies.flatMap((policy) => policy.windows.map((use) => ({ policy, use, id: `${policy.name} ${policy.limits} ${use.window}` })));
    const outline = limits.policies.map((policy) => `${policy.name} ${policy.limits} ${policy.keys.length}`).join();
    if (outline !== drawn) {
      drawn = outline;
      pictures.clear();
      fill(place, limits.policies.map((policy) => h("div", { class: "policy" },
        h("h3", {}, policy.name, h("small", {}, policy.limits.replaceAll(",", ", ")), h("small", {}, `${policy.keys.length} key${policy.keys.length === 1 ? "" : "s"}`)),
        policy.windows.map((use) => {
          const picture = windowPicture(policy.name);
          pictures.set(`${policy.name} ${policy.limits} ${use.window}`, picture);
          return picture.element;
        }))));
    }
    for (const { id, use } of wanted) pictures.get(id).update(use);
  }

  function animate() {
    if (!calm.matches) for (const picture of pictures.values()) picture.move();
    if (!ended) frame = requestAnimationFrame(animate);
  }
  const stop = repeat(1000, async () => {
    try {
      const limits = await get(`/v1/accounts/${encodeURIComponent(account)}/limits`);
      if (!ended) show(limits);
    } catch (error) {
      if (ended) return;
      drawn = null;
      pictures.clear();
      fill(place, h("p", { class: "empty" }, error.message));
    }
  });
  frame = requestAnimationFrame(animate);
  return () => {
    ended = true;
    stop();
    cancelAnimationFrame(frame);
  };
}

/** Accounts of the newest keys, to choose from. */
async function suggest(place) {
  try {
    const page = await get("/v1/keys?status=active&limit=200");
    const names = [...new Set(page.keys.map((key) => key.account))].sort();
    fill(place, names.map((name) => h("a", { class: "button", href: `#/accounts/${encodeURIComponent(name)}` }, name)));
  } catch (error) {
    fill(place, h("p", { class: "trouble", role: "alert" }, error.message));
  }
}

export function accounts(main, name) {
  const input = h("input", { name: "account", value: name ?? "", placeholder: "acme", "aria-label": "Account", autocomplete: "off", spellcheck: "false", autocapitalize: "off" });
  const picture = h("div", {});
  const known = h("div", { class: "people" });
  fill(main,
    h("div", { class: "title" }, h("div", {}, h("p", { class: "crumb" }, "Watch"), h("h1", {}, name ? `Account ${name}` : "Accounts"))),
    h("form", { class: "filters", onsubmit: (event) => {
      event.preventDefault();
      if (input.value.trim()) location.hash = `#/accounts/${encodeURIComponent(input.value.trim())}`;
    } }, input, h("button", { type: "submit", class: "button" }, "Show its window"),
    name ? h("a", { class: "button ghost", href: `#/keys?account=${encodeURIComponent(name)}` }, "Its keys") : null),
    name ? h("section", { class: "card", "aria-label": `Windows of ${name}` }, picture)
      : [h("p", { class: "hint" }, "Every call of an account's keys counts against the same window. Choose an account to watch it."), known]);
  if (!name) {
    input.focus();
    suggest(known);
    return () => {};
  }
  return windows(picture, name);
}
