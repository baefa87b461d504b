"use strict";
// The page works without this: it adds hover read-outs, lines that can be hidden, zoom, filter and theme.

const root = document.documentElement;
document.getElementById("theme").addEventListener("click", () => {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  root.dataset.theme = (root.dataset.theme || system) === "dark" ? "light" : "dark";
});

const place = (tip, at, width) => {
  tip.hidden = false;
  const flip = at + tip.offsetWidth + 14 > width;
  tip.style.left = Math.max(0, flip ? at - tip.offsetWidth - 10 : at + 10) + "px";
};

const row = (name, value, color) => {
  const line = document.createElement("p"), label = document.createElement("span"), number = document.createElement("b");
  if (color !== undefined) {
    const swatch = document.createElement("i");
    swatch.style.background = `var(--s${color})`;
    label.append(swatch);
  }
  label.append(name);
  number.textContent = value;
  line.append(label, number);
  return line;
};

const format = (value, percent) => {
  if (value === null) return "not finite";
  if (percent) return (100 * value).toPrecision(3) + " %";
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(2) : String(+value.toPrecision(4));
};

const nearest = (xs, wanted) => {
  let low = 0, high = xs.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] < wanted) low = middle + 1; else high = middle;
  }
  return low > 0 && wanted - xs[low - 1] < xs[low] - wanted ? low - 1 : low;
};

for (const chart of document.querySelectorAll(".chart")) {
  const { frame, lines } = JSON.parse(chart.querySelector("script").textContent);
  const plot = chart.querySelector(".plot"), tip = chart.querySelector(".tip"), cross = chart.querySelector(".cross");
  const hidden = new Set();
  const [low, high, start, end] = frame.x;

  const show = (event) => {
    const box = plot.getBoundingClientRect();
    const at = (event.clientX - box.left) / box.width * frame.width;
    const wanted = low + (Math.min(Math.max(at, start), end) - start) / (end - start) * (high - low);
    const rows = lines.filter((line) => !hidden.has(line.name)).map((line) => {
      const index = nearest(line.x, wanted);
      return { line, step: line.x[index], value: line.y[index] };
    });
    if (!rows.length) return hide();
    const step = rows.reduce((best, row) => Math.abs(row.step - wanted) < Math.abs(best - wanted) ? row.step : best, rows[0].step);
    const x = start + (step - low) / (high - low) * (end - start);
    cross.setAttribute("x1", x);
    cross.setAttribute("x2", x);
    cross.removeAttribute("hidden");
    tip.replaceChildren(row(frame.xName + " " + (frame.xShare ? format(step, true) : step), ""), ...rows.sort((a, b) => (b.value ?? -Infinity) - (a.value ?? -Infinity))
      .map(({ line, value }) => row(line.name, format(value, frame.percent), line.color)));
    place(tip, x / frame.width * box.width, box.width);
  };
  const hide = () => { tip.hidden = true; cross.setAttribute("hidden", ""); };

  plot.addEventListener("pointermove", show);
  plot.addEventListener("pointerdown", show);
  plot.addEventListener("pointerleave", hide);
  for (const button of chart.querySelectorAll(".legend button")) {
    button.addEventListener("click", () => {
      const name = button.dataset.line;
      hidden.has(name) ? hidden.delete(name) : hidden.add(name);
      button.setAttribute("aria-pressed", String(!hidden.has(name)));
      for (const group of chart.querySelectorAll("g.line")) {
        if (group.dataset.line === name) group.style.display = hidden.has(name) ? "none" : "";
      }
    });
  }
}

for (const matrix of document.querySelectorAll(".matrix")) {
  const { frame, names, counts } = JSON.parse(matrix.querySelector("script").textContent);
  const plot = matrix.querySelector(".plot"), svg = plot.querySelector("svg"), tip = matrix.querySelector(".tip");

  const show = (event) => {
    const box = svg.getBoundingClientRect(), scale = frame.side / box.width;
    const said = Math.floor(((event.clientX - box.left) * scale - frame.margin) / frame.cell);
    const actual = Math.floor(((event.clientY - box.top) * scale - frame.margin) / frame.cell);
    const count = counts[actual]?.[said];
    if (count === undefined) return hide();
    const total = counts[actual].reduce((sum, one) => sum + one, 0);
    tip.replaceChildren(row("true", names[actual]), row("predicted", names[said]),
      row(frame.unit, `${count} of ${total}` + (total ? ` (${format(count / total, true)})` : "")));
    tip.style.top = Math.max(0, event.clientY - box.top - 80) + "px";
    place(tip, event.clientX - plot.getBoundingClientRect().left, plot.clientWidth);
  };
  const hide = () => { tip.hidden = true; };

  plot.addEventListener("pointermove", show);
  plot.addEventListener("pointerdown", show);
  plot.addEventListener("pointerleave", hide);
}

const lightbox = document.getElementById("lightbox");
for (const button of document.querySelectorAll(".zoom")) {
  button.addEventListener("click", () => {
    const image = button.querySelector("img");
    lightbox.querySelector("img").src = image.src;
    lightbox.querySelector("img").alt = image.alt;
    lightbox.showModal();
  });
}
lightbox.addEventListener("click", (event) => { if (event.target === lightbox) lightbox.close(); });

document.getElementById("filter")?.addEventListener("input", (event) => {
  const wanted = event.target.value.toLowerCase();
  for (const line of document.querySelectorAll("#config tr")) {
    line.hidden = !line.textContent.toLowerCase().includes(wanted);
  }
});
