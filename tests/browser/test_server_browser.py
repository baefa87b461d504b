"""The server's page in a real browser: a picture is dropped, and what the tasks say of it is seen.

The page gets a script of the test's, from the same server because its policy allows no other; it acts as a
person would and writes what it sees into the page, and chromium prints the resulting document.
"""

from dataclasses import replace
from functools import partial

import pytest
from fastapi.responses import Response

from ufo_large.media.pictures import encode_jpeg
from ufo_large.serving.server import HERE
from ufo_large.testing.browser import NEEDS_CHROMIUM, seen_in
from ufo_large.testing.models import TINY_TASKS, tiny_batch
from ufo_large.testing.untrained import served, untrained

pytestmark = NEEDS_CHROMIUM
FLAGS = ("--window-size=1400,1000", "--virtual-time-budget=20000")
HOSTILE = "<img src=x onerror='window.broken=1'>"
TASKS = tuple(replace(info, class_names=(HOSTILE, *info.class_names[1:])) for info in TINY_TASKS)
PICTURE = encode_jpeg(tiny_batch(TASKS[0], 1, 96).images_BCHW[0].permute(1, 2, 0).numpy(), 95)
ACT = """
window.onerror = (message) => { window.broken = message; };
const until = async (ready) => { while (!ready()) await new Promise((next) => setTimeout(next, 20)); };
const all = (query) => [...document.querySelectorAll(query)];
const drop = async (name, data) => {
  const carried = new DataTransfer();
  carried.items.add(new File([data], name));
  const event = new DragEvent("drop", { dataTransfer: carried, bubbles: true });
  document.getElementById("drop").dispatchEvent(event);
};
const picture = async () => (await fetch("/picture.jpg")).blob();
const status = () => document.getElementById("status").textContent;
const act = async () => { SCRIPT };
act().catch((error) => { window.broken = String(error); }).then((seen) => {
  const out = document.createElement("pre");
  out.id = "seen";
  out.textContent = JSON.stringify({ seen, broken: window.broken ?? null });
  document.body.append(out);
});
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory, tiny_shards):
    """An untrained model whose head is sure of boxes: its bias is raised."""
    model = untrained(tmp_path_factory.mktemp("models") / HOSTILE[:4], tasks=TASKS, data=str(tiny_shards))
    for name, parameter in model.model.heads["dec"].named_parameters():
        if name.endswith("bias") and parameter.shape[0] == len(TASKS[1].class_names):
            parameter.data.fill_(1.0)
    with served(model) as found:
        yield found


def act(server, folder, script, *flags):
    """Run `script`, the body of an async function, in the page and return what it returns."""
    address, running = server
    page = (HERE / "page.html").read_text().replace("</body>", '<script src="/act.js"></script></body>')
    texts = {"/acted": (page, "text/html"), "/act.js": (ACT.replace("SCRIPT", script), "text/javascript")}
    texts["/picture.jpg"] = (PICTURE, "image/jpeg")
    app = running.config.app
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", "") not in texts]
    for path, (content, kind) in texts.items():
        app.add_route(path, partial(_answer, content, kind))
    return seen_in(f"{address}/acted", folder, *FLAGS, *flags)["seen"]


async def _answer(content, kind, request):
    return Response(content, media_type=kind)


def test_a_dropped_picture_shows_bars_boxes_and_a_legend_that_can_be_faded(server, tmp_path):
    seen = act(server, tmp_path, """
      await until(() => all("#tasks input").length === 3);
      await drop("street <b>.jpg", await picture());
      await until(() => all("figure").length === 3);
      const of = (task) => document.querySelector(`figure[data-task="${task}"]`);
      const range = of("seg").querySelector("input[type=range]"), over = of("seg").querySelector(".over");
      range.value = 25;
      range.dispatchEvent(new Event("input"));
      await until(() => all("figure img").every((img) => img.naturalWidth));
      return {
        status: status(), bold: all("#status b, td img, span img, .legend img").length,
        bars: [...of("cls").querySelectorAll(".guess .name")].map((e) => e.textContent),
        widths: [...of("cls").querySelectorAll(".guess i")].map((e) => parseFloat(e.style.width)),
        found: of("dec").querySelector(".verdict").textContent,
        rows: of("dec").querySelectorAll("tbody tr").length,
        heads: [...of("dec").querySelectorAll("thead th")].map((e) => e.textContent),
        legend: [...of("seg").querySelectorAll(".legend span")].map((e) => e.textContent),
        colours: [...of("seg").querySelectorAll(".legend i")].map((e) => getComputedStyle(e).backgroundColor),
        opacity: getComputedStyle(over).opacity, save: of("seg").querySelector("a").download,
        sizes: all("figure .layers img").map((img) => [img.naturalWidth, img.naturalHeight]),
        shown: all("figure .layers").map((layers) => layers.clientHeight / layers.clientWidth),
      };
    """)  # fmt: skip
    assert seen["status"].startswith("street <b>.jpg: 96 × 96 pixels") and seen["bold"] == 0
    assert len(seen["bars"]) == 3 and set(seen["bars"]) <= set(TASKS[0].class_names)
    assert seen["widths"] == sorted(seen["widths"], reverse=True) and 0 < sum(seen["widths"]) < 100.01
    assert int(seen["found"].split()[0]) > 0 and seen["rows"] >= int(seen["found"].split()[0])
    assert seen["heads"] == ["class", "class_id", "score", "box_xyxy"]
    assert seen["legend"] and set(seen["legend"]) <= set(TASKS[2].class_names)
    assert all(colour.startswith("rgb(") for colour in seen["colours"])
    assert seen["opacity"] == "0.25" and seen["save"] == "seg.mask.png"
    assert len({tuple(size) for size in seen["sizes"]}) == 1
    assert seen["shown"] == pytest.approx([1.0] * 3, abs=0.02)  # as square as the picture


def test_a_sample_and_fewer_tasks(server, tmp_path):
    seen = act(server, tmp_path, """
      await until(() => all(".strip button").length === 6);
      document.querySelector(".strip button").click();
      await until(() => all("figure").length === 3);
      all("#tasks input")[1].click();
      await until(() => all("figure").length === 2);
      const shown = all("figure").map((figure) => figure.dataset.task);
      all("#tasks input")[0].click();
      all("#tasks input")[2].click();
      await until(() => status().startsWith("Choose"));
      return { shown, wrong: document.getElementById("status").className, title: document.title };
    """)  # fmt: skip
    assert seen["shown"] == ["cls", "seg"] and seen["wrong"] == "wrong" and seen["title"].startswith("<img")


def test_what_is_no_picture_is_told_and_the_next_one_works(server, tmp_path):
    seen = act(server, tmp_path, """
      await until(() => all("#tasks input").length === 3);
      await drop("notes.txt", "no picture");
      await until(() => status().includes("not a picture"));
      const told = status(), shown = all("figure").length;
      await drop("a.jpg", await picture());
      await until(() => all("figure").length === 3);
      return { told, shown };
    """)  # fmt: skip
    assert "notes.txt: not a picture that can be read; send a picture" in seen["told"] and seen["shown"] == 0


@pytest.mark.parametrize("width", [360, 1300])
def test_nothing_is_wider_than_the_window(server, tmp_path, width):
    seen = act(server, tmp_path, f"""
      if (self !== top) return null;
      const frame = document.createElement("iframe");
      frame.style.width = "{width}px";
      frame.src = "/";
      document.body.append(frame);
      const inside = () => frame.contentDocument;
      await until(() => inside()?.querySelectorAll(".strip button").length === 6);
      inside().querySelector(".strip button").click();
      await until(() => inside().querySelectorAll("figure").length === 3);
      const right = [...inside().querySelectorAll("main *")].filter((e) => !e.closest(".values, pre"))
        .map((e) => e.getBoundingClientRect().right);
      return [inside().documentElement.scrollWidth, Math.max(...right)];
    """)  # fmt: skip
    assert seen[0] <= width and seen[1] <= width


def test_the_page_follows_the_systems_dark_theme(server, tmp_path):
    script = "await until(() => all('.strip button').length);"
    script += "return getComputedStyle(document.body).backgroundColor;"
    light = act(server, tmp_path, script)
    dark = act(server, tmp_path, script, "--blink-settings=preferredColorScheme=0")
    assert light == "rgb(246, 247, 249)" and dark == "rgb(15, 18, 24)"
