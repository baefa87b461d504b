"""The code blocks of README and docs, and the commands in them, so that tests can hold them against the code.

A block that cannot run in a test has a line before it: `<!-- only parsed: why -->`.
"""

import argparse
import re
import runpy
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
FENCE = re.compile(
    r"^(?:<!-- only parsed: (?P<why>.+?) -->\n+)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S
)
SUPERVISE = "launchers/supervise.py"
WRAPPERS = ("launchers/restartable.py", SUPERVISE)
STANDS_FOR = {
    "launchers/finetune.sh": "launchers/finetune.py",
    "launchers/train.sh": "launchers/train.py",
    "launchers/test.sh": "eval/run_all.py",
    "launchers/slurm/train.sbatch": "launchers/train.py",
}
"""Scripts that hand their options on to another one."""
GIVEN = {"eval/run_all.py": ["--workdir", "RUN", "--data", "SHARDS"]}
"""What such a script adds itself."""
GROUPS = "tasks|model|balancer|optimizer|schedule|tracking|ema"


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block; `only_parsed` says why it is not run, and is empty for those that are."""

    page: str
    line: int
    language: str
    text: str
    only_parsed: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a block, in words."""

    place: str
    words: tuple[str, ...]

    def script(self) -> tuple[str, list[str]]:
        """Return the script whose parser reads the options, and the options. ValueError for none."""
        files = [word for word in self.words if re.fullmatch(r"[\w/]+\.(?:py|sh|sbatch)", word)]
        inner = [file for file in files if file not in WRAPPERS]
        if not inner:
            raise ValueError(f"{self.place}: no script of this project in {shlex.join(self.words)}")
        rest = list(self.words[self.words.index(inner[0]) + 1 :])
        script = STANDS_FOR.get(inner[0], inner[0])
        return script, (GIVEN.get(script, []) if inner[0].endswith(".sh") else []) + rest


def blocks() -> list[Block]:
    """Return all blocks of all pages, in order."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start("text")) + 1
            name = page.relative_to(ROOT).as_posix()
            found.append(Block(name, line, match["language"], match["text"], match["why"] or ""))
    return found


def lines() -> Iterator[tuple[str, int, str]]:
    """Yield (page, number, line) of all pages."""
    for page in PAGES:
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            yield page.relative_to(ROOT).as_posix(), number, line


def commands_in_text() -> list[Block]:
    """Return the commands that stand in a sentence as blocks of their own, not to be run."""
    starts = r"`((?:python|sh|deepspeed|torchrun|sbatch) [^`]*\b(?:launchers|eval|data_sharding)/\w[^`]*)`"
    return [
        Block(page, number, "", span, "in a sentence")
        for page, number, line in lines()
        for span in re.findall(starts, line)
    ]


def named_files() -> Iterator[tuple[str, str]]:
    """Yield (place, path) of every file of the project that the text names in a folder."""
    for page, number, line in lines():
        for path in re.findall(r"`([a-z_]+/[\w/.-]+\.(?:py|sh|sbatch|md|yaml))`", line):
            yield f"{page}:{number}", path


def commands(block: Block, *, options_in_brackets: bool = True) -> Iterator[Command]:
    """Yield the commands of a shell block; `[...]` is what may be left out, `A|B` a choice."""
    for number, line in enumerate(block.text.splitlines(), block.line):
        line = re.sub(r"\s+#.*", "", line)
        line = re.sub(r"(?<=\s)\[([^]]*)\]", r"\1" if options_in_brackets else "", line).replace("...", "")
        for part in line.split("&&"):
            words = [word.split("|")[0] for word in shlex.split(part)]
            if words and words[0] != ".":
                yield Command(f"{block.page}:{number}", tuple(words))


class Parsed(Exception):
    """The options were accepted; carries the namespace."""


def parse(script: str, options: Sequence[str]) -> argparse.Namespace:
    """Have the script's own parser read the options, and stop there. ValueError with its complaint."""
    read = argparse.ArgumentParser.parse_args

    def read_and_stop(parser: argparse.ArgumentParser, *given, **more):
        raise Parsed(read(parser, *given, **more))

    def complain(parser: argparse.ArgumentParser, message: str):
        raise ValueError(f"{script}: {message}")

    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", read_and_stop),
        mock.patch.object(argparse.ArgumentParser, "error", complain),
    ):
        try:
            start(script, options)
        except Parsed as done:
            return done.args[0]
    raise ValueError(f"{script}: reads no options")


def start(script: str, options: Sequence[str]) -> None:
    """Run a script in this process, as `python script options`. SystemExit where it ends with a code."""
    with mock.patch.object(sys, "argv", [script, *options]):
        runpy.run_path(str(ROOT / script), run_name="__main__")


def assignments() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (place, `a.b=value` ...) of every line of the text that sets fields in pieces of code."""
    for page, number, line in lines():
        if "--plugin" in line:  # its parts are not there without it
            continue
        found: list[str] = []
        for span in re.findall(r"`([^`]+)`", line) or ([line] if line.startswith("--set ") else []):
            found += re.findall(r"--set (\S+)", span) or re.findall(rf"^(?:{GROUPS})\.[\w.]+=\S+$", span)
        if found:
            yield f"{page}:{number}", tuple(found)
