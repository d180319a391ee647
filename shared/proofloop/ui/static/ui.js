// What the pages can do without: live status, critiques that load when they are opened, keys.
"use strict";
(() => {
  const RETRY_MS = 5000;
  const live = document.querySelector("[data-live]");
  let events = null;
  const listen = () => {
    events = new EventSource(live.dataset.live);
    events.onmessage = ({ data }) => { live.innerHTML = data; };
    events.onerror = () => { // the browser itself does not retry after an error of a proxy
      if (events.readyState === EventSource.CLOSED) setTimeout(listen, RETRY_MS);
    };
  };
  if (live) {
    listen();
    addEventListener("pagehide", () => events.close());
  }

  // The server escapes all texts of models; the fragment is a part of its own pages.
  const load = async (details) => {
    const address = details.dataset.part;
    if (!address || !details.open) return;
    delete details.dataset.part;
    const body = details.querySelector(".body");
    try {
      const answer = await fetch(address);
      if (!answer.ok) throw new Error(answer.statusText);
      body.innerHTML = await answer.text();
      typeset.watch(body);
    } catch {
      details.dataset.part = address; // the link in the body still works
    }
  };
  document.addEventListener("toggle", ({ target }) => load(target), true);

  const openTarget = () => {
    const target = document.getElementById(location.hash.slice(1));
    if (target instanceof HTMLDetailsElement) {
      target.open = true;
      target.scrollIntoView();
    }
  };
  addEventListener("hashchange", openTarget);
  openTarget();

  const move = (step) => {
    const items = [...document.querySelectorAll("[data-item]")];
    const place = items.findIndex((item) => item === document.activeElement);
    items[place < 0 ? (step > 0 ? 0 : items.length - 1) : place + step]?.focus();
  };
  const follow = (relation) => document.querySelector(`main a[rel=${relation}], header a[rel=${relation}], nav a[rel=${relation}]`)?.click();
  const keys = {
    j: () => move(1),
    k: () => move(-1),
    "/": () => document.querySelector("[data-search]")?.focus(),
    "[": () => follow("prev"),
    "]": () => follow("next"),
    u: () => follow("up"),
    "?": () => {
      const help = document.getElementById("keys");
      help.open = !help.open;
      help.querySelector("summary").focus();
    },
  };
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest("input, textarea, select");
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
})();
