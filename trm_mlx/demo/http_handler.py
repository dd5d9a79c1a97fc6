"""One request and its answer: who may ask, how much is read, and what every answer carries.

The Host header must be this machine's name, which defeats DNS rebinding, and a POST must come from
the page itself. Whatever is refused is answered with a 4xx or 503 and one sentence.
"""

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar

from trm_mlx.demo.schemas import BODY
from trm_mlx.errors import InputError

PATIENCE = 10  # seconds that a client may take to send its request, or to read an answer
DRAIN = 1024 * 1024  # bytes of a body too large, still read so that the client reads the answer
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


class Exchange(BaseHTTPRequestHandler):
    """Answers by ``routes``: functions of the exchange, by method and path.

    The server it belongs to has ``hosts``, the names under which it may be asked, and its ``url``.
    """

    routes: ClassVar[Mapping[str, Mapping[str, Callable[[Any], None]]]] = {}
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
            allowed = [method for method, paths in self.routes.items() if self.place in paths]
            if not allowed:
                raise Refused(HTTPStatus.NOT_FOUND, f"nothing is here; open {self.server.url}")
            if self.command not in allowed:
                raise Refused(
                    HTTPStatus.METHOD_NOT_ALLOWED,
                    f"{self.command} is not answered here; use {allowed[0]}",
                )
            self.routes[self.command][self.place](self)
        except InputError as error:
            self._refuse(Refused(HTTPStatus.BAD_REQUEST, str(error)))
        except Refused as refused:
            self._refuse(refused)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _dispatch

    # What is asked for

    @property
    def place(self) -> str:
        """The path without what may follow a question mark."""
        return self.path.partition("?")[0]

    def _check_sender(self) -> None:
        host = self.headers.get("Host", "")
        if host not in self.server.hosts:
            raise Refused(HTTPStatus.FORBIDDEN, f"this is not {host}; open {self.server.url}")
        if self.command == "GET":
            return
        origin = self.headers.get("Origin")
        origins = {f"http://{host}" for host in self.server.hosts}
        site = self.headers.get("Sec-Fetch-Site", "same-origin")
        if (origin is not None and origin not in origins) or site != "same-origin":
            raise Refused(HTTPStatus.FORBIDDEN, "only the page itself may ask for this")

    def body(self) -> bytes:
        """The body of a POST."""
        if self.headers.get_content_type() != "application/json":
            self._drain()
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
        length = self.headers.get("Content-Length", "")
        if not length:
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "say the Content-Length of the body")
        if not (length.isascii() and length.isdigit()):
            raise Refused(HTTPStatus.BAD_REQUEST, "the Content-Length is not a number")
        if len(length) > 9 or int(length) > BODY:
            self._drain()
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"send at most {BODY} bytes")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise Refused(HTTPStatus.BAD_REQUEST, "the body is shorter than its Content-Length")
        return body

    # Answering

    def answer(self, values: dict, status: HTTPStatus = HTTPStatus.OK) -> None:
        content = json.dumps(values).encode()
        self.head(status, "application/json", len(content))
        self.wfile.write(content)

    def _refuse(self, refused: Refused) -> None:
        self.answer({"error": refused.sentence}, refused.status)

    def head(self, status: HTTPStatus, kind: str, length: int | None = None) -> None:
        """What precedes the content; without a length, that ends when the connection does."""
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
