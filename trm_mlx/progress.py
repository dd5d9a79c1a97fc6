"""Signs on standard error that long work goes on: a bar, or a line."""

import sys
import threading
import time

from tqdm import tqdm

SILENT, APART = 1.0, 0.2  # seconds before a status line, and between two on a terminal


class ProgressBar(tqdm):
    """``tqdm`` by a clock that is never set back, by default on a terminal only.

    Its monitor thread, which knows the other clock, is not needed: every update looks at the time.
    """

    monitor_interval = 0

    def __init__(self, *arguments, disable: bool | None = None, **options):
        super().__init__(*arguments, miniters=0, disable=disable, **options)
        self._time = time.monotonic
        self.start_t = self.last_print_t = self._time()


class StatusLine:
    """Shows ``text`` once work has lasted over a second: kept up to date on a terminal, else once.

    A context manager; assign to ``text`` whenever something new is known, and call `update`.
    """

    def __init__(self, text: str):
        self.text = text
        self._terminal = sys.stderr.isatty()
        self._shown = 0.0
        self._timer = threading.Timer(SILENT, self._show)
        self._timer.daemon = True

    def __enter__(self) -> "StatusLine":
        self._timer.start()
        return self

    def __exit__(self, *details: object) -> None:
        self.clear()
        self._timer.cancel()

    def update(self, text: str) -> None:
        """Change the text; a terminal shows it if the last one has stood long enough."""
        self.text = text
        if self._terminal and self._shown and time.monotonic() - self._shown > APART:
            self._show()

    def clear(self) -> None:
        """Erase the line from a terminal, before other output."""
        if self._terminal and self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _show(self) -> None:
        self._shown = time.monotonic()
        line = f"\r{self.text}\x1b[K" if self._terminal else f"{self.text}\n"
        sys.stderr.write(line)
        sys.stderr.flush()
