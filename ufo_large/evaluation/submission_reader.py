"""Read a submission file in either form found in the wild; list everything that is wrong with it.

The first form is that of `submission`; in the second, of the contest's page, `cls` and `seg` are one dict
each.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ufo_large.config import LARGE_BYTES, Problems, did_you_mean, read_json
from ufo_large.evaluation.ground_truth import GroundTruth
from ufo_large.kinds import kind_of
from ufo_large.kinds.answers import Repeated


def read_submission(file: str | Path, truths: Mapping[str, GroundTruth]) -> dict[str, list[Any]]:
    """Read either form; answers[task][i] is for image i of `truths[task]`.

    Tasks that `truths` does not know are not read. Raises one ValueError that lists every image missing,
    named twice or unknown and every malformed class, box or ring, each with the remedy.
    """
    raw = _load(Path(file))
    problems = Problems(f"submission {file}")
    answers: dict[str, list[Any]] = {}
    for task, truth in truths.items():
        if task in raw:
            tell = lambda message, task=task: problems.add(f"{task}: {message}")
            answers[task] = kind_of(truth.info).answers(raw[task], truth.info, truth.file_names, tell)
        else:
            problems.add(f"no entry {task!r}, which the test set has; add it.{did_you_mean(task, raw)}")
    problems.raise_if_any()
    return answers


def _load(file: Path) -> dict[str, Any]:
    try:
        raw = read_json(file, "write it again", finite=False, pairs=_object, limit=LARGE_BYTES)
    except FileNotFoundError:
        raise ValueError(f"submission {file}: no such file; eval/run_all.py --workdir writes one") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"submission: {error}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"submission {file}: a JSON {type(raw).__name__}; write an object with a key a task")
    if isinstance(raw, Repeated):
        raise ValueError(f"submission {file}: the key(s) {raw.keys_twice} stand twice; keep one of each")
    return raw


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    plain = dict(pairs)
    if len(plain) == len(pairs):
        return plain
    seen: set[str] = set()
    repeated = Repeated(plain)
    repeated.keys_twice = [key for key, _ in pairs if key in seen or seen.add(key)]
    return repeated
