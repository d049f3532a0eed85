// The live panel, drawn from /metrics.

const kInterval = 1000;  // ms between two looks
const kIntervalOnProblem = 5000;
const kPoints = 60;  // of the graph: a minute

const element = id => document.getElementById(id);
const whole = new Intl.NumberFormat("en", {maximumFractionDigits: 0});
const short = value => value > 0 && value < 10 ? value.toFixed(1) : whole.format(value);
const percent = (part, all) => all > 0 ? `${(100 * part / all).toFixed(part > 0 && part < 0.1 * all ? 1 : 0)}%` : "–";

// Name -> value of a text in Prometheus' format. Series of one name (they differ in labels) are summed.
export function parseMetrics(text) {
  const values = new Map();
  for (const line of text.split("\n")) {
    const match = /^([a-zA-Z_:][\w:]*)(?:\{.*\})?\s+(\S+)/.exec(line);
    if (!match) continue;
    const value = Number(match[2]);
    if (!Number.isNaN(value)) values.set(match[1], (values.get(match[1]) ?? 0) + value);
  }
  return values;
}

export class LivePanel {
  #fetchMetrics;
  #timer = 0;
  #looks = 0;  // numbers them: only the newest goes on
  #before = null;  // {time, tokens} of the last look
  #speeds = [];

  // `fetchMetrics`: () => Promise of the text of /metrics.
  constructor(fetchMetrics) {
    this.#fetchMetrics = fetchMetrics;
    document.addEventListener("visibilitychange", () => this.start());
    const wide = matchMedia("(min-width: 60rem)");
    const unfold = () => { element("live").open = wide.matches; };
    wide.addEventListener("change", unfold);
    unfold();
    this.start();
  }

  // Looks now, and then every second while the page can be seen.
  start() {
    clearTimeout(this.#timer);
    ++this.#looks;
    if (document.hidden) {
      this.#before = null;  // what happens meanwhile is not the speed of the next second
    } else {
      this.#look();
    }
  }

  async #look() {
    let wait = kInterval;
    const mine = ++this.#looks;
    try {
      const values = parseMetrics(await this.#fetchMetrics());
      if (mine !== this.#looks) return;
      this.#show(values, performance.now());
      this.#tell("");
    } catch (error) {
      if (mine !== this.#looks) return;
      wait = kIntervalOnProblem;
      this.#before = null;
      this.#tell(error.status === 401 ? "The figures need the API key." : "No figures from the server.");
    }
    this.#timer = setTimeout(() => this.#look(), wait);
  }

  #tell(problem) {
    const note = element("live-problem");
    note.hidden = problem === "";
    note.textContent = problem;
    if (problem) {
      element("live-speed").textContent = "–";
      element("live-line").textContent = problem;
    }
  }

  #show(values, time) {
    const get = name => values.get(`atom_${name}`) ?? 0;
    const tokens = get("generated_tokens_total");
    const before = this.#before;
    this.#before = {time, tokens};
    // A counter that fell is that of another server.
    const speed = before && tokens >= before.tokens ? 1000 * (tokens - before.tokens) / (time - before.time) : null;
    if (speed !== null) {
      this.#speeds.push(speed);
      if (this.#speeds.length > kPoints) this.#speeds.shift();
      this.#draw();
    }
    const used = get("cache_tokens_used"), capacity = get("cache_tokens_capacity");
    const shown = {
      "live-speed": speed === null ? "–" : short(speed),
      "live-running": whole.format(get("running_sequences")),
      "live-waiting": whole.format(get("waiting_sequences")),
      "live-cache": percent(used, capacity),
      "live-cache-tokens": `${whole.format(used)} of ${whole.format(capacity)} tokens`,
      "live-hits": percent(get("cached_prompt_tokens_total"), get("prompt_tokens_total")),
      "live-preemptions": whole.format(get("preemptions_total")),
    };
    for (const [id, text] of Object.entries(shown)) element(id).textContent = text;
    element("live-gauge").style.width = `${capacity > 0 ? Math.min(100, 100 * used / capacity) : 0}%`;
    element("live-line").textContent =
      `${shown["live-speed"]} tokens/s · ${shown["live-running"]} running · cache ${shown["live-cache"]}`;
  }

  #draw() {
    const peak = Math.max(...this.#speeds);
    const points = this.#speeds.map((speed, i) => {
      const x = 120 * (i + kPoints - this.#speeds.length) / (kPoints - 1);
      return `${x.toFixed(1)},${(34 - 32 * speed / Math.max(peak, 1)).toFixed(1)}`;
    });
    element("graph-line").setAttribute("points", points.join(" "));
    element("graph-area").setAttribute("d", `M${points[0].split(",")[0]},36 L${points.join(" L")} L120,36 Z`);
    element("live-peak").textContent = `peak ${short(peak)}`;
  }
}
