"""What the server answers: predictions, what the model is, and pictures to try."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import Form, HTTPException, Request, UploadFile
from fastapi.responses import JSONResponse, Response

from ufo_large.media.opening import FORMATS, stated_size
from ufo_large.serving.joining import Asked, Joiner, predict_asked
from ufo_large.serving.limits import Limits
from ufo_large.serving.model_card import preprocessing_of
from ufo_large.serving.predictor import UFO
from ufo_large.serving.result import Result
from ufo_large.serving.samples import Sample
from ufo_large.serving.shown import drawn_of, files_of

LONGEST_NAME, LONGEST_TASKS = 255, 2000
WRITERS = 2
"""Threads that decode, draw and encode answers; each may hold a picture of `max_pixels`."""
GONE = 499  # nobody reads it

Tasks = Annotated[list[str], Form(description="names of tasks, also as `cls,seg`; none: all")]
Extra = Annotated[
    list[Literal["files", "drawn"]],
    Form(description="files: masks and depth maps as base64; drawn: pictures as data URLs"),
]


class Service:
    """The forward happens on the joiner's thread, drawing and encoding on `WRITERS` others."""

    def __init__(self, model: UFO, limits: Limits, samples: Sequence[Sample]):
        self.model, self._limits, self._samples = model, limits, samples
        self._joiner = Joiner(partial(predict_asked, model), limits)
        self._writers = ThreadPoolExecutor(WRITERS, "answers")

    def close(self) -> None:
        self._joiner.close()
        self._writers.shutdown()

    async def predict(
        self, request: Request, file: UploadFile, tasks: Tasks = (), include: Extra = ()
    ) -> dict[str, Any]:
        """Predict one picture. The answer has the form of a line of `launchers/predict.py`.

        Coordinates, masks and depth are in pixels of the picture as it is stored; `exif_turned` says that a
        viewer would turn it.
        """
        chosen = self._chosen(tasks)
        name = _plain_name(file.filename or "")
        data = await file.read()
        await asyncio.to_thread(self._require_few_pixels, data, name)
        result = await _unless_gone(request, self._joiner.ask(Asked(data, name, chosen)))
        if result.error:
            told = f"send a picture in one of the formats {', '.join(FORMATS)}"
            raise HTTPException(422, f"{name}: {result.error}; {told}")
        writing = self._writers.submit(_body_of, result, include)
        return JSONResponse(await asyncio.wrap_future(writing))

    async def describe(self) -> dict[str, Any]:
        """Say what the model was trained for: tasks, kinds, classes with the user's ids, input sizes."""
        prepared = preprocessing_of(self.model.saved)
        tasks = [
            {
                "name": info.name,
                "kind": info.kind,
                "classes": [
                    {"name": n, "id": i} for n, i in zip(info.class_names, info.class_ids, strict=True)
                ],
                "input": prepared[info.name],
            }
            for info in self.model.tasks.values()
        ]
        return {
            "name": self.model.folder.resolve().name,
            "parameters": sum(p.numel() for p in self.model.model.parameters()),
            "tasks": tasks,
            "limits": {"bytes": self._limits.max_bytes, "pixels": self._limits.max_pixels},
        }

    async def health(self) -> JSONResponse:
        """Say whether predictions are possible: status 200, else 500."""
        if self._joiner.is_alive:
            return JSONResponse({"status": "ok", "waiting": self._joiner.waiting})
        raise HTTPException(500, "the thread that predicts has ended; start the server again")

    async def list_samples(self) -> list[dict[str, str]]:
        """List pictures of the run's own data to try, if it still lies on this machine."""
        return [{"name": sample.name, "task": sample.task} for sample in self._samples]

    async def sample(self, number: int) -> Response:
        """Return a sample picture by its 0-based place in the list."""
        if not 0 <= number < len(self._samples):
            raise HTTPException(404, f"sample {number}: there are {len(self._samples)}, counted from 0")
        return Response(self._samples[number].data, media_type=self._samples[number].media_type)

    def _chosen(self, tasks: Sequence[str]) -> tuple[str, ...]:
        names = [name.strip() for text in tasks for name in text.split(",") if name.strip()]
        if sum(map(len, names)) > LONGEST_TASKS:
            raise HTTPException(422, f"tasks: {len(names)} names; known: {', '.join(self.model.tasks)}")
        try:
            return tuple(self.model.choose(names or None))
        except ValueError as error:
            raise HTTPException(422, str(error)) from None

    def _require_few_pixels(self, data: bytes, name: str) -> None:
        try:
            height, width = stated_size(data)
        except (OSError, ValueError, SyntaxError):
            return  # the reader says what is wrong with it
        if height * width > self._limits.max_pixels:
            told = f"{width} x {height} pixels, more than {self._limits.max_pixels}"
            raise HTTPException(413, f"{name}: {told}; shrink it, or start the server with --max-pixels")


def _body_of(result: Result, include: Sequence[str]) -> dict[str, Any]:
    body = result.to_dict()
    body |= {"files": files_of(result)} if "files" in include else {}
    return body | ({"drawn": drawn_of(result)} if "drawn" in include else {})


async def _unless_gone(request: Request, answer: Future[Result]) -> Result:
    """Wait for the answer; a client that hangs up before it begins gives up its place in the line."""
    waiting, gone = asyncio.wrap_future(answer), asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait((waiting, gone), return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return waiting.result()
        raise HTTPException(GONE, "the client hung up")
    finally:
        gone.cancel()
        waiting.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _plain_name(name: str) -> str:
    """Return the file's name as text that JSON in UTF-8 can hold, without folders; it names nothing here."""
    last = name.replace("\\", "/").rpartition("/")[2][-LONGEST_NAME:]
    return last.encode("utf-8", "replace").decode("utf-8") or "picture"
