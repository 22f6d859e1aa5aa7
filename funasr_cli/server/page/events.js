// Read server-sent events from an answer that grows.

/** A reader of the events of one answer: `read` takes the whole text so far, and returns the new events' data. */
export class Events {
  #seen = 0;

  read(text) {
    const found = [];
    for (let end; (end = text.indexOf("\n\n", this.#seen)) >= 0; this.#seen = end + 2) {
      const line = text.slice(this.#seen, end);
      if (line.startsWith("data: ") && line !== "data: [DONE]") found.push(JSON.parse(line.slice(6)));
    }
    return found;
  }
}
