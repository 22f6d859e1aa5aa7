// Dark or light: as the system, or as the switch says.

import { keepSetting, setting } from "./store.js";

const system = matchMedia("(prefers-color-scheme: dark)");
const button = document.getElementById("scheme");

function paint() {
  const scheme = setting("scheme", "");
  document.documentElement.dataset.scheme = scheme;
  button.setAttribute("aria-pressed", String(scheme ? scheme === "dark" : system.matches));
}

button.addEventListener("click", () => {
  const wanted = button.getAttribute("aria-pressed") === "true" ? "light" : "dark";
  keepSetting("scheme", wanted === (system.matches ? "dark" : "light") ? "" : wanted);
  paint();
});
system.addEventListener("change", paint);
paint();
