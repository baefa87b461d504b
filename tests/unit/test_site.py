"""The documentation's site builds without a warning, and needs nothing from another server."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site; a warning of mkdocs, of a link or of a docstring's name, fails it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return folder


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text()
    listed = set(re.findall(r"[\w-]+\.md", str(yaml.safe_load(text)["nav"])))
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")}


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_into_the_pages_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text())
    assert links and [link for link in links if not (ROOT / link).exists()] == []


def test_pages_load_nothing_from_other_servers(site):
    pages = {path.name: path.read_text() for path in site.glob("*.html")}
    assert {"index.html", "api.html", "troubleshooting.html"} <= set(pages)
    loaded = (
        r'<(?:script|img|iframe)[^>]*src="https?:|<link[^>]*rel="(?:stylesheet|preconnect)"[^>]*href="https?:'
    )
    assert {name: re.findall(loaded, text) for name, text in pages.items() if re.search(loaded, text)} == {}


def test_measurements_are_part_of_the_site(site):
    assert "gpu_h200_202611.html" in (site / "gradients.html").read_text()
    assert (site / "benchmarks/results/gpu_h200_202611.html").is_file()
    assert (site / "launchers/slurm/train.sbatch").is_file()


def test_docstrings_are_on_the_reference_page(site):
    page = (site / "api.html").read_text()
    wanted = re.findall(r"^::: (\S+)$", (ROOT / "docs/api.md").read_text(), re.M)
    assert len(wanted) > 20
    assert [name for name in wanted if f'id="{name}"' not in page] == []
    assert "never sees a parameter" in page  # of the docstring of Balancer
