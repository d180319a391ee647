// One key stands for the element with that `data-key`: links, buttons and grades are clicked, a
// text gets the focus. Enter saves the grade.
"use strict";
(() => {
  const isText = (element) => element.matches("textarea, input:not([type=radio], [type=hidden])");
  const isPressed = (element) => element.matches("a, button, summary");

  // On keyboards of other scripts, the Latin letter of the key; in France, the digit without Shift.
  window.keyOf = ({ key, code, shiftKey }) => {
    const [, kind, latin] = /^(Key|Digit)(.)$/.exec(code) ?? [];
    const isOther = kind === "Key" ? key > "~" : kind === "Digit" && !shiftKey;
    return isOther ? latin.toLowerCase() : key;
  };

  const use = (element) => {
    if (isText(element)) element.focus();
    else element.click();
  };

  const inText = (event) => {
    if (event.key === "Escape") event.target.blur();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.target.form?.requestSubmit();
    }
  };

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || event.repeat) return;
    if (isText(event.target)) return inText(event);
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter") {
      if (isPressed(event.target)) return;
      event.preventDefault();
      document.getElementById("grading")?.requestSubmit();
      return;
    }
    const element = document.querySelector(`[data-key="${CSS.escape(keyOf(event))}"]`);
    if (!element) return;
    event.preventDefault(); // else the key would be typed into the text that gets the focus
    use(element);
  });
})();
