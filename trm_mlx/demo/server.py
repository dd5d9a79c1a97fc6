"""What the page asks of the server: its files, its models, a puzzle, a solution as it comes.

The server listens on this machine's own address; its threads hand what needs computing to the main
one (``work.py``).
"""

import json
import queue
import select
import socket
from dataclasses import asdict
from http import HTTPStatus
from importlib import resources
from socketserver import ThreadingTCPServer
from typing import ClassVar

from trm_mlx.demo import jobs, schemas
from trm_mlx.demo.board_input import read_board
from trm_mlx.demo.http_handler import Exchange, Refused
from trm_mlx.demo.jobs import Event, Full, Job, Line
from trm_mlx.demo.registry import ModelRegistry
from trm_mlx.errors import InputError
from trm_mlx.solve.search import DEFAULT_SEARCH, SELECTORS

ADDRESS = "127.0.0.1"
ROOM = 4  # jobs that may wait
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
    """Answers on threads of its own; jobs go into ``line``, which the main thread serves.

    Args:
        port: 0 for any free one.

    Raises:
        InputError: the port cannot be had.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 32

    def __init__(self, shelf: ModelRegistry, port: int = 0, room: int = ROOM):
        self.shelf, self.line = shelf, Line(room)
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


class Handler(Exchange):
    """The answers."""

    server: Server

    def _models(self) -> None:
        self.answer(
            {
                "models": [offer.described() for offer in self.server.shelf.offers.values()],
                "defaults": {**asdict(DEFAULT_SEARCH), "halt_threshold": schemas.HALT_ABOVE},
                "selectors": {name: selector.meaning for name, selector in SELECTORS.items()},
                "limits": {
                    "trajectories": schemas.TRAJECTORIES,
                    "max_steps": schemas.STEPS,
                    "evaluations": schemas.EVALUATIONS,
                },
            }
        )

    def _entry(self) -> None:
        request = schemas.read_entry(self.body())
        offer = self.server.shelf.offer(request.model)
        self.answer(read_board(offer.task, offer.look, offer.form, request.text)._asdict())

    def _generate(self) -> None:
        offer = self.server.shelf.offer(schemas.read_generate(self.body()).model)
        job = Job(lambda tell: jobs.generate(offer, tell))
        self._join(job)
        try:
            event = self._next(job)
        finally:
            self.server.line.leave(job)
        if event["kind"] == "error":
            raise InputError(event["sentence"])
        self.answer({"text": event["text"]})

    def _solve(self) -> None:
        request = schemas.read_solve(self.body())
        shelf = self.server.shelf
        offer = shelf.offer(request.model)
        schemas.check_cost(request.search, request.max_steps or offer.config.halt_max_steps)
        question = offer.task.parse(request.text)
        job = Job(lambda tell: jobs.solve(shelf, request, question, tell))
        ahead = self._join(job)
        try:
            self.head(HTTPStatus.OK, "application/x-ndjson")
            self._send_line({"kind": "queued", "ahead": ahead})
            while (event := self._next(job)) is not None:
                self._send_line(event)
        finally:
            self.server.line.leave(job)

    def _file(self) -> None:
        package, name, kind = FILES[self.place]
        content = resources.files(package).joinpath(name).read_bytes()
        self.head(HTTPStatus.OK, f"{kind}; charset=utf-8", len(content))
        self.wfile.write(content)

    def _join(self, job: Job) -> int:
        try:
            return self.server.line.join(job)
        except Full as full:
            sentence = "other puzzles are waiting already; try again when one is solved"
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, sentence) from full

    def _next(self, job: Job) -> Event | None:
        """The next event of a job; `ConnectionError` as soon as the client has hung up."""
        while True:
            try:
                return job.events.get(timeout=0.1)
            except queue.Empty:
                readable, _, _ = select.select([self.connection], [], [], 0)
                if readable and not self.connection.recv(1, socket.MSG_PEEK):
                    raise ConnectionAbortedError from None

    def _send_line(self, event: Event) -> None:
        self.wfile.write(json.dumps(event).encode() + b"\n")

    routes: ClassVar = {
        "GET": {**dict.fromkeys(FILES, _file), "/models": _models},
        "POST": {"/entry": _entry, "/generate": _generate, "/solve": _solve},
    }
