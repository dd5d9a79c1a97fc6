"""Progress bars on standard error."""

import time

from tqdm import tqdm


class ProgressBar(tqdm):
    """``tqdm`` by a clock that is never set back, by default on a terminal only.

    Its monitor thread, which knows the other clock, is not needed: every update looks at the time.
    """

    monitor_interval = 0

    def __init__(self, *arguments, disable: bool | None = None, **options):
        super().__init__(*arguments, miniters=0, disable=disable, **options)
        self._time = time.monotonic
        self.start_t = self.last_print_t = self._time()
