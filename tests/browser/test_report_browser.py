"""report.html in a real browser: hover read-outs, hidden lines, filter, theme, zoom, and a phone's width.

A copy of the page gets a script that acts as a person would and writes what it sees into the page; chromium
prints the resulting document.
"""

import pytest

from ufo_large.testing.browser import NEEDS_CHROMIUM, seen_in
from ufo_large.testing.simulated_run import simulate_run
from ufo_large.tracking import write_report

pytestmark = NEEDS_CHROMIUM
FLAGS = ("--allow-file-access-from-files", "--virtual-time-budget=2000")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    workdir = simulate_run(tmp_path_factory.mktemp("run"), steps=40)
    return write_report(workdir).read_text(encoding="utf-8")


def act(report, folder, script, *flags):
    """Run `script` (a function body that returns a JSON value) in the page and return what it returns."""
    probe = f"""<script>window.onerror = (m) => window.broken = m;</script>{report}<script>
      const seen = (() => {{ {script} }})();
      const out = document.createElement("pre");
      out.id = "seen";
      out.textContent = JSON.stringify({{ seen, broken: window.broken ?? null }});
      document.body.append(out);
    </script>"""
    page = folder / "page.html"
    page.write_text(probe, encoding="utf-8")
    return dump(page, folder, *flags)


def dump(page, folder, *flags):
    return seen_in(f"file://{page}", folder, *FLAGS, *flags)["seen"]


def test_hovering_reads_values_and_leaving_hides_them(report, tmp_path):
    seen = act(report, tmp_path, """
      const chart = [...document.querySelectorAll(".chart")].find(c => c.textContent.includes("Loss of dec"));
      const plot = chart.querySelector(".plot"), tip = chart.querySelector(".tip");
      const box = plot.getBoundingClientRect();
      const move = (share) => plot.dispatchEvent(new PointerEvent("pointermove",
        { clientX: box.left + share * box.width, clientY: box.top + 10, bubbles: true }));
      const read = () => [...tip.querySelectorAll("p")].map(p => p.textContent);
      move(1); const last = read();
      move(0); const first = read();
      const data = JSON.parse(chart.querySelector("script").textContent).lines;
      plot.dispatchEvent(new PointerEvent("pointerleave"));
      return { first, last, hidden: tip.hidden, total: data[0].y.at(-1), names: data.map(l => l.name) };
    """)  # fmt: skip
    assert seen["first"][0] == "step 1" and seen["last"][0] == "step 40" and seen["hidden"]
    assert len(seen["last"]) == 1 + 4 and seen["last"][1].startswith("total")
    assert float(seen["last"][1].removeprefix("total")) == pytest.approx(seen["total"])


def test_a_click_in_the_legend_hides_a_line_and_its_read_out(report, tmp_path):
    seen = act(report, tmp_path, """
      const chart = [...document.querySelectorAll(".chart")].find(c => c.textContent.includes("Task weight"));
      const button = chart.querySelector(".legend button");
      button.click();
      const lines = [...chart.querySelectorAll("g.line")];
      const drawn = () => lines.filter(g => g.style.display !== "none").length;
      const after = drawn(), pressed = button.getAttribute("aria-pressed");
      const plot = chart.querySelector(".plot"), box = plot.getBoundingClientRect();
      plot.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + 100, clientY: box.top + 10 }));
      const rows = chart.querySelectorAll(".tip p").length;
      button.click();
      return { after, pressed, rows, again: drawn() };
    """)  # fmt: skip
    assert seen == {"after": 2, "pressed": "false", "rows": 1 + 2, "again": 3}


def test_figures_of_tasks_tell_their_shares_and_classes(report, tmp_path):
    seen = act(report, tmp_path, """
      const read = (tip) => [...tip.querySelectorAll("p")].map(p => p.textContent);
      const over = (figure, x, y) => {
        const box = figure.querySelector("svg").getBoundingClientRect();
        figure.querySelector(".plot").dispatchEvent(new PointerEvent("pointermove",
          { clientX: box.left + x * box.width, clientY: box.top + y * box.height, bubbles: true }));
        return read(figure.querySelector(".tip"));
      };
      const charts = [...document.querySelectorAll("#tasks .chart")];
      const f1 = over(charts.find(c => c.textContent.includes("F1 over confidence")), 1, 0.5);
      const matrix = document.querySelector("#tasks .matrix");
      const cell = over(matrix, 0.65, 0.97), shown = !matrix.querySelector(".tip").hidden;
      over(matrix, 0.01, 0.01);
      return { f1, cell, shown, hidden: matrix.querySelector(".tip").hidden };
    """)  # fmt: skip
    assert seen["f1"] == ["confidence 100 %", "F10.00 %"]
    assert seen["cell"][:2] == ["truetruck", "predictedvan <R&D>"] and seen["shown"] and seen["hidden"]
    assert seen["cell"][2].startswith("images") and seen["cell"][2].endswith("(100 %)")


def test_filter_theme_and_zoom(report, tmp_path):
    seen = act(report, tmp_path, """
      const filter = document.getElementById("filter");
      filter.value = "TRUNK";
      filter.dispatchEvent(new Event("input"));
      const rows = [...document.querySelectorAll("#config tr")];
      const shown = rows.filter(r => !r.hidden).map(r => r.textContent);
      const color = () => getComputedStyle(document.body).backgroundColor;
      const before = color();
      document.getElementById("theme").click();
      const after = color();
      document.getElementById("theme").click();
      document.querySelector(".zoom").click();
      return { shown, before, after, back: color(), open: document.getElementById("lightbox").open };
    """)  # fmt: skip
    assert seen["shown"] == ["model.trunkvit_tiny_patch16_224"]
    assert seen["before"] != seen["after"] and seen["back"] == seen["before"] and seen["open"]


@pytest.mark.parametrize("width", [360, 768, 1360])
def test_nothing_is_wider_than_the_window(report, tmp_path, width):
    (tmp_path / "report.html").write_text(report, encoding="utf-8")
    page = tmp_path / "frame.html"
    page.write_text(
        f"""<iframe src="report.html" style="border:0;width:{width}px;height:900px"></iframe><script>
      document.querySelector("iframe").onload = (event) => {{
        const inner = event.target.contentDocument, out = document.createElement("pre");
        const wide = [...inner.querySelectorAll("main *")].filter(e => !e.closest("[hidden], svg, dialog")
          && e.getBoundingClientRect().right > {width} + 1 && getComputedStyle(e).position !== "absolute");
        out.id = "seen";
        const names = wide.slice(0, 3).map(e => e.outerHTML.slice(0, 200));
        const seen = [inner.documentElement.scrollWidth, names];
        out.textContent = JSON.stringify({{ broken: null, seen }});
        document.body.append(out);
      }};</script>""",
        encoding="utf-8",
    )
    scroll_width, wide = dump(page, tmp_path, "--window-size=1400,1000")
    assert wide == [] and scroll_width <= width


def test_the_page_follows_the_systems_dark_theme(report, tmp_path):
    script = "return getComputedStyle(document.body).backgroundColor;"
    light = act(report, tmp_path, script)
    dark = act(report, tmp_path, script, "--blink-settings=preferredColorScheme=0")
    assert light == "rgb(246, 247, 249)" and dark == "rgb(15, 18, 24)"
