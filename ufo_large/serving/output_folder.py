"""A folder of predictions that grows picture by picture and goes on where it was left.

    predictions.jsonl        one line per picture, with class names
    overlays/<picture>.jpg   everything drawn
    files/<task>/<picture>.* masks and depth maps: PNGs of the picture's size
    coco_<task>.json         all boxes or masks of a task, as COCO's results
    videos/<video>.jsonl     one line per frame; the frames drawn in .mp4 beside it
    left_out.jsonl           what could not be read, and why
    sources.jsonl            where each picture and video lay, its size and its time
    model.json               which weights, which tasks

A picture's line is written after its files: what has a line is whole. A line that a crash cut off is dropped,
and so is that of a picture that has changed since.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ufo_large.config import LARGE_BYTES, read_json, require_writable, write_json
from ufo_large.serving.json_lines import append_lines, read_lines, write_lines
from ufo_large.serving.result import Result
from ufo_large.serving.sources import Found, is_stream, is_video

LINES, ABOUT, LEFT_OUT, SOURCES = "predictions.jsonl", "model.json", "left_out.jsonl", "sources.jsonl"
OVERLAYS, FILES, VIDEOS = "overlays", "files", "videos"
OTHER = "give another --out, or remove this folder"


class OutputFolder:
    """`done`: names of pictures that are there; `next_number`: the first image id that none has.

    `has_video`: by the name of each video among the sources, whether its results are there.
    """

    def __init__(
        self, root: Path, about: dict[str, Any], coco_tasks: Sequence[str], sources: Sequence[Found] = ()
    ):
        """Open the folder, or make it, for the results of `sources`.

        ValueError where it holds anything but predictions of this model, those of another file that has the
        name of one of `sources`, or of a stream, which goes on. Nothing is changed then.
        """
        require_writable(root, "--out")
        self.root = root
        self._marks = {entry["name"]: entry for entry in read_lines(root / SOURCES)}
        self._new_marks = {one.name: {"name": one.name, **one.mark} for one in sources}
        if (root / ABOUT).exists():
            if read_json(root / ABOUT, OTHER) != about:
                raise ValueError(
                    f"{root}: holds predictions of other weights, tasks or settings ({ABOUT}); {OTHER}"
                )
        elif root.exists() and any(root.iterdir()):
            raise ValueError(f"{root}: holds other files; {OTHER}")
        lines = [line for line in read_lines(root / LINES) if self._is_as_before(line["file_name"])]
        self.has_video = {one.name: self._has_video(one) for one in sources if is_video(one.path)}
        root.mkdir(parents=True, exist_ok=True)
        write_json(root / ABOUT, about)
        if self._marks:
            write_lines(root / SOURCES, self._marks.values())  # without a line cut off, which would stay
        write_lines(root / LINES, lines)
        self.done = {line["file_name"] for line in lines}
        self.next_number = max((line["image_id"] for line in lines), default=0) + 1
        self._coco_tasks = tuple(coco_tasks)
        for task in self._coco_tasks:
            self._begin_coco(task)

    def add(self, result: Result) -> None:
        """Write everything about a picture; its line last."""
        name = result.file_name
        result.save(_made(self.root / OVERLAYS / f"{name}.jpg"))
        for task, (ending, data) in result.files_by_task().items():
            _made(self.root / FILES / task / f"{name}.{ending}").write_bytes(data)
        for task, entries in result.coco_by_task().items():
            append_lines(self._coco_lines(task), entries)
        self.mark(name)
        append_lines(self.root / LINES, [result.to_dict()])
        self.done.add(name)

    def mark(self, name: str) -> None:
        """Note of which file the results under a name are."""
        if name in self._new_marks:
            append_lines(self.root / SOURCES, [self._new_marks[name]])

    def _is_as_before(self, name: str) -> bool:
        """Whether what is there under a name is of the file that is given now, or none is given."""
        now, before = self._new_marks.get(name), self._marks.get(name)
        if now is None or before is None:
            return True
        is_same = all(now.get(key) == before.get(key) for key in ("bytes", "modified_ns"))
        if now["path"] != before["path"] and not is_same:
            raise ValueError(
                f"{self.root}: {name} there is of {before['path']}, not of {now['path']}; give another --out"
            )
        return is_same

    def video(self, name: str) -> Path:
        """Return the place of a video's results, without their endings."""
        return self.root / VIDEOS / name

    def _has_video(self, one: Found) -> bool:
        if not self.video(one.name).with_name(f"{Path(one.name).name}.jsonl").exists():
            return False
        if is_stream(one.path):
            raise ValueError(f"{self.root}: {one.name} there is of an earlier time; give another --out")
        return self._is_as_before(one.name)

    def finish(self, left_out: Sequence[Result]) -> None:
        """Write COCO's results of all pictures, and the list of those left out."""
        for task in self._coco_tasks:
            write_json(self._coco(task), read_lines(self._coco_lines(task)), allow_nan=False)
            self._coco_lines(task).unlink()
        (self.root / LEFT_OUT).unlink(missing_ok=True)
        if left_out:
            write_lines(self.root / LEFT_OUT, [result.to_dict() for result in left_out])

    def _coco(self, task: str) -> Path:
        return self.root / f"coco_{task}.json"

    def _coco_lines(self, task: str) -> Path:
        return self.root / f"coco_{task}.part.jsonl"

    def _begin_coco(self, task: str) -> None:
        """Take up the entries of the pictures that are done, from the finished file or the unfinished one."""
        whole, lines = self._coco(task), self._coco_lines(task)
        entries = read_json(whole, OTHER, limit=LARGE_BYTES) if whole.exists() else read_lines(lines)
        write_lines(lines, [entry for entry in entries if entry["file_name"] in self.done])
        whole.unlink(missing_ok=True)


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
