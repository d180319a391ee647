// The grading form: it keeps a draft in this browser, sends the grade until the server answers, and
// holds the marks on lines. Without this script the form works as a plain form, without marks.
"use strict";
(() => {
  const form = document.getElementById("grading");
  if (!form) return;
  const DRAFT = `proofloop draft ${form.dataset.draft}`;
  const LONGEST_PAUSE_S = 30;
  const TIMEOUT_MS = 20_000;

  const say = (text, isBad = false) => {
    const status = document.getElementById("status");
    status.textContent = text;
    status.classList.toggle("bad", isBad);
  };

  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // Drafts. The browser may refuse its storage (private windows): then there are none.
  const stored = (work) => {
    try { return work(localStorage); } catch { return null; }
  };

  const keepDraft = () => {
    const fields = [...new FormData(form)];
    stored((storage) => storage.setItem(DRAFT, JSON.stringify(fields)));
  };

  const dropDraft = () => stored((storage) => storage.removeItem(DRAFT));

  const restoreDraft = () => {
    const text = stored((storage) => storage.getItem(DRAFT));
    if (!text) return;
    marks.replaceChildren();
    for (const radio of form.elements.score) radio.checked = false;
    for (const [name, value] of JSON.parse(text)) {
      if (name === "mark") addMark(value);
      else form.elements[name].value = value;
    }
    say("Your draft is restored. ");
    const discard = make("button", { type: "button", className: "quiet-button" }, "Discard it");
    discard.addEventListener("click", () => { dropDraft(); location.reload(); });
    document.getElementById("status").append(discard);
  };

  // Sending. Each try sends what the form holds; the server takes the same form once.
  let isSending = false;
  let retry = 0;
  let failures = 0;
  let submitter = null;

  const post = async () => {
    try {
      return await fetch(form.action, {
        method: "POST",
        headers: { Accept: "application/json" },
        body: new URLSearchParams(new FormData(form, submitter)),
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
    } catch {
      return null; // no connection
    }
  };

  const tryLater = () => {
    const pause = Math.min(LONGEST_PAUSE_S, 2 ** failures);
    failures += 1;
    retry = setTimeout(send, pause * 1000);
    say(`Not saved yet: the server does not answer. Your grade is kept in this browser and sent`
      + ` again in ${pause} s. Enter sends it now.`, true);
  };

  const explain = ({ problem }, status) =>
    say(problem ?? `Not saved (${status}). Load the page again and log in; your grade is kept in this`
      + " browser.", true);

  const send = async () => {
    if (isSending) return;
    clearTimeout(retry);
    isSending = true;
    if (!failures) say("Saving …");
    const answer = await post();
    isSending = false;
    if (!answer || answer.status > 500) return tryLater();
    const reply = await answer.json().catch(() => ({})); // a proxy may answer with its login page
    if (!reply.next) return explain(reply, answer.status);
    dropDraft();
    location.assign(reply.next);
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submitter = event.submitter?.name ? event.submitter : null;
    finishMark();
    keepDraft();
    send();
  });
  form.addEventListener("input", keepDraft);
  window.addEventListener("online", () => { if (failures) send(); });

  // Marks on lines: each is a row in the form with a hidden field `FIRST-LAST comment`.
  const marks = document.getElementById("marks");
  const text = document.getElementById("marked");
  const blocks = [...(text?.querySelectorAll("[data-line]:not(:has([data-line]))") ?? [])];
  const linesOf = (block) => block.dataset.line.split("-").map(Number);
  const inLines = (first, last) => blocks.filter((block) => {
    const [begin, end] = linesOf(block);
    return begin <= last && first <= end;
  });
  const named = (first, last) => (first === last ? `line ${first}` : `lines ${first}–${last}`);

  const colorMarked = () => {
    for (const block of blocks) block.classList.remove("has-mark");
    for (const input of marks.querySelectorAll("input")) {
      const [, first, last] = input.value.match(/^(\d+)(?:-(\d+))?/);
      for (const block of inLines(+first, +(last ?? first))) block.classList.add("has-mark");
    }
  };

  const completeMark = (row) => {
    const remove = make("button", { type: "button", className: "quiet-button" }, "Remove");
    remove.addEventListener("click", () => { row.remove(); colorMarked(); keepDraft(); });
    row.append(" ", remove);
  };

  const addMark = (value) => {
    const [, first, last, comment] = value.match(/^(\d+)(?:-(\d+))? ([^]+)$/);
    const lines = make("b", {}, named(+first, +(last ?? first)));
    const row = make("li", {}, make("input", { type: "hidden", name: "mark", value }), lines,
      ` ${comment}`);
    completeMark(row);
    marks.append(row);
    colorMarked();
  };

  let current = null;
  const point = (block, { scroll = true } = {}) => {
    current?.classList.remove("current");
    current = block;
    block.classList.add("current");
    block.tabIndex = -1;
    block.focus({ preventScroll: true });
    if (scroll) block.scrollIntoView({ block: "center" });
  };

  const step = (by) => {
    if (!blocks.length) return;
    const next = current ? blocks.indexOf(current) + by : 0;
    point(blocks[Math.max(0, Math.min(blocks.length - 1, next))]);
  };

  const selected = () => {
    const selection = getSelection();
    if (!selection.isCollapsed) {
      const range = selection.getRangeAt(0);
      const found = blocks.filter((block) => range.intersectsNode(block));
      if (found.length) return found;
    }
    return current ? [current] : [];
  };

  // Adds the mark that a person has begun to write; an empty one is dropped.
  const finishMark = () => {
    const editor = document.querySelector(".mark-editor");
    editor?.requestSubmit();
    editor?.remove();
  };

  const edit = () => {
    const found = selected();
    if (!found.length) return say("Choose a line first: j and k step, or select some text.");
    finishMark();
    const first = Math.min(...found.map((block) => linesOf(block)[0]));
    const last = Math.max(...found.map((block) => linesOf(block)[1]));
    const field = make("textarea", { rows: 2, maxLength: +marks.dataset.longest, required: true });
    const editor = make("form", { className: "mark-editor" },
      make("label", {}, `Your mark on ${named(first, last)}`, field),
      make("button", { className: "quiet-button" }, "Add mark (Ctrl+Enter)"));
    const close = () => { editor.remove(); form.focus({ preventScroll: true }); };
    editor.addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
    editor.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!field.value.trim()) return;
      addMark(`${first}-${last} ${field.value.trim()}`);
      keepDraft();
      close();
    });
    found.at(-1).after(editor);
    field.focus();
  };

  const KEYS = { j: () => step(1), k: () => step(-1), m: edit };
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("textarea, input:not([type=radio])")) return;
    const key = keyOf(event);
    if (event.ctrlKey || event.metaKey || event.altKey || !(key in KEYS)) return;
    event.preventDefault();
    KEYS[key]();
  });
  document.getElementById("mark")?.addEventListener("click", edit);
  text?.addEventListener("click", (event) => {
    const block = event.target.closest("[data-line]");
    if (block && getSelection().isCollapsed) point(block, { scroll: false });
  });
  for (const link of document.querySelectorAll("button.lines")) {
    link.addEventListener("click", () => {
      const [block] = inLines(+link.dataset.first, +link.dataset.last);
      if (block) point(block);
    });
  }

  for (const row of marks.children) completeMark(row);
  restoreDraft();
  colorMarked();
  form.focus({ preventScroll: true }); // one Tab leads to the grades
})();
