"""The live page in a real browser: a line more in metrics.jsonl, and the page shows it where it was."""

import json
import threading

import numpy as np
import pytest

from ufo_large.testing.browser import NEEDS_CHROMIUM, seen_in
from ufo_large.testing.simulated_run import simulate_run, step_values
from ufo_large.tracking.live_server import LiveServer
from ufo_large.tracking.watching import WatchedRun

pytestmark = NEEDS_CHROMIUM
PROBE = """<script>
  window.onerror = (message) => window.broken = message;
  const wait = () => new Promise((done) => setTimeout(done, 100));
  const until = async (is) => { for (let n = 0; n < 200 && !is(); n++) await wait(); };
  const page = () => frame.contentDocument, scroll = () => page().scrollingElement.scrollTop;
  const told = () => [document, page()].map((d) => d.querySelector("#facts, .facts").textContent);
  (async () => {
    await until(() => frame);
    const first = told(), old = frame;
    page().getElementById("theme").click();
    page().querySelector(".legend button").click();
    page().scrollingElement.scrollTo({ top: 700, behavior: "instant" });
    const top = scroll();
    await fetch("/status?append");
    await until(() => frame !== old);
    const out = document.createElement("pre");
    out.id = "seen";
    out.textContent = JSON.stringify({
      first, then: told(), top, moved: scroll() - top,
      frames: document.querySelectorAll("iframe").length,
      hidden: page().querySelectorAll('.legend button[aria-pressed="false"]').length,
      themes: [page(), document].map((d) => d.documentElement.dataset.theme),
      broken: window.broken ?? null,
    });
    document.body.append(out);
  })();
</script>"""


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr("ufo_large.tracking.watching.PAUSE", 0)
    workdir = simulate_run(tmp_path / "run", steps=40)
    (workdir / "config.json").write_text(json.dumps({"config": {"steps": 80}}))

    def append():
        values = step_values(41, 80, ("cls", "dec", "seg"), np.random.default_rng(0), 4)
        with (workdir / "metrics.jsonl").open("a") as log:
            log.write(json.dumps({"step": 41} | values) + "\n")
        return b""

    with LiveServer(WatchedRun(workdir)) as server:
        server.shell = server.shell.replace(b"</body>", PROBE.encode() + b"</body>")
        server.answers["/status?append"] = ("text/plain", append)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


def test_a_new_line_of_the_log_is_shown_where_the_reader_is(server, tmp_path):
    flags = ("--virtual-time-budget=15000", "--window-size=1000,700")
    seen = seen_in(server.address, tmp_path, *flags)
    assert seen["frames"] == 1
    assert "40 of 80 steps" in seen["first"][0] and "40 steps" in seen["first"][1]
    assert "41 of 80 steps" in seen["then"][0] and "41 steps" in seen["then"][1]
    assert seen["top"] == 700 and abs(seen["moved"]) <= 2 and seen["hidden"] == 1
    assert seen["themes"] == ["dark", "dark"]
