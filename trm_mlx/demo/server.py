"""The server of the page: its files, its models, puzzles, and solutions step by step.

It listens on this machine's own address. Its threads leave what MLX computes to the main thread
(``jobs.py``).
"""

import errno
import json
import queue
import select
import socket
import time
from dataclasses import asdict
from http import HTTPStatus
from importlib import resources
from socketserver import ThreadingTCPServer
from typing import ClassVar

from trm_mlx.demo import jobs, schemas
from trm_mlx.demo.http_handler import Refusal, RequestHandler
from trm_mlx.demo.jobs import Event, Full, Job, JobQueue
from trm_mlx.demo.registry import ModelRegistry
from trm_mlx.errors import InputError
from trm_mlx.solve.search import DEFAULT_SEARCH, SELECTORS
from trm_mlx.solve.solver import HALT_THRESHOLD
from trm_mlx.tasks import read_puzzle

ADDRESS = "127.0.0.1"
MAX_WAITING = 4  # jobs
NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
PAUSE = 0.2  # seconds without a try to accept a connection where there is no room for one
FILES = {
    "/": ("trm_mlx.demo", "page/index.html", "text/html"),
    **{
        f"/{name}.js": ("trm_mlx.demo", f"page/{name}.js", "text/javascript")
        for name in ("app", "entry", "options", "page", "watch")
    },
    "/style.css": ("trm_mlx.demo", "page/style.css", "text/css"),
    "/icon.svg": ("trm_mlx.demo", "page/icon.svg", "image/svg+xml"),
    "/board.js": ("trm_mlx.view", "board.js", "text/javascript"),
    "/player.js": ("trm_mlx.view", "player.js", "text/javascript"),
    "/board.css": ("trm_mlx.view", "board.css", "text/css"),
}


class Server(ThreadingTCPServer):
    """Answers on threads of its own; the main thread runs ``jobs.serve()``.

    Args:
        port: 0 for any free one.
        max_waiting: jobs that may wait besides the one under way.

    Raises:
        InputError: the port is taken.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 32

    def __init__(self, registry: ModelRegistry, port: int = 0, max_waiting: int = MAX_WAITING):
        self.registry, self.jobs = registry, JobQueue(max_waiting)
        try:
            super().__init__((ADDRESS, port), Handler)
        except OSError as error:
            raise InputError(
                f"cannot listen on port {port}: {error.strerror}; choose another with --port, "
                "0 for any that is free"
            ) from error
        port = self.server_address[1]
        self.hosts = {f"{ADDRESS}:{port}", f"localhost:{port}"}
        self.url = f"http://{ADDRESS}:{port}/"

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in NO_ROOM:  # the connection still waits, and would be tried at once
                time.sleep(PAUSE)
            raise


class Handler(RequestHandler):
    """Answers the requests of the page."""

    server: Server

    def _models(self) -> None:
        self.send_json(
            {
                "models": [entry.to_dict() for entry in self.server.registry.entries.values()],
                "defaults": {**asdict(DEFAULT_SEARCH), "halt_threshold": HALT_THRESHOLD},
                "selectors": {name: selector.meaning for name, selector in SELECTORS.items()},
                "limits": {
                    "trajectories": schemas.TRAJECTORIES,
                    "max_steps": schemas.STEPS,
                    "evaluations": schemas.EVALUATIONS,
                },
            }
        )

    def _entry(self) -> None:
        request = schemas.read_entry(self.read_body())
        entry = self.server.registry.entry(request.model)
        self.send_json(entry.read_board(request.text)._asdict())

    def _generate(self) -> None:
        request = schemas.read_generate(self.read_body())
        entry, level = self.server.registry.entry(request.model), request.level
        if level is not None and level not in entry.task.levels:
            levels = ", ".join(entry.task.levels) or "none"
            raise InputError(f"no level {level!r}; those of {entry.name}: {levels}")
        job = Job(lambda emit: jobs.generate(entry, level, emit))
        self._join(job)
        try:
            event = self._next(job)
        finally:
            self.server.jobs.leave(job)
        if event["kind"] == "error":
            raise InputError(event["sentence"])
        self.send_json({"text": event["text"]})

    def _solve(self) -> None:
        request = schemas.read_solve(self.read_body())
        registry = self.server.registry
        entry = registry.entry(request.model)
        schemas.check_cost(request.search, request.max_steps or entry.config.halt_max_steps)
        question = read_puzzle(request.text, entry.task)
        if question.error is not None:
            raise question.error
        job = Job(lambda emit: jobs.solve(registry, request, question, emit))
        ahead = self._join(job)
        try:
            self.send_head(HTTPStatus.OK, "application/x-ndjson")
            self._send_event({"kind": "queued", "ahead": ahead})
            while (event := self._next(job)) is not None:
                self._send_event(event)
        finally:
            self.server.jobs.leave(job)

    def _file(self) -> None:
        package, name, kind = FILES[self.route]
        content = resources.files(package).joinpath(name).read_bytes()
        self.send_content(f"{kind}; charset=utf-8", content)

    def _join(self, job: Job) -> int:
        try:
            return self.server.jobs.join(job)
        except Full as full:
            sentence = "other puzzles are waiting already; try again when one is solved"
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, sentence) from full

    def _next(self, job: Job) -> Event | None:
        """Return the next event of a job; `ConnectionError` as soon as the client hangs up."""
        while True:
            try:
                return job.events.get(timeout=0.1)
            except queue.Empty:
                readable, _, _ = select.select([self.connection], [], [], 0)
                if readable and not self.connection.recv(1, socket.MSG_PEEK):
                    raise ConnectionAbortedError from None

    def _send_event(self, event: Event) -> None:
        self.wfile.write(json.dumps(event).encode() + b"\n")

    routes: ClassVar = {
        "GET": {**dict.fromkeys(FILES, _file), "/models": _models},
        "POST": {"/entry": _entry, "/generate": _generate, "/solve": _solve},
    }
