// Server-sent events, read from the body of a response.

// Takes the text of a stream in pieces, cut anywhere, and gives the data of the events that they complete.
export class EventParser {
  #rest = "";  // the beginning of a line
  #data = [];  // lines of data of an event that is not complete
  #afterReturn = false;  // the last piece ended in \r: a \n that follows belongs to it

  push(text) {
    if (text === "") return [];
    if (this.#afterReturn && text[0] === "\n") text = text.slice(1);
    this.#afterReturn = text.endsWith("\r");
    const lines = (this.#rest + text).split(/\r\n|\r|\n/);
    this.#rest = lines.pop();
    const events = [];
    for (const line of lines) {
      if (line === "") {
        if (this.#data.length > 0) events.push(this.#data.join("\n"));
        this.#data = [];
      } else if (line === "data" || line.startsWith("data:")) {
        this.#data.push(line.slice(5).replace(/^ /, ""));
      }
    }
    return events;
  }
}

// The data of each event of a ReadableStream of bytes.
export async function* readEvents(body) {
  const parser = new EventParser();
  const decoder = new TextDecoder();  // holds back what a piece has of an incomplete character
  const reader = body.getReader();
  try {
    for (;;) {
      const {done, value} = await reader.read();
      if (done) return;
      yield* parser.push(decoder.decode(value, {stream: true}));
    }
  } finally {
    // Left early: tells the server that nobody reads on.
    reader.cancel().catch(() => {});
  }
}
