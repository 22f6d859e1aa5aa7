// The player: the audio element, its controls and keys, and the text that follows it.

import { clock } from "./clock.js";
import { coverage } from "./holes.js";
import { keepSetting, setting } from "./store.js";

const STEP_S = 5;
const byId = (id) => document.getElementById(id);
const [audio, seek, play, follow] = ["audio", "seek", "play", "follow"].map(byId);
const COLOURS = { speech: "var(--speech)", doubtful: "var(--unsure)", hole: "var(--hole)" };

export class Player {
  #follows = true;
  #duration_s = 0;
  #url = "";
  #begun = false; // whether anything of this recording has been played

  constructor(reader) {
    this.reader = reader;
    play.addEventListener("click", () => this.toggle());
    seek.addEventListener("input", () => this.go(Number(seek.value), false));
    byId("speed").value = setting("speed", "1");
    byId("speed").addEventListener("change", ({ target }) => {
      audio.playbackRate = Number(target.value);
      keepSetting("speed", target.value);
    });
    for (const name of ["play", "pause", "ended"]) audio.addEventListener(name, () => this.#showState());
    for (const name of ["timeupdate", "seeked", "loadedmetadata"])
      audio.addEventListener(name, () => this.#showTime());
    audio.addEventListener("error", () => {
      if (audio.getAttribute("src"))
        this.#ask("This browser cannot play this recording. Choose it in another format to listen.");
    });
    for (const name of ["wheel", "touchmove"])
      document.addEventListener(name, () => this.#letGo(), { passive: true });
    document.addEventListener("keydown", (event) => this.#press(event));
    follow.addEventListener("click", () => {
      this.#follows = true;
      follow.hidden = true;
      this.#scroll();
    });
  }

  /** Load a recording, or none if it is not here. */
  load(blob) {
    this.unload();
    byId("player").hidden = false;
    byId("again").hidden = Boolean(blob);
    byId("controls").hidden = !blob;
    if (!blob) return this.#ask("This browser has not kept the recording. Choose it again to listen.");
    this.#url = URL.createObjectURL(blob);
    audio.src = this.#url;
    audio.defaultPlaybackRate = audio.playbackRate = Number(byId("speed").value);
    this.#showState();
  }

  /** Stop, and free the recording. */
  unload() {
    audio.pause();
    audio.removeAttribute("src");
    URL.revokeObjectURL(this.#url);
    byId("player").hidden = true;
    byId("coverage").style.background = "";
    this.#duration_s = 0;
    this.#follows = true;
    this.#begun = false;
    follow.hidden = true;
    seek.value = 0;
  }

  #ask(why) {
    byId("again").hidden = false;
    byId("controls").hidden = true;
    byId("again-why").textContent = why;
  }

  /** Show what is known about the parts of the recording. */
  show(transcript) {
    this.#duration_s = transcript.duration_s;
    const percent = (time_s) => `${((100 * time_s) / (transcript.duration_s || 1)).toFixed(3)}%`;
    const stops = coverage(transcript)
      .sort((one, other) => one[0] - other[0])
      .map(([from_s, to_s, kind]) => {
        const [from, to] = [percent(from_s), percent(to_s)];
        return `transparent ${from}, ${COLOURS[kind]} ${from} ${to}, transparent ${to}`;
      });
    byId("coverage").style.background = stops.length ? `linear-gradient(to right, ${stops.join(", ")})` : "";
    this.#showTime();
  }

  /** Go to a time, and play from there. */
  go(time_s, plays = true) {
    if (!audio.getAttribute("src")) return;
    this.#follows = true;
    this.#begun = true;
    audio.currentTime = Math.max(0, time_s);
    if (plays) audio.play().catch(() => {}); // the error event says why
    this.#showTime();
  }

  toggle() {
    this.#begun = true; // the event may come after the next pause
    if (audio.paused) audio.play().catch(() => {});
    else audio.pause();
  }

  #showState() {
    const label = audio.paused ? "Play" : "Pause";
    play.ariaLabel = label;
    play.classList.toggle("playing", !audio.paused);
    if (!audio.paused) this.#begun = true;
    this.#showTime();
    const frame = () => {
      if (audio.paused) return;
      this.#showTime();
      requestAnimationFrame(frame);
    };
    if (!audio.paused) requestAnimationFrame(frame);
  }

  #showTime() {
    // Browsers do not know the length of what they have recorded themselves.
    const duration_s = Number.isFinite(audio.duration) ? audio.duration : this.#duration_s;
    seek.max = duration_s || 1;
    seek.value = audio.currentTime;
    seek.ariaValueText = `${clock(audio.currentTime)} of ${clock(duration_s)}`;
    const [now, end] = [clock(audio.currentTime), clock(Math.round(duration_s))]; // as in the list
    if (byId("now").value !== now) byId("now").value = now;
    if (byId("end").value !== end) byId("end").value = end;
    if (!this.#begun) return;
    const changed = this.reader.mark(audio.currentTime);
    if (changed) this.#scroll();
  }

  #scroll() {
    if (!this.#follows || !this.reader.place) return;
    const { top, bottom } = this.reader.place.getBoundingClientRect();
    if (top > 80 && bottom < innerHeight - 160) return;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.reader.place.scrollIntoView({ block: "center", behavior: calm ? "auto" : "smooth" });
  }

  #letGo() {
    if (audio.paused) return;
    this.#follows = false;
    follow.hidden = false;
  }

  #press(event) {
    const { target, key } = event;
    if (
      event.ctrlKey ||
      event.altKey ||
      event.metaKey ||
      byId("player").hidden ||
      document.querySelector("dialog[open]")
    )
      return;
    if (target.closest("textarea, select, input:not([type=range]):not([type=checkbox])")) return;
    if (key === " " && target.closest("button, summary, input:not([type=range])")) return; // it presses that
    if (target.closest("input[type=range]") && key.startsWith("Arrow")) return;
    const acts = {
      " ": () => this.toggle(),
      ArrowLeft: () => this.go(audio.currentTime - STEP_S, false),
      ArrowRight: () => this.go(audio.currentTime + STEP_S, false),
      ArrowUp: () => this.#step(-1),
      ArrowDown: () => this.#step(1),
      e: () => this.reader.edit(),
    };
    const act = acts[key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  #step(by) {
    const time_s = this.reader.neighbour(by);
    if (time_s !== null) this.go(time_s, false);
  }
}
