// Sets the formulas that proofloop.typeset marked, with KaTeX, when they come near the screen.
// The texts are untrusted. What KaTeX does not know, and what could hide a part of a formula, stays
// as its source: colors, large phantoms, negative space, raised boxes, definitions of macros.
"use strict";
(() => {
  const MAX_FORMULA = 5000;
  const MAX_DEPTH = 80; // parts in parts; some hundreds crash the browser's layout
  const SHORT_PHANTOM = 8; // symbols
  const NEGATIVE_SPACE_EM = -0.85; // five \! in a row
  const MARKS = /^(?:\$\$?|\\[([])|(?:\$\$?|\\[)\]])$/g;
  const SYMBOLS = /[①-⑳⓪Ⅰ-Ⅻ▲■∎✓✗∗†‡]/u; // the page's fonts have them, KaTeX's have not
  const HARMLESS = new Set(["unicodeTextInMathMode", "newLineInDisplayMode", "commentAtEnd"]);
  const REFUSED = new RegExp(
    "\\\\(?:color|textcolor|colorbox|fcolorbox|raisebox|def|gdef|edef|xdef|let|futurelet|global"
    + "|long|newcommand|renewcommand|providecommand|html\\w+|href|url|includegraphics)(?![A-Za-z])",
  );

  const refuse = (what) => { throw new Error(`${what} is not allowed here`); };

  // A new object for each formula: KaTeX keeps the equation's tag in it.
  const settings = (displayMode) => ({
    displayMode,
    throwOnError: true,
    trust: ({ command }) => refuse(command),
    maxExpand: 1000,
    maxSize: 10,
    strict: (code, message) => {
      if (HARMLESS.has(code)) return "ignore";
      const isSymbol = code === "unknownSymbol" || code === "symbolNotInFont";
      return isSymbol && SYMBOLS.test(message) ? "ignore" : "error";
    },
    macros: {
      "\\mbox": "\\text{#1}",
      "\\label": "\\tag{#1}",
      "\\eqref": "\\text{(#1)}",
      "\\ref": "\\text{#1}",
      "△": "\\triangle",
      "\u2009": "\\,", // spaces and hyphens of Unicode
      "\u202f": "\\,",
      "\u2010": "\\text{-}",
      "\u2011": "\\text{-}",
    },
  });

  const children = (node) => Object.entries(node)
    .filter(([name, value]) => name !== "loc" && value && typeof value === "object")
    .map(([, value]) => value);

  const symbols = (node) =>
    typeof node.text === "string" ? 1 : children(node).reduce((n, child) => n + symbols(child), 0);

  const ems = ({ number, unit }) => number * ({ em: 1, mu: 1 / 18, ex: 0.43, pt: 0.1 }[unit] ?? 10);

  // Throws if the parsed formula could hide a part of itself or crash the browser.
  const check = (node, depth = 0) => {
    if (depth > MAX_DEPTH) refuse("nesting of this depth");
    const isMathop = node.type === "supsub" && node.base?.type === "op" && node.base.body;
    if (isMathop && !node.base.limits) refuse("\\mathop with an index"); // LaTeX sets it below
    if (/phantom$/.test(node.type) && symbols(node) > SHORT_PHANTOM) refuse("a long phantom");
    if (node.type === "cr" && node.size && node.size.number < 0) refuse("negative space");
    let space = 0;
    for (const child of children(node)) {
      space = child.type === "kern" ? space + Math.min(0, ems(child.dimension)) : 0;
      if (space < NEGATIVE_SPACE_EM) refuse("negative space");
      check(child, depth + (node.type ? 1 : 0));
    }
  };

  // A strict policy forbids `style` attributes and allows the same by script.
  const styleByScript = (node) => {
    node.children?.forEach(styleByScript);
    if (!node.attributes?.style) return;
    const { style, ...attributes } = node.attributes;
    const toNode = node.toNode.bind(node);
    node.attributes = attributes;
    node.toNode = () => {
      const element = toNode();
      element.style.cssText = style;
      return element;
    };
  };

  const render = (latex, isDisplay) => {
    if (latex.length > MAX_FORMULA) refuse("a formula of this length");
    if (REFUSED.test(latex)) refuse(REFUSED.exec(latex)[0]);
    check(katex.__parse(latex, settings(isDisplay)));
    const tree = katex.__renderToDomTree(latex, settings(isDisplay));
    styleByScript(tree);
    return tree.toNode();
  };

  // LaTeX and KaTeX allow one tag in `aligned`; models mean `align`, which allows one a line.
  const withTags = (latex) => (latex.match(/\\tag(?![A-Za-z])/g) ?? []).length < 2 ? latex
    : latex.replace(/^\s*\\begin\{aligned\}([^]*)\\end\{aligned\}\s*$/, "\\begin{align*}$1\\end{align*}");

  const set = (element) => {
    const source = element.textContent;
    const formula = document.createElement("span");
    formula.className = element.className;
    try {
      formula.append(render(withTags(source.replace(MARKS, "")), element.classList.contains("display")));
    } catch (error) {
      element.classList.add("unset");
      element.title = `Shown as written. ${error.message}`;
      return;
    }
    formula.title = source;
    element.replaceWith(formula);
  };

  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      set(target);
    }
  }, { rootMargin: "1500px 0px", scrollMargin: "1500px 0px" });

  const find = (root) => root.querySelectorAll("code.formula:not(.unset)");
  const watch = (root) => find(root).forEach((element) => near.observe(element));

  // Pages that add texts later call `typeset.watch(element)`; `typeset.all()` sets every formula.
  window.typeset = { watch, all: () => find(document).forEach(set) };
  window.addEventListener("beforeprint", window.typeset.all);
  if (document.readyState === "loading") {
    document.addEventListener("DOMContentLoaded", () => watch(document));
  } else {
    watch(document);
  }
})();
