// The text of a recording: paragraphs of timed words, the word being spoken, corrections in place.

import { clock } from "./clock.js";
import { corrected, oneLine } from "./corrections.js";
import { accountOf, notesOf } from "./holes.js";
import { indexAt, tint, unitsOf } from "./words.js";

const MOST_LISTED = 6; // notes and holes that are shown at once
const LINGER_S = 0.25; // for which a word stays marked in a pause

/** Make an element. Texts and file names become text nodes, never HTML. */
export function element(tag, { className = "", text = "", ...rest } = {}, ...children) {
  const made = Object.assign(document.createElement(tag), { className, ...rest });
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

/** Return a button that seeks. */
const seeking = (time_s, text, label) => {
  const button = element("button", { type: "button", className: "seek", text, ariaLabel: label });
  button.dataset.seek = time_s;
  return button;
};

export class Reader {
  #text = document.getElementById("text");
  #account = document.getElementById("account");
  #paragraphs = []; // by segment: {node, speaker, begins, units, spans}; `begins`: someone else was speaking
  #units = []; // of all segments: {start_s, end_s, span, paragraph}
  #starts = [];
  #spoken = null; // the marked span
  #now = -1; // the paragraph that is being read
  #editing = -1;

  /** `seek(time_s)` is called on a click, `keep(index, text)` for a correction; a text of null undoes it. */
  constructor(seek, keep) {
    this.keep = keep;
    const clicked = ({ target, detail }) => {
      const timed = target.closest("[data-seek]");
      if (timed) {
        if (detail) timed.blur(); // after a pointer, the space bar is the player's
        return seek(Number(timed.dataset.seek));
      }
      const index = this.#indexOf(target);
      if (target.closest(".edit")) return this.edit(index);
      if (target.closest(".undo")) return this.#finish(null);
      const span = target.closest("[data-unit]");
      if (span && String(getSelection()) === "") seek(this.#paragraphs[index].units[span.dataset.unit].start_s);
    };
    this.#text.addEventListener("click", clicked);
    this.#account.addEventListener("click", clicked);
    this.#text.addEventListener("dblclick", ({ target }) => {
      if (target.closest("[data-unit]")) this.edit(this.#indexOf(target));
    });
  }

  /** Show a transcript with corrections, or one that has only begun, whose paragraphs are appended. */
  show(transcript, corrections) {
    this.original = transcript;
    this.corrections = corrections;
    this.#paragraphs = [];
    this.#text.replaceChildren();
    [this.#spoken, this.#now, this.#editing] = [null, -1, -1];
    for (const segment of transcript ? this.current.segments : []) this.#add(segment);
    this.#index();
    this.#showAccount();
  }

  /** The transcript with the corrections. */
  get current() {
    return corrected(this.original, this.corrections);
  }

  /** Add the text of a segment of a transcript that is not yet complete. */
  append({ start, end, text, speaker }) {
    const untold = { words: [], pieces: [], scores: [], state: "transcribed" };
    this.#add({ start_s: start, end_s: end, text, speaker, ...untold });
    this.#index();
  }

  #add(segment) {
    if (!segment.text && segment.state !== "failed") return this.#paragraphs.push(null);
    const node = element("section", { className: "segment" });
    node.dataset.segment = this.#paragraphs.length;
    const { speaker } = segment;
    const begins = (speaker ?? "") !== (this.#paragraphs.findLast(Boolean)?.speaker ?? "");
    this.#paragraphs.push({ node, speaker, begins });
    this.#fill(this.#paragraphs.at(-1), segment);
    this.#text.append(node);
  }

  #fill(paragraph, segment) {
    const index = Number(paragraph.node.dataset.segment);
    const at = clock(segment.start_s);
    paragraph.units = unitsOf(segment);
    paragraph.spans = paragraph.units.map((unit, number) => {
      const span = element("span", { className: `unit ${tint(unit.probability)}`.trim(), text: unit.text });
      span.dataset.unit = number;
      if (tint(unit.probability)) span.title = `probability ${Math.round(unit.probability * 100)} %`;
      return span;
    });
    const lang = segment.language ?? this.original?.language ?? "";
    const said = element("p", { className: "said", dir: "auto", lang });
    paragraph.units.forEach((unit, number) => said.append(unit.before, paragraph.spans[number]));
    const who = paragraph.begins
      ? [element("p", { className: "speaker", dir: "auto", text: paragraph.speaker || "Unknown speaker" })]
      : [];
    const notes = [];
    if (segment.state === "failed")
      notes.push(element("p", { className: "hole", text: "This text is not complete." }));
    if (segment.doubtful) notes.push(element("p", { className: "doubt", text: "This may not be what was said." }));
    if (segment.translation && (segment.translation.stop_reason ?? "eos") !== "eos")
      notes.push(element("p", { className: "hole", text: "The translation is not complete." }));
    if (index in this.corrections) notes.push(element("p", { className: "hint changed", text: "Corrected" }));
    const other = segment.translation;
    const below = other
      ? [element("p", { className: "translation", dir: "auto", lang: other.language, text: other.text })]
      : [];
    const edit = element("button", {
      type: "button",
      className: "edit quiet",
      text: "Correct",
      ariaLabel: `Correct the text at ${at}`,
    });
    paragraph.node.classList.toggle("failed", segment.state === "failed");
    paragraph.node.classList.toggle("uncertain", Boolean(segment.doubtful));
    paragraph.node.replaceChildren(
      seeking(segment.start_s, at, `Play from ${at}`),
      element("div", { className: "body" }, ...who, said, ...below, ...notes),
      ...(this.original ? [edit] : []),
    );
  }

  #index() {
    this.#units = this.#paragraphs.flatMap((paragraph, index) =>
      (paragraph?.units ?? []).map((unit, number) => ({
        ...unit,
        span: paragraph.spans[number],
        paragraph: index,
      })),
    );
    this.#starts = Float64Array.from(this.#units, (unit) => unit.start_s);
  }

  #showAccount() {
    if (!this.original) return this.#account.replaceChildren();
    const items = notesOf(this.original).map(({ start_s, end_s, why }) => {
      if (start_s === undefined) return element("li", { text: why });
      const span = `${clock(start_s)} – ${clock(end_s)}`;
      return element("li", {}, seeking(start_s, span, `Play from ${clock(start_s)}`), why);
    });
    this.#account.className = this.original.complete ? "account" : "account failed";
    const rest = items.splice(MOST_LISTED);
    this.#account.replaceChildren(element("p", { text: accountOf(this.original) }));
    if (items.length) this.#account.append(element("ul", {}, ...items));
    if (!rest.length) return;
    const more = element("summary", { text: `${rest.length} more` });
    this.#account.append(element("details", {}, more, element("ul", {}, ...rest)));
  }

  /** Mark the word that is spoken at a time; return its paragraph if it is another one than before. */
  mark(time_s) {
    const unit = this.#units[indexAt(this.#starts, time_s)];
    const spoken = unit && time_s < unit.end_s + LINGER_S ? unit.span : null;
    if (spoken !== this.#spoken) {
      this.#spoken?.classList.remove("spoken");
      spoken?.classList.add("spoken");
      this.#spoken = spoken;
    }
    if (!unit || unit.paragraph === this.#now) return null;
    this.#paragraphs[this.#now]?.node.classList.remove("now");
    this.#now = unit.paragraph;
    const { node } = this.#paragraphs[this.#now];
    node.classList.add("now");
    return node;
  }

  /** The place of the word being spoken, or of its paragraph. */
  get place() {
    return this.#spoken ?? this.#paragraphs[this.#now]?.node ?? null;
  }

  /** Return the start of the paragraph before or after the current one; null if there is none. */
  neighbour(step) {
    for (let index = this.#now + step; index >= 0 && index < this.#paragraphs.length; index += step) {
      if (this.#paragraphs[index]?.units.length) return this.#paragraphs[index].units[0].start_s;
    }
    return null;
  }

  /** Correct a paragraph in place: the current one by default. A click elsewhere keeps the correction. */
  edit(index = Math.max(0, this.#now)) {
    const paragraph = this.#paragraphs[index];
    if (!this.original || !paragraph || this.#editing === index) return;
    this.#finish();
    this.#editing = index;
    const { text } = this.current.segments[index];
    const field = element("textarea", {
      value: text,
      dir: "auto",
      rows: Math.max(2, Math.ceil(text.length / 60)),
      ariaLabel: "Corrected text",
    });
    const undo = element("button", { type: "button", className: "undo quiet", text: "Back to the original" });
    const help = element(
      "p",
      { className: "hint editing" },
      element("kbd", { text: "Enter" }),
      " keeps it, ",
      element("kbd", { text: "Esc" }),
      " does not. ",
      ...(index in this.corrections ? [undo] : []),
    );
    undo.addEventListener("pointerdown", (event) => event.preventDefault()); // the field keeps the focus
    const body = paragraph.node.querySelector(".body");
    body.replaceChildren(...body.querySelectorAll(".speaker"), field, help);
    paragraph.node.querySelector(".edit").hidden = true;
    field.focus();
    field.setSelectionRange(text.length, text.length);
    field.addEventListener("keydown", (event) => {
      if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
      event.preventDefault();
      this.#finish(event.key === "Enter" ? field.value : text);
      paragraph.node.querySelector(".edit").focus();
    });
    body.addEventListener("focusout", ({ relatedTarget }) => {
      if (field.isConnected && !body.contains(relatedTarget)) this.#finish(field.value);
    });
  }

  /** End editing: keep the text of the field, or another one; null is the original text. */
  #finish(text = this.#text.querySelector("textarea")?.value) {
    const index = this.#editing;
    if (index < 0 || text === undefined) return;
    this.#editing = -1; // first, since removing the field takes its focus away
    const own = this.original.segments[index].text;
    const line = text === null ? own : oneLine(text);
    const before = this.current.segments[index].text;
    if (line === own) delete this.corrections[index];
    else this.corrections[index] = line;
    if (this.#paragraphs[index].spans.includes(this.#spoken)) this.#spoken = null;
    this.#fill(this.#paragraphs[index], this.current.segments[index]);
    this.#index();
    if (line !== before) this.keep(this.corrections);
  }

  #indexOf(node) {
    return Number(node.closest("[data-segment]")?.dataset.segment ?? -1);
  }
}
