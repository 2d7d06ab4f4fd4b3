
const NEITHER = "neither"; // as in tasks/correction/judgements.py
const find = (id) => document.getElementById(id);
const read = (id) => JSON.parse(find(id).textContent);
const make = (tag, kind, text) => {
  const node = document.createElement(tag);
  if (kind) node.className = kind;
  if (text !== undefined) node.textContent = text; // never as HTML: it comes from data
  return node;
};
const { key, cases } = read("queue");
const picker = find("picker");
const history = []; // [number, verdict before], for undo

// Progress in this browser, so that a reload loses nothing. `base` is the verdict that the page came with when the item
// was judged here: a page written later with another verdict wins.
const kept = (() => {
  try { return JSON.parse(localStorage.getItem(`labelstill ${key}`)) || {}; } catch { return {}; }
})();
let current = 0;
let facts = null; // of the current case; read when it is shown
for (const [number, entry] of cases.entries()) {
  entry.base = entry.saved = entry.verdict;
  const mine = (kept.answers || {})[entry.id];
  if (mine && mine.base === entry.base) Object.assign(entry, mine);
  if (entry.id === kept.at) current = number;
}

const isMine = (c) => c.verdict !== c.base || c.everSaved;
const keep = () => {
  const answers = cases.filter(isMine).map(({ id, verdict, base, saved, everSaved }) => [id, { verdict, base, saved, everSaved }]);
  try {
    const state = { answers: Object.fromEntries(answers), at: cases[current]?.id };
    localStorage.setItem(`labelstill ${key}`, JSON.stringify(state));
  } catch {
    tell("This browser keeps no progress for the page: save before you close it.", true);
  }
};
const tell = (text, bad = false) => {
  find("message").textContent = text;
  find("message").classList.toggle("bad", bad);
};
const shown = () => {
  const show = find("show").value;
  const given = find("given-filter").value; // a blind case has no given label, so no label selects it
  return [...cases.keys()].filter((n) => {
    const judged = cases[n].verdict !== null;
    return (show === "all" || judged === (show === "judged")) && (!given || cases[n].given === given);
  });
};

// --- moving and judging

const go = (number) => {
  if (number === undefined || number === current) return render();
  current = number;
  facts = null;
  keep();
  render();
  find("item").scrollTop = 0;
  find("item").focus({ preventScroll: true }); // the keys that scroll work on it, and screen readers follow
  find("item").style.scrollMarginTop = `${document.querySelector("header").offsetHeight}px`;
  find("item").scrollIntoView({ block: "start" }); // on a phone the whole page scrolls
};
const scroll = (key) => {
  // the item's pane scrolls on a wide screen, the page on a narrow one
  const item = find("item");
  const pane = item.scrollHeight > item.clientHeight + 1 ? item : document.scrollingElement;
  const page = Math.min(pane.clientHeight, window.innerHeight) * 0.9;
  const by = { ArrowDown: 80, ArrowUp: -80, PageDown: page, PageUp: -page, " ": page, Home: -1e9, End: 1e9 }[key];
  pane.scrollBy({ top: by });
};
const zoom = () => {
  const images = [...find("item").querySelectorAll("img")];
  const whole = images.every((image) => image.classList.contains("whole"));
  for (const image of images) image.classList.toggle("whole", !whole);
};
const play = () => {
  const recordings = [...find("item").querySelectorAll("video")];
  const playing = recordings.find((recording) => !recording.paused);
  if (playing) playing.pause();
  else if (recordings.length) recordings[0].play().catch(() => {}); // its error event says why
  else tell("This item has no recording that can be played.", true);
};
const step = (by) => {
  const list = shown();
  go(by > 0 ? list.find((n) => n > current) : list.findLast((n) => n < current));
};
const onward = () => {
  const list = shown();
  const open = list.filter((n) => cases[n].verdict === null);
  const rest = open.length ? open : list;
  const next = rest.find((n) => n > current) ?? (open.length ? open[0] : undefined);
  if (cases.every((c) => c.verdict !== null)) tell("All judged: press s to save the verdicts.");
  go(next);
};
const judge = (verdict) => {
  const entry = cases[current];
  history.push([current, entry.verdict]);
  entry.verdict = verdict;
  keep();
  tell(`${entry.id}: ${verdict}`);
  onward();
};
const undo = () => {
  if (!cases.length) return;
  const [number, before] = history.pop() ?? [current, null];
  const entry = cases[number];
  tell(entry.verdict === before ? "Nothing to undo." : `${entry.id}: ${before ?? "open again"}`);
  entry.verdict = before;
  go(number);
  keep();
};
const press = (choice) => {
  if (!cases.length) return;
  const label = facts.choices[choice - 1] ?? null;
  if (choice === "1") judge(label);
  else if (choice === "3") openPicker();
  else if (choice === "4") judge(NEITHER);
  else if (label !== null) judge(label);
  else tell("No other label is proposed for this item.", true);
};
const save = () => {
  // Verdicts that the page came with are other people's, or imported already. An undone verdict that may have been
  // imported must be taken back there too.
  const by = find("reviewer").value.trim();
  const judged = cases.filter(isMine);
  const lines = judged.map((c) => {
    const line = { id: c.id, verdict: c.verdict, given: c.given, content: c.content };
    if (by) line.by = by;
    return JSON.stringify(c.verdict === null ? { ...line, withdrawn: true } : line);
  });
  if (!lines.length) return tell("Nothing is judged yet.", true);
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\n"), "\n"], { type: "application/jsonl" }));
  link.download = "verdicts.jsonl";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  for (const c of judged) {
    c.saved = c.verdict;
    c.everSaved ||= c.verdict !== null;
  }
  keep();
  render();
  tell(`${lines.length} verdicts written to verdicts.jsonl; give it to \`labelstill review import\`.`);
};

// --- the pick list

const openPicker = () => {
  find("filter").value = "";
  fillPicker();
  picker.showModal();
};
const rank = (label, typed) => { // an exact match first, then beginnings
  const lower = label.toLowerCase();
  return lower === typed ? 0 : lower.startsWith(typed) ? 1 : lower.includes(typed) ? 2 : 3;
};
const digitOf = (label, n) => { // up to ten labels can be chosen by a digit; labels that are digits by themselves
  if (facts.labels.length > 10) return "";
  return facts.labels.some((other) => /^\d$/.test(other)) ? (/^\d$/.test(label) ? label : "") : String((n + 1) % 10);
};
const fillPicker = () => {
  const typed = find("filter").value.trim().toLowerCase();
  const labels = facts.labels.filter((label) => rank(label, typed) < 3);
  labels.sort((a, b) => rank(a, typed) - rank(b, typed));
  find("list").replaceChildren(...labels.map((label, n) => {
    const line = make("li");
    const digit = digitOf(label, facts.labels.indexOf(label));
    if (digit) line.append(make("kbd", "", digit), " ");
    line.append(make("span", "", label));
    line.id = `option-${n}`;
    line.dataset.label = label;
    line.setAttribute("role", "option");
    line.addEventListener("click", () => pick(label));
    return line;
  }));
  select(0);
};
const select = (at) => {
  const lines = [...find("list").children];
  lines.forEach((line, n) => line.setAttribute("aria-selected", n === at));
  if (lines[at]) find("filter").setAttribute("aria-activedescendant", lines[at].id);
  else find("filter").removeAttribute("aria-activedescendant");
  lines[at]?.scrollIntoView({ block: "nearest" });
};
const pick = (label) => {
  picker.close();
  judge(label);
};
const moveInPicker = (by) => {
  const lines = [...find("list").children];
  const at = lines.findIndex((line) => line.getAttribute("aria-selected") === "true");
  select(Math.min(Math.max(at + by, 0), lines.length - 1));
};

// --- events

const counts = new Map();
for (const c of cases) if (c.given) counts.set(c.given, (counts.get(c.given) || 0) + 1);
find("given-filter").append(new Option("any given label", ""), ...[...counts].sort((a, b) => b[1] - a[1])
  .map(([label, count]) => new Option(`${label} (${count})`, label)));
for (const id of ["show", "given-filter"]) {
  find(id).addEventListener("change", (event) => {
    event.target.blur(); // or the keys would go on choosing in it
    const list = shown();
    go(list.includes(current) ? current : list[0]);
  });
}
const reviewer = find("reviewer");
try { reviewer.value = localStorage.getItem("labelstill reviewer") || ""; } catch { /* it is typed again */ }
reviewer.addEventListener("change", () => {
  try { localStorage.setItem("labelstill reviewer", reviewer.value); } catch { /* it is typed again */ }
});
reviewer.addEventListener("keydown", (event) => { if (event.key === "Enter") reviewer.blur(); });
find("save").addEventListener("click", (event) => { event.currentTarget.blur(); save(); });
find("choices").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  button.blur(); // or a space bar meant for scrolling would judge the next item
  press(button.dataset.key);
});
find("filter").addEventListener("input", fillPicker);
picker.addEventListener("keydown", (event) => {
  if (event.isComposing) return; // Enter ends what an input method composes
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    moveInPicker(event.key === "ArrowDown" ? 1 : -1);
  } else if (event.key === "Enter") {
    event.preventDefault();
    const chosen = find("list").querySelector('[aria-selected="true"]');
    if (chosen) pick(chosen.dataset.label);
  } else if (/^\d$/.test(event.key) && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const label = facts.labels.find((one, n) => digitOf(one, n) === event.key);
    if (label === undefined) return;
    event.preventDefault();
    event.stopPropagation(); // or it would judge the next item too
    pick(label);
  }
});
document.addEventListener("keydown", (event) => {
  // Not "or in any input": a list just closed keeps the focus until the next frame, and a key struck then would be lost.
  const busy = picker.open || event.target.closest?.("select, #reviewer");
  if (busy || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (event.target.closest?.("video") && (event.key === " " || event.key.startsWith("Arrow"))) return; // its own controls
  if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    event.preventDefault();
    step(event.key === "ArrowRight" ? 1 : -1);
  } else if (["ArrowDown", "ArrowUp", "PageDown", "PageUp", "Home", "End", " "].includes(event.key)) {
    if (event.target.closest?.("button, input") && event.key === " ") return; // it presses the button
    event.preventDefault();
    scroll(event.key);
  } else if (!event.repeat) {
    if ("1234".includes(event.key)) { event.preventDefault(); press(event.key); }
    if (event.key === "u") undo();
    if (event.key === "z") zoom();
    if (event.key === "p") play();
    if (event.key === "s") save();
  }
});
render();
