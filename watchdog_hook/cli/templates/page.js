"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const one = (id) => document.getElementById(id);

  // Without scripts nothing of this would do anything.
  for (const each of all(".search, #theme, .controls")) each.hidden = false;

  // Light and dark: as the system has it, until the button says otherwise.

  const theme = one("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const name = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    name();
  });
  system.addEventListener("change", name);
  name();

  // Flame graphs

  for (const figure of all(".flame")) {
    const graph = figure.querySelector(".graph");
    const info = figure.querySelector(".info");
    const hint = info.textContent;
    const reset = figure.querySelector(".reset");
    // In the order of the document: from the root upwards, from left to right.
    const frames = all(".f", graph).map((box) => ({
      box,
      left: Number(box.dataset.left),
      width: Number(box.dataset.width),
      level: Number(box.getAttribute("aria-level")),
    }));
    const whole = frames[0];
    const of = new Map(frames.map((frame) => [frame.box, frame]));
    const near = 1e-6;
    const holds = (outer, inner) =>
      inner.left >= outer.left - near && inner.left + inner.width <= outer.left + outer.width + near;
    let zoomed = whole;
    // A name of which no three letters can be seen is noise.
    const fit = () => {
      const room = graph.getBoundingClientRect().width;
      for (const { box } of frames) {
        box.classList.toggle("tiny", parseFloat(box.getAttribute("width")) / 100 * room < 34);
      }
    };
    addEventListener("resize", fit);
    fit();

    const show = (frame) => {
      zoomed = frame;
      reset.hidden = frame === whole;
      for (const each of frames) {
        const caller = each.level < frame.level && holds(each, frame);
        const seen = caller || (each.level >= frame.level && holds(frame, each));
        each.box.style.display = seen ? "" : "none";
        each.box.classList.toggle("faded", caller);
        if (!seen) continue;
        const left = caller ? 0 : (each.left - frame.left) / frame.width;
        const width = caller ? 1 : each.width / frame.width;
        each.box.setAttribute("x", `${left * 100}%`);
        each.box.setAttribute("width", `${width * 100}%`);
      }
      fit();
    };
    const focus = (frame) => {
      for (const each of all('.f[tabindex="0"]', graph)) each.tabIndex = -1;
      frame.box.tabIndex = 0;
      frame.box.focus();
    };
    const seen = (frame) => frame.box.style.display !== "none";
    const zoom = (frame) => {
      // A second click on what is zoomed goes back.
      show(frame === zoomed ? whole : frame);
      focus(frame);
    };
    const moves = {
      ArrowUp: (at) => frames
        .filter((each) => each.level === at.level + 1 && holds(at, each) && seen(each))
        .sort((a, b) => b.width - a.width)[0],
      ArrowDown: (at) => frames.find((each) => each.level === at.level - 1 && holds(each, at)),
      ArrowRight: (at) => frames.find(
        (each) => each.level === at.level && each.left > at.left + near && seen(each)),
      ArrowLeft: (at) => frames.findLast(
        (each) => each.level === at.level && each.left < at.left - near && seen(each)),
      Home: () => whole,
    };

    const target = (event) => of.get(event.target.closest(".f"));
    const tell = (event) => {
      const frame = target(event);
      if (frame) info.textContent = frame.box.getAttribute("aria-label");
    };
    graph.addEventListener("pointerover", tell);
    graph.addEventListener("focusin", tell);
    graph.addEventListener("pointerleave", () => { info.textContent = hint; });
    graph.addEventListener("click", (event) => {
      const frame = target(event);
      if (frame) zoom(frame);
    });
    graph.addEventListener("keydown", (event) => {
      const at = target(event);
      if (!at || event.ctrlKey || event.altKey || event.metaKey) return;
      if (event.key === "Enter" || event.key === " ") zoom(at);
      else if (event.key === "Escape") { show(whole); focus(at); }
      else if (moves[event.key]) {
        const next = moves[event.key](at);
        if (next) focus(next);
      } else return;
      event.preventDefault();
    });
    reset.addEventListener("click", () => { const was = zoomed; show(whole); focus(was); });
  }

  // Search: what matches is marked, in the graphs and in the stacks.

  const search = one("search");
  const lines = all("[data-frame]").map((box) => ({
    box,
    text: (box.getAttribute("aria-label")?.split(": ")[0] ?? box.textContent).toLowerCase(),
  }));
  const percent = (share) => (share > 0 && share < 0.005 ? "<1" : Math.round(share * 100));
  // Frames that match may stand upon each other: each stretch of the width counts once.
  const covered = (figure) => {
    let end = 0;
    let sum = 0;
    const hits = all(".f.hit", figure)
      .map((box) => [Number(box.dataset.left), Number(box.dataset.left) + Number(box.dataset.width)])
      .sort((a, b) => a[0] - b[0]);
    for (const [left, right] of hits) {
      sum += Math.max(0, right - Math.max(left, end));
      end = Math.max(end, right);
    }
    return sum;
  };
  const look = () => {
    const wanted = search.value.trim().toLowerCase();
    for (const { box, text } of lines) box.classList.toggle("hit", wanted !== "" && text.includes(wanted));
    root.classList.toggle("searching", wanted !== "");
    for (const stack of all(".stack")) {
      const count = all(".hit", stack).length;
      stack.querySelector(".hits").textContent = count ? `${count} found` : "";
    }
    const shares = all(".flame").map((figure) =>
      `${percent(covered(figure))} % of ${figure.querySelector("h3").textContent.toLowerCase()}`);
    const inStacks = all(".frames .hit").length;
    shares.push(`${inStacks} line${inStacks === 1 ? "" : "s"} of the stacks`);
    one("found").textContent = wanted ? `“${search.value.trim()}”: ${shares.join(", ")}` : "";
  };
  search.addEventListener("input", look);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { search.value = ""; look(); }
  });
  document.addEventListener("keydown", (event) => {
    const busy = event.target.closest("input") || event.ctrlKey || event.altKey || event.metaKey;
    if (event.key === "/" && !busy) { event.preventDefault(); search.focus(); }
  });

  // Stacks

  const onlyOwn = one("only-own");
  const unfold = one("unfold");
  onlyOwn?.addEventListener("change", () => root.classList.toggle("only-own", onlyOwn.checked));
  unfold?.addEventListener("click", () => {
    const open = unfold.getAttribute("aria-pressed") !== "true";
    unfold.setAttribute("aria-pressed", String(open));
    unfold.textContent = open ? "Close all" : "Open all";
    for (const stack of all(".stack")) stack.open = open;
  });
})();
