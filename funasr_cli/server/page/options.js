// How to transcribe: model, language, words to expect, speakers, translation, as far as model and server can.

import { keepSetting, setting } from "./store.js";

const byId = (id) => document.getElementById(id);
const ids = ["options", "model", "language", "terms", "speakers", "translate"];
const [form, model, language, terms, speakers, translate] = ids.map(byId);
const names = new Intl.DisplayNames(["en"], { type: "language", fallback: "code" });
const UNNAMED = { ba: "Bashkir", bo: "Tibetan" }; // languages without a name in Chromium
let known = [];

/** Show the models; the first is the default. */
export function offer(models) {
  known = models;
  model.replaceChildren(...models.map(({ id }) => new Option(id, id)));
  model.value = models.some(({ id }) => id === setting("model")) ? setting("model") : models[0]?.id;
  byId("model-choice").hidden = models.length < 2;
  terms.value = setting("terms", "");
  speakers.value = setting("speakers", "");
  translate.checked = setting("translate") === "true";
  form.hidden = !models.length;
  suit();
}

/** Show only what the chosen model can do. */
function suit() {
  model.title = model.value; // a long name may be cut
  const languages = chosen().languages.map((code) => new Option(nameOf(code), code));
  languages.sort((one, other) => one.text.localeCompare(other.text));
  language.replaceChildren(new Option("Automatic", ""), ...languages);
  language.value = chosen().languages.includes(setting("language")) ? setting("language") : "";
  byId("terms-choice").hidden = !can("hotwords") && !can("context text");
  const [name, example] = can("hotwords")
    ? ["Words to expect", "names, rare words"]
    : ["Context", "names and spellings"];
  byId("terms-name").textContent = name;
  terms.placeholder = example;
  byId("speakers-choice").hidden = !can("speakers");
  byId("translate-choice").hidden = !can("translation");
}

const chosen = () => known.find(({ id }) => id === model.value) ?? { id: "", languages: [], capabilities: [] };
const can = (capability) => chosen().capabilities.includes(capability);

/** Return the fields of a request. */
export function fields() {
  const made = [["model", chosen().id]];
  if (language.value) made.push(["language", language.value]);
  if (terms.value.trim() && can("hotwords")) made.push(["hotwords", terms.value.trim()]);
  else if (terms.value.trim() && can("context text")) made.push(["prompt", terms.value.trim()]);
  if (speakers.value && can("speakers")) made.push(["speakers", speakers.value]);
  if (translate.checked && can("translation")) made.push(["translate", "true"]);
  return made;
}

/** Return the name of a language in words; "" if there is none. */
export function nameOf(code) {
  try {
    return code ? (UNNAMED[code] ?? names.of(code)) : "";
  } catch {
    return code; // not the form of a code
  }
}

form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("change", ({ target }) => {
  keepSetting(target.id, target.type === "checkbox" ? target.checked : target.value);
  if (target === model) suit();
});
