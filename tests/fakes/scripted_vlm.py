"""A server that speaks OpenAI's chat completions and answers from a script: a model that tests can direct."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One request as the server saw it."""

    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def text(self) -> str:
        """The user's text."""
        return str(self.body["messages"][-1]["content"][-1]["text"])

    @property
    def task(self) -> str:
        """The last line, by which a small model tells what is wanted."""
        return self.text.splitlines()[-1]

    @property
    def images(self) -> list[str]:
        return [
            part["image_url"]["url"] for part in self.body["messages"][-1]["content"] if part["type"] == "image_url"
        ]

    @property
    def n(self) -> int:
        return int(self.body.get("n", 1))


@dataclass(frozen=True)
class Status:
    """Answer with an HTTP status, body and headers instead; byte by byte, with pauses, if they are given."""

    code: int
    body: Any = field(
        default_factory=lambda: {"error": {"message": "scripted", "type": "t", "param": None, "code": None}}
    )
    headers: dict[str, str] = field(default_factory=dict)
    pause_s: float = 0.0


Script = Callable[[Asked], "list[str] | Status"]


class ScriptedVlm:
    """What the server was asked, in order, and where it is."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.asked: list[Asked] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                asked = Asked(body, {name.lower(): value for name, value in self.headers.items()})
                fake.asked.append(asked)
                reply = fake._script(asked)
                with suppress(ConnectionError):  # whoever asked did not wait
                    self._send(reply if isinstance(reply, Status) else Status(200, completion(filled(reply, asked.n))))

            def _send(self, reply: Status) -> None:
                data = reply.body.encode() if isinstance(reply.body, str) else json.dumps(reply.body).encode()
                kind = "text/html" if isinstance(reply.body, str) else "application/json"
                self.send_response(reply.code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if not reply.pause_s:
                    self.wfile.write(data)
                    return
                for byte in data:
                    self.wfile.write(bytes([byte]))
                    time.sleep(reply.pause_s)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        return Handler

    @contextmanager
    def running(self) -> Iterator["ScriptedVlm"]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def filled(answers: list[str], n: int) -> list[str]:
    """As many answers as were asked for: what the script has, again and again."""
    return [answers[index % len(answers)] for index in range(max(n, len(answers)))]


def completion(answers: list[str]) -> dict[str, Any]:
    return {
        "id": "scripted",
        "object": "chat.completion",
        "created": 0,
        "model": "scripted",
        "choices": [
            {"index": index, "finish_reason": "stop", "message": {"role": "assistant", "content": answer}}
            for index, answer in enumerate(answers)
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10 * len(answers), "total_tokens": 0},
    }


@contextmanager
def scripted(script: Script) -> Iterator[ScriptedVlm]:
    with ScriptedVlm(script).running() as server:
        yield server
