
// --- drawing

const SMALL = 280; // pixels: a smaller picture is shown this large
const picture = (part, number, count) => {
  const source = read(part.image);
  if (!source.url) return make("p", "note", source.note);
  const image = make("img");
  const largest = Math.max(part.width, part.height);
  const scale = largest < SMALL ? Math.min(SMALL / largest, 12) : 1;
  image.width = Math.round(part.width * scale);
  image.height = Math.round(part.height * scale);
  if (scale > 1) {
    image.classList.add("small");
    image.style.width = `${image.width}px`;
  }
  image.alt = `${cases[current].id}: image ${number} of ${count}`;
  image.addEventListener("click", () => image.classList.toggle("whole"));
  const frame = part.boxes.length ? make("div", "frame") : image;
  image.addEventListener("error", () => frame.replaceWith(make("p", "note", `This image can't be shown. ${source.url.slice(0, 200)}`)));
  image.src = source.url;
  if (part.boxes.length) frame.append(image, ...part.boxes.map((box) => drawBox(box, part)));
  return frame;
};
const drawRecording = (part, number, count) => {
  const source = read(part.video);
  const name = `${cases[current].id}: recording ${number} of ${count}`;
  const block = make("div", "recording");
  if (source.url) {
    const video = make("video");
    video.controls = true;
    video.muted = true;
    video.preload = "metadata";
    video.width = source.width;
    video.height = source.height;
    video.setAttribute("aria-label", name);
    video.addEventListener("error", () => video.replaceWith(make("p", "note", "This browser can't play the recording.")));
    video.src = source.url;
    block.append(video);
  }
  const strip = make("div", "strip");
  strip.tabIndex = 0;
  strip.setAttribute("role", "group");
  strip.setAttribute("aria-label", `${name}: frames`);
  for (const frame of source.frames) {
    const figure = make("figure");
    const time = `${frame.time.toFixed(1)} s`;
    if (frame.url) {
      const image = make("img");
      image.width = source.width;
      image.height = source.height;
      image.classList.toggle("wide", source.width > source.height);
      image.alt = `${name}, at ${time}`;
      image.addEventListener("click", () => image.classList.toggle("whole"));
      image.src = frame.url;
      figure.append(image);
    } else figure.append(make("p", "note", frame.note));
    figure.append(make("figcaption", "", time));
    strip.append(figure);
  }
  const some = source.frames.length < source.count ? `, ${source.frames.length} of them here` : "";
  const about = `Recording of ${source.seconds.toFixed(1)} s; models see ${source.count} frames${some}.`;
  block.append(strip, make("p", "about", about));
  return block;
};
const drawBox = ({ ref, corners: [left, top, right, bottom] }, { width, height }) => {
  const node = make("div", left + right > width ? "box end" : "box");
  node.style.left = `${(100 * left) / width}%`;
  node.style.top = `${(100 * top) / height}%`;
  node.style.width = `${(100 * (right - left)) / width}%`;
  node.style.height = `${(100 * (bottom - top)) / height}%`;
  if (ref) node.append(make("span", "", ref));
  return node;
};
const drawItem = () => {
  const speakers = [];
  const turns = [];
  let block = null;
  const numbers = { image: 0, video: 0 };
  const count = (kind) => facts.parts.filter((part) => part[kind] !== undefined).length;
  for (const part of facts.parts) {
    let text = part.text;
    if (block?.turn !== part.turn) {
      block = { turn: part.turn, node: make("div", part.turn ? "turn" : "turn plain") };
      turns.push(block.node);
      text = text?.replace(/^\n+/, "");
      const speaker = part.turn ? text?.match(/^([^\s:：]{1,20})\s*[:：]\s*/) : null;
      if (speaker) {
        if (!speakers.includes(speaker[1])) speakers.push(speaker[1]);
        if (speakers.indexOf(speaker[1]) % 2) block.node.classList.add("second");
        block.node.append(make("span", "speaker", speaker[1]));
        text = text.slice(speaker[0].length);
      }
    }
    if (part.image !== undefined) block.node.append(picture(part, ++numbers.image, count("image")));
    else if (part.video !== undefined) block.node.append(drawRecording(part, ++numbers.video, count("video")));
    else if (text.trim()) block.node.append(make("span", "text", text));
  }
  find("item").replaceChildren(...turns);
};
const meter = (kind, value) => {
  const node = make("div", `meter ${kind}`);
  const bar = make("i");
  bar.style.backgroundSize = `${100 * value}% 100%`;
  node.append(bar, make("b", "", `${(100 * value).toFixed(1)}%`));
  return node;
};
const drawEvidence = () => {
  const blocks = [];
  const addText = (title, text) => {
    const block = make("div");
    block.append(make("h2", "", title), make("p", "prose", text));
    if (text) blocks.push(block);
  };
  if (facts.blind) addText("Audit", "What models and labellers say is hidden, so that your verdict is independent.");
  if (facts.disagreed) addText("Reviewers disagree", "Their verdicts on this item differ. Please judge it again.");
  addText("Why this item is shown", facts.why);
  addText("The teacher's reason", facts.reason);
  if (facts.rows.length) {
    const models = ["student", "teacher"].filter((model) => facts[model]);
    const title = make("h2", "", "Probabilities");
    const legend = make("span", "legend");
    legend.append(...models.map((model) => make("span", model, model)));
    title.append(legend);
    const bars = make("div", "bars");
    for (const row of facts.rows) {
      const name = make("div", "name");
      name.append(make("span", "", row.label));
      if (row.label === cases[current].given) name.append(make("span", "tag given", "given"));
      if (row.label === facts.candidate) name.append(make("span", "tag candidate", "proposed"));
      const node = make("div", "row");
      node.append(name, ...models.map((model) => meter(model, row[model])));
      bars.append(node);
    }
    const block = make("div");
    block.append(title, bars);
    blocks.push(block);
  }
  find("evidence").replaceChildren(...blocks);
};
const drawChoices = () => {
  const entry = cases[current];
  const [first, second] = facts.choices;
  const named = { 1: first, 2: second ?? null, 4: NEITHER };
  find("choices").classList.toggle("blind", facts.blind);
  const other = entry.verdict !== null && !Object.values(named).includes(entry.verdict);
  for (const button of find("choices").children) {
    const choice = button.dataset.key;
    const label = button.querySelector(".label");
    const role = button.querySelector(".role");
    if (choice === "1") [role.textContent, label.textContent] = [facts.blind ? "" : "given", first];
    if (choice === "2") [role.textContent, label.textContent] = [facts.blind ? "" : "proposed", second ?? "no other label is proposed"];
    if (choice === "3") label.textContent = other ? entry.verdict : "";
    button.disabled = choice === "2" && named[2] === null;
    const chosen = choice === "3" ? other : entry.verdict !== null && entry.verdict === named[choice];
    button.classList.toggle("chosen", chosen);
    button.setAttribute("aria-pressed", chosen);
  }
};
const render = () => {
  const judged = cases.filter((c) => c.verdict !== null).length;
  const waiting = cases.filter((c) => c.verdict !== c.saved).length;
  find("bar").style.width = `${cases.length ? (100 * judged) / cases.length : 0}%`;
  find("bar").parentNode.setAttribute("aria-valuemax", cases.length);
  find("bar").parentNode.setAttribute("aria-valuenow", judged);
  find("counts").textContent = `${judged} of ${cases.length} judged${waiting ? `, ${waiting} not saved` : ""}`;
  find("save").classList.toggle("unsaved", waiting > 0);
  if (!cases.length) return find("item").replaceChildren(make("p", "empty", "No label is in doubt."));
  if (facts === null) {
    facts = read(`case-${current}`);
    drawItem();
    drawEvidence();
  }
  const list = shown();
  const at = list.indexOf(current);
  find("place").textContent = at < 0 ? `not in the filter (${list.length})` : `${at + 1} of ${list.length}`;
  find("name").textContent = cases[current].id;
  find("name").title = cases[current].id;
  drawChoices();
};
