"""What a person probably meant by a name that is not known."""

import difflib
from collections.abc import Collection, Iterable

MANY = 40
SHOWN = 5
SYNONYMS = {
    "backbone": "trunk",
    "batch": "micro_batch",
    "batch_size": "micro_batch",
    "epochs": "steps",
    "grad_clip": "clip_norm",
    "gradient_accumulation_steps": "micro_batches",
    "imgsz": "image_size",
    "init": "pretrained",
    "input_size": "image_size",
    "num_workers": "workers",
    "size": "image_size",
    "weights": "pretrained",
}
"""Other libraries' names of our fields."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'? Known: ..." for an unknown `name`, ready to end an error message.

    Of many known names only the nearest are listed.
    """
    known = sorted(known)
    near = near_names(name, known)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    if len(known) <= MANY:
        return f"{hint} Known: {', '.join(known) if known else '(none)'}."
    nearest = difflib.get_close_matches(name, known, n=SHOWN, cutoff=0.0)
    return f"{hint} Nearest of {len(known)} known: {', '.join(nearest)}."


def near_names(name: str, known: Collection[str]) -> list[str]:
    """Return the known names that `name` may stand for, the best guess first; empty where none is near.

    The name itself, another library's word for it, the initials of its words (`lr`: `learning_rate`), a
    spelling near it, or letters of it in order from its first on (`cls`: `classification`).
    """
    if name in known:
        return [name]
    if SYNONYMS.get(name) in known:
        return [SYNONYMS[name]]
    if initials := [k for k in known if "_" in k and name == "".join(word[:1] for word in k.split("_"))]:
        return initials
    if close := difflib.get_close_matches(name, known, n=SHOWN, cutoff=0.6):
        return close
    return [k for k in known if len(name) > 2 and name[0] == k[:1] and _is_within(name, k)]


def _is_within(letters: str, word: str) -> bool:
    """Whether the letters stand in the word in this order."""
    rest = iter(word)
    return all(letter in rest for letter in letters)
