"""A local server that answers wandb as its own would, or hangs, or fails: for tests of runs that lose it."""

import gzip
import http.server
import json
import threading
from typing import Any, Literal

Mood = Literal["answers", "hangs", "fails"]


class WandbServer(http.server.ThreadingHTTPServer):
    """Answers while its `mood` says so; keeps what clients have sent, history as one dict per logged step."""

    daemon_threads = True

    def __init__(self, mood: Mood = "answers"):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.mood = mood
        self.requests: list[str] = []
        self.runs: list[dict[str, Any]] = []
        self.history: list[dict[str, Any]] = []
        self.closing = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> "WandbServer":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()

    def answer(self, path: str, body: bytes) -> Any:
        if path.endswith("/file_stream"):
            for name, lines in json.loads(body).get("files", {}).items():
                if name == "wandb-history.jsonl":
                    self.history += map(json.loads, lines["content"])
            return {}
        if path != "/graphql":
            return {}
        asked = json.loads(body)
        return {"data": self._data(asked["query"], asked.get("variables") or {})}

    def _data(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        entity = {"id": "e", "name": "tests"}
        if "RunResumeStatus" in query:
            return {"model": {"id": "p", "name": given["project"], "entity": entity, "bucket": None}}
        if "upsertBucket" in query:
            self.runs.append(given)
            project = {"id": "p", "name": given["project"], "entity": entity}
            run = {"id": "r", "name": given["name"], "displayName": given["displayName"], "project": project}
            return {"upsertBucket": {"bucket": run, "inserted": True}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.address}/upload"} for name in given["files"]]
            return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}
        return {}


class _Handler(http.server.BaseHTTPRequestHandler):
    server: WandbServer

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.requests.append(self.path)
        if self.server.mood == "hangs":
            self.server.closing.wait()
            return
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        fails = self.server.mood == "fails"
        content = b"" if fails else json.dumps(self.server.answer(self.path, body)).encode()
        self.send_response(500 if fails else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = _answer

    def log_message(self, *_: Any) -> None:
        """Say nothing in the output of the tests."""
