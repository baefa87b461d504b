"use strict";
// Everything that a name, a file or the server says is set as text, never as markup.

const root = document.documentElement, at = (id) => document.getElementById(id);
at("theme").addEventListener("click", () => {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  root.dataset.theme = (root.dataset.theme || system) === "dark" ? "light" : "dark";
});

const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const say = (text, wrong = false) => {
  at("status").textContent = text;
  at("status").classList.toggle("wrong", wrong);
};
const short = (value) => typeof value === "number" ? String(+value.toPrecision(4))
  : Array.isArray(value) ? value.map(short).join(", ") : String(value);

// A list of objects becomes a table, so that any kind of task shows all that it said.
const isRows = (value) => Array.isArray(value) && value.length && typeof value[0] === "object" && !Array.isArray(value[0]);
const table = (rows) => make("table", {},
  make("thead", {}, make("tr", {}, ...Object.keys(rows[0]).map((key) => make("th", { textContent: key })))),
  make("tbody", {}, ...rows.map((row) => make("tr", {}, ...Object.values(row).map((v) => make("td", { textContent: short(v) }))))));
const values = (said) => {
  const plain = Object.entries(said).filter(([, value]) => !isRows(value) && !(Array.isArray(value) && !value.length));
  const tables = Object.values(said).filter(isRows).map(table);
  const pairs = make("table", {}, ...plain.map(([key, value]) => make("tr", {}, make("th", { textContent: key }), make("td", { textContent: short(value) }))));
  return make("div", { className: "values" }, ...(plain.length ? [pairs] : []), ...tables);
};

const bar = ([name, share]) => {
  const filled = make("i");
  filled.style.width = 100 * share + "%";
  return make("p", { className: "guess" }, filled, make("span", { className: "name", textContent: name, title: name }),
    make("span", { className: "num", textContent: (100 * share).toFixed(1) + " %" }));
};
const swatch = ([name, color]) => {
  const square = make("i");
  square.style.background = color;
  return make("span", {}, square, name);
};
const slider = (over) => {
  const range = make("input", { type: "range", min: 0, max: 100, value: 100 });
  range.addEventListener("input", () => { over.style.opacity = range.value / 100; });
  return make("label", { className: "slider" }, "opacity", range);
};

const card = (task, drawn, picture, said, file) => {
  const over = make("img", { src: drawn.picture, alt: `${task}: ${drawn.headline}`, className: drawn.layered ? "over" : "" });
  const stack = make("div", { className: "layers" }, ...(drawn.layered ? [make("img", { src: picture, alt: "" })] : []), over);
  const caption = make("figcaption", {}, make("p", { className: "muted", textContent: `${task} · ${drawn.kind}` }),
    make("p", { className: "verdict" }, make("b", { textContent: drawn.headline })), ...drawn.bars.map(bar));
  if (drawn.layered) caption.append(slider(over));
  if (drawn.legend.length) caption.append(make("p", { className: "legend" }, ...drawn.legend.map(swatch)));
  if (drawn.details.length) caption.append(make("p", { className: "file", textContent: drawn.details.join(" · ") }));
  caption.append(make("details", {}, make("summary", { textContent: "All values" }), values(said)));
  if (file) caption.append(make("a", { textContent: `Save ${file.ending}`, download: `${task}.${file.ending}`, href: `data:application/octet-stream;base64,${file.base64}` }));
  const figure = make("figure", { className: "card" }, stack, caption);
  figure.dataset.task = task;
  return figure;
};

let chosen = null, running = null;
const predict = async () => {
  if (!chosen) return;
  running?.abort();
  const mine = running = new AbortController();
  const form = new FormData(), tasks = [...document.querySelectorAll("#tasks input:checked")].map((box) => box.value);
  if (!tasks.length) return say("Choose at least one task.", true);
  form.append("file", chosen, chosen.name || "picture");
  for (const task of tasks) form.append("tasks", task);
  for (const extra of ["drawn", "files"]) form.append("include", extra);
  say(`Predicting ${chosen.name} …`);
  const began = performance.now();
  try {
    const response = await fetch("/predict", { method: "POST", body: form, signal: mine.signal });
    const body = await response.json();
    if (!response.ok) throw new Error(body.detail);
    at("answer").replaceChildren(...Object.entries(body.drawn.tasks).map(([task, drawn]) =>
      card(task, drawn, body.drawn.picture, body.tasks[task], body.files?.[task])));
    const turned = body.exif_turned ? " An EXIF tag turns this picture in viewers; it is predicted as stored, as in training." : "";
    say(`${body.file_name}: ${body.width} × ${body.height} pixels, ${((performance.now() - began) / 1000).toFixed(1)} s.${turned}`);
  } catch (error) {
    if (mine.signal.aborted) return;
    at("answer").replaceChildren();
    say(error instanceof TypeError ? "The server does not answer; is it still running?" : error.message, true);
  }
};
const choose = (file) => {
  if (!file) return;
  chosen = file;
  predict();
};

at("file").addEventListener("change", (event) => {
  choose(event.target.files[0]);
  event.target.value = "";  // so that the same file can be chosen again
});
at("ask").addEventListener("submit", (event) => event.preventDefault());
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") choose(event.dataTransfer.files[0]);
  });
}

const begin = async () => {
  const model = await (await fetch("/model")).json();
  document.title = `${model.name} · UFO-Large`;
  at("name").textContent = model.name;
  at("facts").append(make("span", {}, make("b", { textContent: (model.parameters / 1e6).toFixed(1) + " M" }), " parameters"));
  at("most").textContent = `up to ${(model.limits.bytes / 2 ** 20).toFixed(0)} MiB and ${model.limits.pixels / 1e6} megapixels; it stays on the server's machine and is not kept`;
  at("curl").textContent = `curl -F file=@street.jpg -F tasks=${model.tasks[0].name} ${location.origin}/predict`;
  for (const task of model.tasks) {
    const box = make("input", { type: "checkbox", value: task.name, checked: true });
    box.addEventListener("change", predict);
    const classes = task.classes.length ? `, ${task.classes.length} classes` : "";
    at("tasks").append(make("label", {}, box, make("b", { textContent: task.name }), make("span", { className: "muted", textContent: task.kind + classes })));
  }
  const samples = await (await fetch("/samples")).json();
  at("samples").hidden = !samples.length;
  samples.forEach((sample, number) => {
    const picture = make("img", { src: `/samples/${number}`, alt: sample.name, loading: "lazy" });
    const button = make("button", { type: "button", title: `${sample.task}: ${sample.name}` }, picture);
    button.addEventListener("click", async () => choose(new File([await (await fetch(picture.src)).blob()], sample.name)));
    document.querySelector(".strip").append(button);
  });
};
begin().catch(() => say("The server does not answer; is it still running?", true));
