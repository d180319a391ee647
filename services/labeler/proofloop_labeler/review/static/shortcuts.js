// One key stands for the element with that `data-key`: links, buttons and grades are clicked, a
// text gets the focus. Enter saves the grade.
"use strict";
(() => {
  const isText = (element) => element.matches("textarea, input:not([type=radio], [type=hidden])");
  const isPressed = (element) => element.matches("a, button, summary");

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
    const element = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    if (!element) return;
    event.preventDefault(); // else the key would be typed into the text that gets the focus
    use(element);
  });
})();
