"""HTTP for the page: who may ask, how much is read, and the headers of every answer.

The Host header must be a name of this machine, which defeats DNS rebinding, and a POST must come
from the page itself. A refusal is a 4xx or 503 with one sentence.
"""

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar

from trm_mlx.demo.schemas import MAX_BODY
from trm_mlx.errors import InputError

TIMEOUT = 10  # seconds that a client may take to send its request, or to read an answer
MAX_DRAINED = 1024 * 1024  # bytes of a refused body that are read, so that the client can answer
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Refusal(Exception):
    """A status and a sentence instead of an answer."""

    def __init__(self, status: HTTPStatus, sentence: str):
        super().__init__(status, sentence)
        self.status, self.sentence = status, sentence


class RequestHandler(BaseHTTPRequestHandler):
    """Answers by ``routes``: methods of a subclass, by HTTP method and path.

    Its server has ``hosts``, the values of Host that it answers to, and its own ``url``.
    """

    routes: ClassVar[Mapping[str, Mapping[str, Callable[[Any], None]]]] = {}
    timeout = TIMEOUT
    server_version, sys_version = "trm", ""

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, TimeoutError):
            self.close_connection = True  # the client is gone

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send what the base class refuses in the form of all refusals."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            code = HTTPStatus.METHOD_NOT_ALLOWED
        status = HTTPStatus(code)
        self._send_refusal(status, f"{message or status.phrase}; open {self.server.url}")

    def _dispatch(self) -> None:
        try:
            self._check_sender()
            allowed = [method for method, paths in self.routes.items() if self.route in paths]
            if not allowed:
                raise Refusal(HTTPStatus.NOT_FOUND, f"nothing is here; open {self.server.url}")
            if self.command not in allowed:
                raise Refusal(
                    HTTPStatus.METHOD_NOT_ALLOWED,
                    f"{self.command} is not answered here; use {allowed[0]}",
                )
            self.routes[self.command][self.route](self)
        except InputError as error:
            self._send_refusal(HTTPStatus.BAD_REQUEST, str(error))
        except Refusal as refusal:
            self._send_refusal(refusal.status, refusal.sentence)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _dispatch

    @property
    def route(self) -> str:
        """The path without a query."""
        return self.path.partition("?")[0]

    def _check_sender(self) -> None:
        host = self.headers.get("Host", "")
        if host not in self.server.hosts:
            raise Refusal(HTTPStatus.FORBIDDEN, f"this is not {host}; open {self.server.url}")
        origin = self.headers.get("Origin")
        own = origin is None or origin in {f"http://{host}" for host in self.server.hosts}
        site = self.headers.get("Sec-Fetch-Site", "same-origin")
        if self.command != "GET" and not (own and site == "same-origin"):
            raise Refusal(HTTPStatus.FORBIDDEN, "only the page itself may ask for this")

    def read_body(self) -> bytes:
        """Return the body of a POST.

        Raises:
            Refusal: it is no JSON, too long, or its length is not given.
        """
        if self.headers.get_content_type() != "application/json":
            self._drain()
            raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
        length = self.headers.get("Content-Length", "")
        if not length:
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, "say the Content-Length of the body")
        if not (length.isascii() and length.isdigit()):
            raise Refusal(HTTPStatus.BAD_REQUEST, "the Content-Length is not a number")
        if len(length) > 9 or int(length) > MAX_BODY:
            self._drain()
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"send at most {MAX_BODY} bytes")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise Refusal(HTTPStatus.BAD_REQUEST, "the body is shorter than its Content-Length")
        return body

    def _drain(self) -> None:
        """Read what was sent, or the client would see a broken connection and not the answer."""
        left = MAX_DRAINED
        self.connection.settimeout(0.2)
        try:
            while left > 0 and (chunk := self.rfile.read1(min(left, 65536))):
                left -= len(chunk)
        except TimeoutError:
            pass
        self.connection.settimeout(TIMEOUT)

    def send_head(self, status: HTTPStatus, kind: str, length: int | None = None) -> None:
        """Send status and headers; without a length the content ends with the connection."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()

    def send_content(self, kind: str, content: bytes, status: HTTPStatus = HTTPStatus.OK) -> None:
        """Send a whole answer."""
        self.send_head(status, kind, len(content))
        self.wfile.write(content)

    def send_json(self, values: dict, status: HTTPStatus = HTTPStatus.OK) -> None:
        """Send a whole answer as JSON."""
        self.send_content("application/json", json.dumps(values).encode(), status)

    def _send_refusal(self, status: HTTPStatus, sentence: str) -> None:
        self.send_json({"error": sentence}, status)
