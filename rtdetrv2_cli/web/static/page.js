// Asks for the newest pictures and figures, shows them, asks again: see web/pictures.py.
// Names of classes and sources come from outside, so text is only ever set as text.

const RETRY_MS = [500, 1000, 2000, 5000];
const NARROWEST_TILE = 300;
const CLASSES_SHOWN = 12;
const SETTLED_SECONDS = 1.5;
const ROUND_MS = 50;
const TROUBLES = new Set(["unreachable", "stalled", "lost", "gave_up"]);

const at = (id) => document.getElementById(id);
const tiles = new Map();
let alone = null;
let failures = 0;
let aspect = 16 / 9;

document.body.classList.toggle("wall", location.hash === "#wall");

function make(kind, className, text) {
  const element = document.createElement(kind);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function ago(seconds) {
  if (seconds < SETTLED_SECONDS) return "now";
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  return `${Math.round(seconds / 3600)} h ago`;
}

function lag(seconds) {
  return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`;
}

function counted(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

function plain(state) {
  return state.replaceAll("_", " ");
}

// A tile for each stream

class Tile {
  constructor(stream) {
    this.stream = stream;
    this.seen = 0;
    this.visible = true;
    this.figure = make("figure");
    this.figure.tabIndex = 0;
    this.canvas = make("canvas");
    this.canvas.setAttribute("role", "img");
    this.notice = make("div", "notice");
    this.name = make("b");
    this.figures = ["fps", "lag", "dropped"].map((unit) => {
      const value = make("span");
      value.append(make("em"), make("small", "", unit));
      value.firstChild.style.fontStyle = "normal";
      return value;
    });
    const caption = make("figcaption");
    caption.append(this.name, ...this.figures);
    this.figure.append(this.canvas, this.notice, caption);
    this.figure.addEventListener("click", () => this.toggle());
    this.figure.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        this.toggle();
      }
    });
    visibility.observe(this.figure);
    at("pictures").append(this.figure);
  }

  toggle() {
    alone = alone === this.stream ? null : this.stream;
    arrange();
  }

  get wanted() {
    return this.visible && !this.figure.hidden;
  }

  async draw(data) {
    const picture = await createImageBitmap(new Blob([data], { type: "image/jpeg" }));
    if (this.canvas.width !== picture.width || this.canvas.height !== picture.height) {
      this.canvas.width = picture.width;
      this.canvas.height = picture.height;
    }
    this.canvas.getContext("2d").drawImage(picture, 0, 0);
    picture.close();
  }

  tell(stream, events) {
    if (stream.number < this.seen) this.seen = 0;
    write(this.name, stream.name);
    this.canvas.setAttribute("aria-label", `Picture of ${stream.name}`);
    const [fps, behind, dropped] = this.figures.map((each) => each.firstChild);
    write(fps, stream.fps.toFixed(1));
    write(behind, lag(stream.lag));
    write(dropped, stream.dropped.toLocaleString("en"));
    this.figures.forEach((each) => (each.hidden = !stream.is_flowing));
    this.figure.classList.toggle("stale", !stream.is_flowing);
    write(this.notice, stream.is_flowing ? "" : told(stream, events));
  }
}

const visibility = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    for (const tile of tiles.values()) {
      if (tile.figure === entry.target) tile.visible = entry.isIntersecting;
    }
  }
});

function told(stream, events) {
  const state = stream.state === "playing" ? "no picture" : plain(stream.state);
  const since = stream.age === null ? "" : `, last picture ${ago(stream.age)}`;
  const last = events.find((event) => event.name === stream.name);
  const reason = TROUBLES.has(last?.event) ? `\n${last.message}` : "";
  return `${state}${since}${reason}`;
}

// As many columns as make the tiles largest in the space there is

function arrange() {
  const grid = at("pictures");
  for (const tile of tiles.values()) {
    tile.figure.hidden = alone !== null && alone !== tile.stream;
    tile.figure.classList.toggle("alone", alone === tile.stream);
  }
  const count = [...tiles.values()].filter((tile) => !tile.figure.hidden).length;
  const gap = parseFloat(getComputedStyle(grid).columnGap) || 0;
  const width = grid.clientWidth;
  const below = window.innerHeight - grid.getBoundingClientRect().top - window.scrollY - gap;
  const height = Math.max(below, 240);
  let columns = 1;
  let tileWidth = width;
  if (width >= 2 * NARROWEST_TILE) {
    tileWidth = 0;
    for (let tried = 1; tried <= count; tried += 1) {
      const rows = Math.ceil(count / tried);
      const byWidth = (width - (tried - 1) * gap) / tried;
      const byHeight = ((height - (rows - 1) * gap) / rows) * aspect;
      const fits = Math.min(byWidth, byHeight);
      if (byWidth >= NARROWEST_TILE && fits > tileWidth) [columns, tileWidth] = [tried, fits];
    }
    const widest = (width - (columns - 1) * gap) / columns;
    tileWidth = Math.min(widest, Math.max(tileWidth, NARROWEST_TILE));
  }
  grid.style.setProperty("--columns", columns);
  grid.style.setProperty("--tile", `${Math.floor(tileWidth)}px`);
  grid.style.setProperty("--aspect", aspect);
}

// Lists: rows are kept and only their text changes, so that nothing flickers

function fill(list, items, makeRow, tellRow, nothing) {
  while (list.children.length > items.length || list.firstChild?.className === "empty") {
    list.lastChild.remove();
  }
  items.forEach((item, place) => {
    if (!list.children[place]) list.append(makeRow());
    tellRow(list.children[place], item);
  });
  if (!items.length) list.append(make("li", "empty", nothing));
}

function streamRow() {
  const row = make("li");
  row.append(make("i"), make("span", "name"), make("span", "value"), make("span", "more"));
  return row;
}

const MARKS = { playing: "good", waiting: "warn", opening: "warn", lost: "bad" };

function tellStream(row, stream) {
  const [mark, name, value, more] = row.children;
  const stalled = stream.state === "playing" && !stream.is_flowing;
  mark.className = stalled ? "warn" : MARKS[stream.state] ?? "";
  write(name, stream.name);
  name.title = stream.name;
  write(value, stalled ? "no picture" : plain(stream.state));
  const size = stream.size ? `${stream.size[1]}×${stream.size[0]}` : "";
  const parts = [size, counted(stream.frames, "frame")];
  if (stream.dropped) parts.push(`${stream.dropped.toLocaleString("en")} dropped`);
  if (stream.connections > 1) parts.push(`${stream.connections - 1}× reconnected`);
  write(more, parts.filter(Boolean).join(" · "));
}

function seenRow() {
  const row = make("li");
  row.append(make("span", "name"), make("span", "value"), make("span", "more"));
  return row;
}

function tellSeen(row, seen) {
  const [name, value, more] = row.children;
  const isNow = seen.age < SETTLED_SECONDS;
  write(name, seen.name);
  value.className = isNow ? "value now" : "value";
  write(value, isNow ? `${seen.count} now` : ago(seen.age));
  write(more, `${seen.confidence.toFixed(2)} · ${seen.source}`);
  more.title = seen.source;
}

function tellEvent(row, event) {
  const [name, value, more] = row.children;
  write(name, plain(event.event));
  write(value, ago(event.age));
  write(more, `${event.name}: ${event.message}`);
}

function lastSeen(streams) {
  // What is seen now stands by name, so that it does not dance; what has gone, by time.
  const all = streams.flatMap((stream) =>
    stream.seen.map((seen) => ({ ...seen, source: stream.name })),
  );
  const now = all.filter((seen) => seen.age < SETTLED_SECONDS);
  const before = all.filter((seen) => seen.age >= SETTLED_SECONDS);
  now.sort((a, b) => a.name.localeCompare(b.name) || a.source.localeCompare(b.source));
  before.sort((a, b) => a.age - b.age);
  return [...now, ...before].slice(0, CLASSES_SHOWN);
}

// The whole page

function tell(state) {
  const sizes = state.streams.map((stream) => stream.size).filter(Boolean);
  const before = `${tiles.size} ${aspect}`;
  const aspects = sizes.map(([height, width]) => width / height).sort((a, b) => a - b);
  if (sizes.length) aspect = Math.max(1, aspects[Math.floor(sizes.length / 2)]);
  for (const stream of state.streams) {
    if (!tiles.has(stream.stream)) tiles.set(stream.stream, new Tile(stream.stream));
    tiles.get(stream.stream).tell(stream, state.events);
  }
  for (const [stream, tile] of tiles) {
    if (stream < state.streams.length) continue;
    tile.figure.remove();
    tiles.delete(stream);
    if (alone === stream) alone = null;
  }
  if (before !== `${tiles.size} ${aspect}`) arrange();

  const flowing = state.streams.filter((stream) => stream.is_flowing).length;
  const of = flowing === state.streams.length ? "" : `${flowing} of `;
  write(
    at("summary"),
    `${of}${counted(state.streams.length, "stream")} · ${state.fps.toFixed(1)} fps · ` +
      counted(state.detections, "object"),
  );
  fill(at("streams"), state.streams, streamRow, tellStream, "none");
  fill(at("seen"), lastSeen(state.streams), seenRow, tellSeen, "nothing yet");
  fill(at("events"), state.events, seenRow, tellEvent, "none yet");
  tellRecording(state.recording);
}

function tellRecording(recording) {
  const button = at("record");
  button.hidden = recording === null;
  button.setAttribute("aria-pressed", String(recording === true));
  write(button.lastChild, recording ? "Stop recording" : "Record");
}

at("record").addEventListener("click", async () => {
  const button = at("record");
  const recording = button.getAttribute("aria-pressed") !== "true";
  button.disabled = true;
  try {
    const answer = await fetch("/recording", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ recording }),
    });
    const now = await answer.json();
    tellRecording(now.recording);
    warn(now.error ?? "");
  } catch {
    warn("The recording could not be switched.");
  } finally {
    button.disabled = false;
  }
});

function warn(text) {
  write(at("trouble"), text);
  at("trouble").hidden = !text;
}

async function look() {
  const wanted = [...tiles.values()].filter((tile) => tile.wanted);
  const seen = wanted.map((tile) => `${tile.stream}:${tile.seen}`).join(",");
  const answer = await fetch(`/view?seen=${seen}`, { cache: "no-store" });
  if (answer.status === 401) location.reload();
  if (!answer.ok) throw new Error(answer.statusText);
  const body = new Uint8Array(await answer.arrayBuffer());
  const line = body.indexOf(10);
  const length = Number(new TextDecoder().decode(body.subarray(0, line)));
  let place = line + 1 + length;
  const state = JSON.parse(new TextDecoder().decode(body.subarray(line + 1, place)));
  tell(state);
  await Promise.all(
    state.pictures.map((picture) => {
      const data = body.subarray(place, (place += picture.bytes));
      const tile = tiles.get(picture.stream);
      tile.seen = picture.number;
      return tile.draw(data);
    }),
  );
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

function awake() {
  if (!document.hidden) return null;
  return new Promise((done) =>
    document.addEventListener("visibilitychange", done, { once: true }),
  );
}

async function watch() {
  for (;;) {
    await awake();
    try {
      // Several streams whose frames come in turn are not asked for one by one.
      await Promise.all([look(), pause(ROUND_MS)]);
      if (failures) warn("");
      failures = 0;
    } catch {
      failures += 1;
      if (failures > 1) lose();
      await pause(RETRY_MS[Math.min(failures, RETRY_MS.length) - 1]);
    }
  }
}

function lose() {
  warn("rtdetrv2 does not answer: the run has ended, or the network is down. Trying again.");
  for (const tile of tiles.values()) tile.figure.classList.add("stale");
}

new ResizeObserver(arrange).observe(at("pictures"));
window.addEventListener("resize", arrange);
watch();
