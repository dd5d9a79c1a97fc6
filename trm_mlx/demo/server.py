"""A page for this machine alone: files, and what they ask for, over HTTP on 127.0.0.1.

Every answer carries a strict Content-Security-Policy. Another site cannot reach the server: the
Host header must be this machine's name, which defeats DNS rebinding, and a POST must come from the
page itself. Whatever is refused is answered with a 4xx or 503 and one sentence.
"""

import json
import queue
import select
import socket
from collections.abc import Callable
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from importlib import resources
from socketserver import ThreadingTCPServer

from trm_mlx.demo import requests, solving
from trm_mlx.demo.entry import read_board
from trm_mlx.demo.shelf import Shelf
from trm_mlx.demo.work import Event, Full, Job, Line
from trm_mlx.errors import InputError
from trm_mlx.solve.search import SELECTORS, THOROUGH

ADDRESS = "127.0.0.1"
ROOM = 4  # jobs that may wait
PATIENCE = 10  # seconds that a client may take to send its request, or to read an answer
DRAIN = 1024 * 1024  # bytes of a body too large, still read so that the client reads the answer
FILES = {
    "/": ("trm_mlx.demo", "page/index.html", "text/html"),
    "/app.js": ("trm_mlx.demo", "page/app.js", "text/javascript"),
    "/style.css": ("trm_mlx.demo", "page/style.css", "text/css"),
    "/icon.svg": ("trm_mlx.demo", "page/icon.svg", "image/svg+xml"),
    "/board.js": ("trm_mlx.view", "board.js", "text/javascript"),
    "/board.css": ("trm_mlx.view", "board.css", "text/css"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Refused(Exception):
    """A status and a sentence instead of an answer."""

    def __init__(self, status: HTTPStatus, sentence: str):
        super().__init__(status, sentence)
        self.status, self.sentence = status, sentence


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

    def __init__(self, shelf: Shelf, port: int = 0, room: int = ROOM):
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


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    timeout = PATIENCE
    server_version, sys_version = "trm", ""

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, TimeoutError):
            self.close_connection = True  # the client is gone

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class refuses, in our words."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            code = HTTPStatus.METHOD_NOT_ALLOWED
        status = HTTPStatus(code)
        self._refuse(Refused(status, f"{message or status.phrase}; open {self.server.url}"))

    def _dispatch(self) -> None:
        try:
            self._check_sender()
            path = self.path.partition("?")[0]
            methods = {"GET": _GET, "POST": _POST}
            allowed = [method for method, routes in methods.items() if path in routes]
            if not allowed:
                raise Refused(HTTPStatus.NOT_FOUND, f"nothing is here; open {self.server.url}")
            if self.command not in allowed:
                raise Refused(
                    HTTPStatus.METHOD_NOT_ALLOWED,
                    f"{self.command} is not answered here; use {allowed[0]}",
                )
            methods[self.command][path](self)
        except InputError as error:
            self._refuse(Refused(HTTPStatus.BAD_REQUEST, str(error)))
        except Refused as refused:
            self._refuse(refused)
        except Full:
            sentence = "other puzzles are waiting already; try again when one is solved"
            self._refuse(Refused(HTTPStatus.SERVICE_UNAVAILABLE, sentence))

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _dispatch

    # What is asked for

    def _check_sender(self) -> None:
        host = self.headers.get("Host", "")
        if host not in self.server.hosts:
            raise Refused(HTTPStatus.FORBIDDEN, f"this is not {host[:60]}; open {self.server.url}")
        if self.command == "GET":
            return
        origin = self.headers.get("Origin")
        origins = {f"http://{host}" for host in self.server.hosts}
        site = self.headers.get("Sec-Fetch-Site", "same-origin")
        if (origin is not None and origin not in origins) or site != "same-origin":
            raise Refused(HTTPStatus.FORBIDDEN, "only the page itself may ask for this")

    def _body(self) -> bytes:
        """The body of a POST."""
        if self.headers.get_content_type() != "application/json":
            self._drain()
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
        length = self.headers.get("Content-Length", "")
        if not length:
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "say the Content-Length of the body")
        if not (length.isascii() and length.isdigit()):
            raise Refused(HTTPStatus.BAD_REQUEST, "the Content-Length is not a number")
        if len(length) > 9 or int(length) > requests.BODY:
            self._drain()
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"send at most {requests.BODY} bytes"
            )
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise Refused(HTTPStatus.BAD_REQUEST, "the body is shorter than its Content-Length")
        return body

    def _models(self) -> None:
        self._answer(
            {
                "models": [offer.described() for offer in self.server.shelf.offers.values()],
                "defaults": {**asdict(THOROUGH), "halt_threshold": 0.5},
                "selectors": {name: selector.meaning for name, selector in SELECTORS.items()},
                "limits": {
                    "trajectories": requests.TRAJECTORIES,
                    "max_steps": requests.STEPS,
                    "evaluations": requests.EVALUATIONS,
                },
            }
        )

    def _entry(self) -> None:
        request = requests.read_entry(self._body())
        offer = self.server.shelf.offer(request.model)
        self._answer(read_board(offer.task, offer.look, request.text)._asdict())

    def _generate(self) -> None:
        offer = self.server.shelf.offer(requests.read_generate(self._body()).model)
        job = Job(lambda tell: solving.generate(offer, tell))
        self.server.line.join(job)
        try:
            event = self._next(job)
        finally:
            self.server.line.leave(job)
        if event["kind"] == "error":
            raise InputError(event["sentence"])
        self._answer({"text": event["text"]})

    def _solve(self) -> None:
        request = requests.read_solve(self._body())
        shelf = self.server.shelf
        offer = shelf.offer(request.model)
        requests.check_cost(request.search, request.max_steps or offer.config.halt_max_steps)
        question = offer.task.parse(request.text)
        job = Job(lambda tell: solving.solve(shelf, request, question, tell))
        ahead = self.server.line.join(job)
        try:
            self._head(HTTPStatus.OK, "application/x-ndjson")
            self._send_line({"kind": "queued", "ahead": ahead})
            while (event := self._next(job)) is not None:
                self._send_line(event)
        finally:
            self.server.line.leave(job)

    def _file(self) -> None:
        package, name, kind = FILES[self.path.partition("?")[0]]
        content = resources.files(package).joinpath(name).read_bytes()
        self._head(HTTPStatus.OK, f"{kind}; charset=utf-8", len(content))
        self.wfile.write(content)

    # Answering

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

    def _answer(self, values: dict, status: HTTPStatus = HTTPStatus.OK) -> None:
        content = json.dumps(values).encode()
        self._head(status, "application/json", len(content))
        self.wfile.write(content)

    def _refuse(self, refused: Refused) -> None:
        self._answer({"error": refused.sentence}, refused.status)

    def _head(self, status: HTTPStatus, kind: str, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()

    def _drain(self) -> None:
        """Read what was sent, or the client would see a broken connection and not the answer."""
        left = DRAIN
        self.connection.settimeout(0.2)
        try:
            while left > 0 and (chunk := self.rfile.read1(min(left, 65536))):
                left -= len(chunk)
        except TimeoutError:
            pass
        self.connection.settimeout(PATIENCE)


_GET: dict[str, Callable[[Handler], None]] = {
    **dict.fromkeys(FILES, Handler._file),
    "/models": Handler._models,
}
_POST: dict[str, Callable[[Handler], None]] = {
    "/entry": Handler._entry,
    "/generate": Handler._generate,
    "/solve": Handler._solve,
}
