"""Predict all that a user names into a folder: what `launchers/predict.py` does."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.progress import Progress

from ufo_large.data.progress import progress_bar
from ufo_large.kinds import kind_of
from ufo_large.serving.one_size import Size
from ufo_large.serving.output_folder import OutputFolder
from ufo_large.serving.pictures import Named
from ufo_large.serving.predictor import UFO
from ufo_large.serving.result import Result
from ufo_large.serving.sources import Found, is_stream, is_video, list_sources
from ufo_large.serving.video import predict_video


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """How many pictures and frames were predicted now, what was there already, and what was left out."""

    pictures: int
    frames: int
    there: int
    turned: int
    left_out: tuple[Result, ...]


def predict_paths(
    model: UFO,
    paths: Sequence[str],
    out: Path,
    tasks: Sequence[str] | None = None,
    size: Size | None = None,
) -> Summary:
    """Predict pictures, folders, lists and videos into `out`; what it has already is not done again.

    `size`: see `UFO.stream`. What cannot be read is left out and listed. Raises ValueError for paths that are
    not there, and an `out` that lies in the model's folder or holds something else.
    """
    sources = _outside(out, list_sources(paths))
    if out.resolve().is_relative_to(model.folder.resolve()):
        raise ValueError(f"--out {out} lies in {model.folder}, which is only read; give another --out")
    chosen = model.choose(tasks, size)
    about = {**model.identity, "tasks": list(chosen)} | ({} if size is None else {"size": list(size)})
    about |= {"settings": list(model.settings)} if model.settings else {}
    predict = partial(model.stream, tasks=tasks, size=size)
    in_coco = [name for name, info in chosen.items() if kind_of(info).in_coco]
    folder = OutputFolder(out, about, in_coco, sources)
    videos = [one for one in sources if is_video(one.path)]
    pictures = [one for one in sources if not is_video(one.path)]
    new_pictures = [one for one in pictures if one.name not in folder.done]
    new_videos = [one for one in videos if not folder.has_video[one.name]]
    left_out: list[Result] = []
    predicted = turned = frames = 0
    with progress_bar() as bar:
        for result in _streamed(predict, new_pictures, folder.next_number, bar):
            if result.error:
                left_out.append(result)
            else:
                folder.add(result)
                predicted += 1
                turned += result.picture.turned
        for one in new_videos:
            try:
                done, error = predict_video(
                    predict, one.path, folder.video(one.name), _frames_shown(bar, one)
                )
                folder.mark(one.name)
                frames += done
                if error:
                    left_out.append(Result(file_name=one.name, error=error))
            except ValueError as error:
                left_out.append(Result(file_name=one.name, error=str(error)))
    folder.finish(left_out)
    return Summary(
        pictures=predicted,
        frames=frames,
        there=len(sources) - len(new_pictures) - len(new_videos),
        turned=turned,
        left_out=tuple(left_out),
    )


def _outside(out: Path, sources: list[Found]) -> list[Found]:
    """Leave out what lies in `out`, results of an earlier time."""
    inside = os.path.join(os.path.abspath(out), "")
    kept = [s for s in sources if is_stream(s.path) or not os.path.abspath(s.path).startswith(inside)]
    return kept or sources


def _streamed(
    predict: Callable[..., Iterator[Result]], pictures: Sequence[Found], first: int, bar: Progress
) -> Iterator[Result]:
    if not pictures:
        return
    line = bar.add_task("pictures", total=len(pictures))
    given = (Named(source=one.path, name=one.name, number=n) for n, one in enumerate(pictures, first))
    for result in predict(given):
        yield result
        bar.advance(line)


def _frames_shown(bar: Progress, video: Found) -> Callable[[int, int], None]:
    line = bar.add_task(video.name, total=None)
    return lambda done, count: bar.update(line, completed=done, total=count or None)
