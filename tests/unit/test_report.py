"""report.html: complete, self-contained, honest about gaps, and safe with any class name."""

import json
import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from ufo_large.kinds.review import SURE
from ufo_large.testing.simulated_run import SCORES, invented_examples, simulate_run, step_values
from ufo_large.tracking import MetricsLog, read_metrics, save_examples, write_report
from ufo_large.tracking.charts import linear_ticks, log_ticks, short_number
from ufo_large.tracking.curves import MAX_POINTS, curves_of, is_noisy, make_curve, running_mean
from ufo_large.tracking.panels import sections
from ufo_large.tracking.paths import read_paths
from ufo_large.tracking.results import parse_results


class Page(HTMLParser):
    """Collects tags, addresses and texts, and checks that tags close in order."""

    VOID = {"meta", "link", "img", "br", "input", "line", "path", "circle", "rect"}

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.texts, self.open = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.addresses += [v for k, v in attributes if k in ("src", "href", "data", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))


def page_of(workdir):
    path = write_report(workdir)
    assert path == workdir / "report.html"
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def full_page(tmp_path_factory):
    return page_of(simulate_run(tmp_path_factory.mktemp("runs")))


def test_everything_a_person_looks_for_is_there(full_page):
    text = full_page.text
    for wanted in ("91.4 %", "53.2 %", "67.1 %", "70.6 %", "standard", "HOG + ridge", "67.5 points above it"):
        assert wanted in text.replace("\xa0", " "), wanted
    for title in ("Loss of cls", "Loss of dec", "Task weight", "Trunk gradient norm before balancing",
                  "Trunk gradient norm after balancing", "Share of the update", "Conflict rate",
                  "Cosine between task gradients", "Images per second", "Entropy",
                  "Images per second of each task", "Experts taken", "blocks.2.mlp", "MFU of the whole step",
                  "MFU of each task", "Tokens per second", "Where the step's time goes"):  # fmt: skip
        assert title in text, title
    for fact in ("images/s", "tokens/s", "TFLOP/s per rank", "MFU"):
        assert fact in text[: text.index("Loss of cls")], fact
    for wanted in ("optimizer.lr", "0.0003", "vit_tiny_patch16_224", "torch", "cores", "MultitaskModel"):
        assert wanted in text, wanted
    assert sum(tag == "img" for tag, _ in full_page.tags) == 6 + 1  # two examples a task, and the lightbox


def test_nothing_is_loaded_from_outside(full_page):
    for address in full_page.addresses:
        assert address is None or address.startswith(("#", "data:")), address[:80]
    scripts = [a for tag, a in full_page.tags if tag == "script"]
    assert scripts and not any("src" in a for a in scripts)
    assert not any(tag in ("iframe", "object", "embed") for tag, _ in full_page.tags)


def test_names_with_html_in_them_stay_text(full_page):
    assert "van <R&D>" in full_page.text
    assert "<script>alert(1)</script>" in full_page.text
    assert not any(tag == "r&d" for tag, _ in full_page.tags)


def test_figures_of_each_task_are_drawn(full_page):
    for title in ("Confusion matrix", "Most often confused", "Calibration", "Precision and recall",
                  "F1 over confidence", "AP by size", "Expected calibration error", "images"):  # fmt: skip
        assert title in full_page.text, title
    cells = [a["class"] for tag, a in full_page.tags if tag == "rect"]
    assert "hit" in cells and "miss" in cells


def test_figures_from_strangers_stay_text(tmp_path):
    bad = "</script><img src=x onerror=alert(1)>"
    line = {"name": bad, "x": [0, 1], "y": [0, 1], "dashed": False}
    figures = [
        {"type": "plot", "title": bad, "x_name": bad, "y_name": bad, "traces": [line], "note": bad},
        {"type": "bars", "title": bad, "rows": [[bad, 0.5, bad], [bad, None, ""]], "note": bad},
        {"type": "matrix", "title": bad, "names": [bad, "b"], "counts": [[1, 2], [0, 0]], "unit": bad},
        {"type": "pairs", "title": bad, "rows": [[bad, bad, 3, 0.5]], "unit": bad, "note": bad},
    ]
    write_figures(tmp_path, {bad: figures, "none": []})
    page = page_of(tmp_path)
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert sum(tag == "img" for tag, _ in page.tags) == 1  # the lightbox
    assert page.text.count(bad) > 10
    found = [json.loads(text) for text in page.texts if text.startswith("{")]
    assert [one.get("names") for one in found] == [None, [bad, "b"]]


@pytest.mark.parametrize("content", [{}, {"tasks": 3}, {"tasks": {"cls": [{"type": "image"}]}}, [], 7])
def test_damaged_figures_are_named(tmp_path, content):
    (tmp_path / "figures.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"figures\.json: not the figures .*eval/run_all\.py"):
        write_report(tmp_path)


def write_figures(folder, tasks):
    (folder / "figures.json").write_text(json.dumps({"tasks": tasks}))


def test_pictures_stand_under_the_reason_they_are_shown_for(tmp_path):
    run = simulate_run(tmp_path, steps=5)
    examples = invented_examples("cls", np.random.default_rng(0))
    save_examples(run, [examples[0], replace(examples[1], group=SURE)])
    text = page_of(run).text
    assert text.index("Most confidently wrong") < text.index("Evenly spread over the split")


def test_a_picture_that_is_gone_is_said(tmp_path):
    run = simulate_run(tmp_path, steps=5)
    (run / "examples/000_cls.jpg").unlink()
    assert "examples/000_cls.jpg is not there; score the run again" in page_of(run).text
    cards = json.loads((run / "examples/examples.json").read_text())
    cards[0]["group"] = "<b>"
    (run / "examples/examples.json").write_text(json.dumps(cards))
    with pytest.raises(ValueError, match=r"examples\.json.*the group '<b>' is none of"):
        write_report(run)


def test_hover_data_is_json_and_equals_the_log(tmp_path):
    simulate_run(tmp_path, steps=12, tasks=("dec",), scored=False)
    text = write_report(tmp_path).read_text(encoding="utf-8")
    charts = [json.loads(m) for m in re.findall(r'<script type="application/json">(.*?)</script>', text)]
    lines = {line["name"]: line for line in charts[0]["lines"]}
    assert set(lines) == {"total", "box", "class", "centerness"}
    random = np.random.default_rng(0)
    logged = [step_values(s, 12, ("dec",), random, 4)["dec/total"] for s in range(1, 13)]
    assert lines["total"]["x"] == list(range(1, 13))
    # Four significant digits are kept: at most 5e-4 relative.
    np.testing.assert_allclose(lines["total"]["y"], logged, rtol=5e-4)


def test_one_task_alone_has_no_cosines_and_no_conflicts(tmp_path):
    page = page_of(simulate_run(tmp_path, tasks=("seg",)))
    assert "Loss of seg" in page.text and "Cosine" not in page.text and "Conflict" not in page.text
    assert "Balance" not in page.text and "#balance" not in page.addresses


def test_validation_stands_beside_the_loss_on_the_same_steps(tmp_path):
    run = simulate_run(tmp_path, steps=60)
    losses = sections(curves_of(read_metrics(run / "metrics.jsonl")))[0]
    assert [panel.title for panel in losses.panels] == [
        *("Loss of cls", "Top-1 accuracy of cls in validation"),
        *("Loss of dec", "mAP50 of dec in validation"),
        *("Loss of seg", "mIoU of seg in validation"),
    ]
    text = write_report(run).read_text(encoding="utf-8")
    charts = [json.loads(m) for m in re.findall(r'<script type="application/json">(.*?)</script>', text)]
    frames = [c["frame"]["x"][:2] for c in charts if c.get("lines") and c["frame"]["xName"] == "step"]
    assert len(frames) > 6 and all(frame == [1, 60] for frame in frames)


def test_tasks_of_one_kind_have_a_row_each_and_the_mean_says_that_it_is_one():
    tasks = {"dec": {"map50": 0.4}, "lamps": {"map50": 0.8}, "cls": {"top1": 0.9}}
    rows = parse_results({"map50": 0.6, "top1": 0.9, "tasks": tasks}).headline
    assert [(row.label, row.value) for row in rows] == [
        *(("mAP50 of dec", 0.4), ("mAP50 of lamps", 0.8), ("mAP50, mean of 2 tasks", 0.6)),
        ("Top-1 accuracy", 0.9),
    ]


def test_the_experts_that_tokens_took_are_the_mean_of_the_last_tenth():
    key = "routing/cls/path/blocks.3.mlp/own"
    entries = [{"step": step, key: float(step > 18), f"{key}/deeper": 1.0} for step in range(1, 21)]
    paths = read_paths([*entries, {"step": 21, key: math.nan}])
    assert paths.tasks == ("cls",) and paths.rows == (("blocks.3.mlp", ((("own", 1.0),),)),)
    half = read_paths([{"step": 1, key: 0.25, key.replace("own", "shared"): 0.75}])
    assert half.rows[0][1] == ((("own", 0.25), ("shared", 0.75)),)
    assert read_paths([{"step": 1, "routing/cls/own_path": 1.0}]) is None


FILES = ("config.json", "metrics.jsonl", "metrics.json", "figures.json", "environment.json", "examples")


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("name", FILES)
def test_a_run_of_which_parts_are_missing_gives_a_page_that_says_so(tmp_path, name, alone):
    run = simulate_run(tmp_path, steps=3)
    gone = [file for file in FILES if (file != name) == alone]
    for file in gone:
        shutil.rmtree(run / file) if file == "examples" else (run / file).unlink()
    text = page_of(run).text
    told = text[text.index("Not in this folder") :]
    remedies = {
        "config.json": "The command that began the run writes the same one",
        "metrics.jsonl": "for a run that trained elsewhere copy that file here",
        "environment.json": "Training writes it when it starts",
        "examples": "No predictions were saved with this run; eval/run_all.py",
    }
    if "metrics.json" not in gone:
        remedies["figures.json"] = "No figures.json beside the scores"
    elif "examples" in gone:
        remedies["metrics.json"] = "This run has not been scored yet. Score it with python eval/run_all.py"
    for file in gone:
        assert file in told and remedies.get(file, "") in text, file


def test_an_unscored_run_says_how_to_score_it(tmp_path):
    text = page_of(simulate_run(tmp_path, steps=5, scored=False)).text
    assert "not been scored yet" in text and "eval/run_all.py" in text and "No predictions" in text


def test_a_folder_of_something_else_gets_no_page(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="not a run folder .*metrics.jsonl.*give the --workdir"):
        write_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_a_run_without_steps_gives_a_page_and_a_missing_one_an_error(tmp_path):
    MetricsLog(tmp_path / "metrics.jsonl")
    text = page_of(tmp_path).text
    assert "No training step has been logged" in text and "No config.json" in text
    with pytest.raises(ValueError, match="no such folder; give the --workdir"):
        write_report(tmp_path / "nowhere")


def test_training_time_counts_steps_that_were_not_logged(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (10, 20, 25):
        log.log(step, {"cls/total": 1.0, "train/step_seconds": 4.0})
    log.log(25, {"val/score": 0.5})
    log.finish()
    assert "1:40" in page_of(tmp_path).text


def test_values_that_are_not_finite_leave_a_gap_and_are_counted(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in range(1, 11):
        log.log(step, {"cls/total": math.nan if step in (4, 5) else 1.0 / step, "dec/total": math.nan})
    log.finish()
    page = page_of(tmp_path)
    assert "Not finite: total 2x." in page.text and "Not finite: total 10x." in page.text
    path = next(a["d"] for tag, a in page.tags if tag == "path" and a.get("class") == "main")
    assert path.count("M") == 2 and path.count("L") == 6
    assert not any("nan" in str(a).lower() for tag, a in page.tags if tag in ("path", "line", "circle"))


def test_very_long_runs_are_thinned_but_keep_their_spikes():
    pairs = np.stack([np.arange(1, 100_001), np.ones(100_000)], axis=1).astype(float)
    pairs[77_777, 1] = 500.0
    curve = make_curve("cls/total", pairs)
    assert len(curve.values_P) == MAX_POINTS and curve.steps_P[-1] == 100_000
    assert np.nanmax(curve.high_P) == 500.0
    # 200 steps a bin: the mean of the bin with the spike is (199 + 500) / 200.
    assert np.isclose(np.nanmax(curve.values_P), 3.495)


def test_running_mean_is_exact_on_a_line_away_from_the_ends_and_skips_nan():
    line = np.arange(100.0)
    line[50] = np.nan
    smooth = running_mean(line, 2.0)
    np.testing.assert_allclose(smooth[10:40], line[10:40], atol=1e-9)  # measured: 1e-14
    assert np.isnan(smooth[50]) and np.isfinite(np.delete(smooth, 50)).all()


def test_only_noise_is_smoothed():
    steps = np.linspace(0, 1, 300)
    noise = np.random.default_rng(0).standard_normal(300)
    assert not is_noisy(steps**2) and not is_noisy(np.ones(300)) and not is_noisy(noise[:20])
    assert is_noisy(steps + 0.1 * noise)


def test_ticks_are_round_and_inside():
    assert linear_ticks(0, 1) == [0, 0.5, 1.0]
    assert linear_ticks(3, 297, 6) == [50, 100, 150, 200, 250]
    assert log_ticks(-2.1, 2.2) == [0.01, 0.1, 1.0, 10.0, 100.0]
    assert log_ticks(-0.1, 1.0) == [1.0, 2.0, 5.0, 10.0]
    assert [short_number(v) for v in (1234, 0.25, -3e6, math.nan)] == ["1.23k", "0.25", "-3M", "not finite"]


@pytest.mark.parametrize(
    "values", [[5.0, 5.0], [0.0, 0.0], [-3.0, -3.0], [1e-12, 1e12], [7.0], [-1e30, 1e30]]
)
def test_any_range_of_values_can_be_drawn(tmp_path, values):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step, value in enumerate(values, 1):
        log.log(step, {"cls/total": value})
    log.finish()
    page = page_of(tmp_path)
    for tag, attributes in page.tags:
        if tag == "circle":
            assert 0 <= float(attributes["cx"]) <= 400 and 0 <= float(attributes["cy"]) <= 220


def test_every_logged_key_finds_a_panel():
    keys = step_values(1, 10, ("cls", "dec", "seg"), np.random.default_rng(0), 4)
    shown = {key for section in sections(keys) for panel in section.panels for key in panel.keys}
    # A task whose loss has one part shows the total alone; paths have a table.
    assert {k for k in set(keys) - shown if "/path/" not in k} == {"cls/cross_entropy"}


def test_per_class_validation_values_are_not_drawn():
    keys = ["cls/total", "val/cls/top1", "val/cls/top5", *(f"val/cls/top1/car {i}" for i in range(196))]
    panels = {p.title: p.keys for s in sections(keys) for p in s.panels}
    assert panels["Headline metrics"] == ("val/cls/top1",) and panels["Other metrics"] == ("val/cls/top5",)


def test_many_blocks_are_thinned_with_a_note():
    keys = [f"routing/cls/block{b}/load" for b in range(40)]
    (panel,) = sections(keys)[0].panels
    assert len(panel.keys) == 10 and panel.keys[-1].endswith("block39/load")
    assert panel.note == "10 of 40 lines shown." and panel.names[0] == "block 0"


def test_results_with_either_form_of_baselines():
    by_metric = parse_results(SCORES)
    assert [r.key for r in by_metric.headline] == ["top1", "map50", "miou"]
    assert by_metric.headline[0].baselines[0] == ("HOG + ridge", 0.239)
    plain = parse_results({"top1": 0.5, "baselines": {"top1": 0.6}})
    assert plain.headline[0].verdict == "10.0 points below it"
    same = parse_results({"top1": 0.6, "baselines": {"top1": 0.6004}})
    assert same.headline[0].verdict == "as good as it"
    by_name = parse_results({"miou": 0.5, "baselines": {"all_road": {"miou": 0.1, "top1": None}}})
    assert by_name.headline[0].baselines == (("all road", 0.1),)


def test_results_sort_classes_worst_first_and_leave_missing_metrics_out():
    results = parse_results(SCORES | {"map50": None})
    assert [r.key for r in results.headline] == ["top1", "miou"]
    table = next(t for t in results.classes if t.title == "Top-1 accuracy of cls")
    assert [name for name, _ in table.rows] == ["truck", "van <R&D>", "sedan"]
    assert ("cls/top5", 0.97) in results.other


def test_a_broken_metrics_file_is_named(tmp_path):
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match=r"metrics\.json: not JSON .*eval/run_all\.py"):
        write_report(tmp_path)


def test_curves_keep_the_order_of_the_log():
    curves = curves_of([{"step": 1, "b": 1.0}, {"step": 2, "a": 2.0, "b": 3.0}])
    assert list(curves) == ["b", "a"] and curves["b"].last == 3.0 and list(curves["a"].steps_P) == [2]


def test_predictions_of_a_split_without_truth_are_said_to_have_no_scores(tmp_path):
    run = simulate_run(tmp_path, steps=5, scored=False)
    unknown = [replace(e, truth=None) for e in invented_examples("dec", np.random.default_rng(0))]
    save_examples(run, unknown)
    text = page_of(run).text
    assert "the split that was predicted has no ground truth" in text and "white dashes" not in text
    save_examples(run, invented_examples("dec", np.random.default_rng(0)))
    assert "white dashes: truth" in page_of(run).text
