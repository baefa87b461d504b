"""What strangers write is read in a few modules, which limit it: the syntax tree shows no other place."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2] / "ufo_large"
READERS = {
    "json.load": (),
    "json.loads": ("config/json_files.py",),
    "torch.load": ("distributed/plain_files.py", "models/dense_values.py"),
    "numpy.load": ("data/shard_index.py",),
    "numpy.fromfile": (),
    "numpy.loadtxt": (),
    "zipfile.ZipFile": ("data/shard_index.py",),
    "PIL.Image.open": ("media/opening.py",),
    "cv2.imread": (),
    "cv2.imdecode": ("media/decode.py",),
    "simplejpeg.decode_jpeg": ("media/decode.py", "media/pictures.py"),
    "yaml.safe_load": ("data/datasets/yolo_yaml.py",),
    "yaml.load": (),
    "yaml.unsafe_load": (),
    "yaml.full_load": (),
    "pickle.load": (),
    "pickle.loads": (),
    "pickle.Unpickler": (),
    "safetensors.safe_open": ("models/dense_values.py",),
    "safetensors.torch.load_file": ("distributed/checkpoint.py",),
    "xml.etree.ElementTree.parse": ("data/datasets/voc.py",),
    "eval": (),
    "exec": (),
}


def imported_names(tree: ast.AST) -> dict[str, str]:
    """Return what each name of a module means, in full."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def used_names(text: str):
    """Yield (full name, line) of every name that is used, called or not."""
    tree = ast.parse(text)
    known = imported_names(tree)
    for node in ast.walk(tree):
        parts, inner = [], node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            yield ".".join([known.get(inner.id, inner.id), *reversed(parts)]), inner.lineno


def test_the_walk_sees_aliases():
    text = (
        "import numpy as np\nfrom json import loads as read\nimport torch.hub\nnp.load\nread\ntorch.load(1)"
    )
    names = {name for name, _ in used_names(text)}
    assert {"numpy.load", "json.loads", "torch.load"} <= names


def test_only_the_named_modules_read_what_strangers_write():
    wrong, used = [], set()
    for path in sorted(ROOT.rglob("*.py")):
        place = path.relative_to(ROOT).as_posix()
        if place.startswith("testing/"):
            continue
        for name, line in used_names(path.read_text(encoding="utf-8")):
            if name in READERS:
                used.add((name, place))
                if place not in READERS[name]:
                    wrong.append(f"{place}:{line}: {name}")
    assert not wrong, "read through config.read_json, media.opening or plain_files:\n" + "\n".join(wrong)
    stale = [
        (name, place) for name, places in READERS.items() for place in places if (name, place) not in used
    ]
    assert not stale, "no longer there; shorten the list"
