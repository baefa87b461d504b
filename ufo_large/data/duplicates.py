"""Find pictures that occur twice: between splits (a leak) or inside one."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path

import numpy as np

from ufo_large.kinds import kind_of
from ufo_large.media.pictures import FileFacts
from ufo_large.structures import Example, Finding, Findings, SourceTask

# Measured on photographs and synthetic streets: a copy scaled to 3/4 and recompressed differs in at most 12
# of 64 bits and correlates above 0.986; different pictures stay below 0.976.
NEAR_BITS = 14
NEAR_CORRELATION = 0.98
BLOCK = 1024

Facts = Mapping[Path, FileFacts]


def find_duplicates(task: SourceTask, facts: Facts) -> list[Finding]:
    """Return leaks between splits (exact, near), copies inside a split, and copies of different classes."""
    findings, kind = Findings(), kind_of(task.info)
    for first, second in combinations(task.splits, 2):
        _find_leaks(task, first, second, facts, findings)
    for split, examples in task.splits.items():
        report = findings.at(task.info.name, split)
        for group in _groups(examples, facts):
            names = ", ".join(e.file_name for e in group[:4])
            report.add("copy", f"{split}: {len(group)} equal pictures: {names}", group[0].image)
            shown = [kind.classes_of(e.truth, facts) if e.labeled else [] for e in group]
            if all(len(s) == 1 for s in shown) and len({s[0] for s in shown}) > 1:
                pairs = list(zip(group, shown, strict=True))[:4]
                labels = ", ".join(f"{e.file_name} is {task.info.class_names[s[0]]}" for e, s in pairs)
                report.add(
                    "mislabelled", f"{split}: equal pictures of different classes: {labels}", group[0].image
                )
    return findings.items


def leaked_copies(task: SourceTask, facts: Facts) -> set[Path]:
    """Return the pictures of train whose exact bytes also stand in val or test."""
    held_out = {facts[e.image].sha256 for s in ("val", "test") for e in task.splits.get(s, ())}
    return {e.image for e in task.splits.get("train", ()) if facts[e.image].sha256 in held_out}


def _groups(examples: list[Example], facts: Facts) -> list[list[Example]]:
    by_hash: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_hash[facts[example.image].sha256].append(example)
    return [group for group in by_hash.values() if len(group) > 1]


def _find_leaks(task: SourceTask, first: str, second: str, facts: Facts, findings: Findings) -> None:
    report = findings.at(task.info.name, first)
    ours, theirs = task.splits[first], task.splits[second]
    by_hash = {facts[e.image].sha256: e for e in theirs}
    for example in ours:
        copy = by_hash.get(facts[example.image].sha256)
        if copy is not None:
            message = f"{first}/{example.file_name} is the same bytes as {second}/{copy.file_name}"
            report.add("leak", message, example.image)
    for i, j, correlation in near_pairs([facts[e.image] for e in ours], [facts[e.image] for e in theirs]):
        if facts[ours[i].image].sha256 != facts[theirs[j].image].sha256:
            what = f"nearly the same picture (correlation {correlation:.3f}) as"
            message = f"{first}/{ours[i].file_name} is {what} {second}/{theirs[j].file_name}"
            report.add("near leak", message, ours[i].image)


def near_pairs(ours: list[FileFacts], theirs: list[FileFacts]) -> Iterator[tuple[int, int, float]]:
    """Yield (i, j, correlation) of pictures that look alike: first by difference hash, then by thumbnail."""
    if not ours or not theirs:
        return
    our_looks, their_looks = _looks(ours), _looks(theirs)
    our_hashes, their_hashes = (np.array([f.dhash for f in facts], np.uint64) for facts in (ours, theirs))
    for start in range(0, len(ours), BLOCK):
        bits = np.bitwise_count(our_hashes[start : start + BLOCK, None] ^ their_hashes[None])
        for i, j in np.argwhere(bits <= NEAR_BITS):
            correlation = float(our_looks[start + i] @ their_looks[j])
            if correlation >= NEAR_CORRELATION:
                yield start + int(i), int(j), correlation


def _looks(facts: list[FileFacts]) -> np.ndarray:
    """Return thumbnails as unit vectors without their mean, float32 [n, 256]; a flat picture gives zeros."""
    looks = np.stack([np.frombuffer(bytes.fromhex(f.look), np.uint8) for f in facts]).astype(np.float32)
    looks -= looks.mean(axis=1, keepdims=True)
    return looks / np.maximum(np.linalg.norm(looks, axis=1, keepdims=True), 1e-6)
