// Asks again and again while the page is looked at, never twice at once.

/** Runs `work` now and then every `milliseconds`; returns what ends it. */
export function repeat(milliseconds, work) {
  let timer = null;
  let ended = false;
  async function turn() {
    if (ended) return;
    if (document.visibilityState === "visible") await work();
    if (!ended) timer = setTimeout(turn, milliseconds);
  }
  function wake() {
    if (document.visibilityState !== "visible" || ended) return;
    clearTimeout(timer);
    turn();
  }
  document.addEventListener("visibilitychange", wake);
  turn();
  return () => {
    ended = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", wake);
  };
}
