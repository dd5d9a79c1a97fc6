"""Makes the next batches in the background while the current one is being used."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")

_END = object()


def prefetch(items: Iterable[Item], depth: int = 2) -> Iterator[Item]:
    """Yield ``items`` in order while one thread keeps up to ``depth`` (>= 1) of them ready.

    An exception of ``items`` is raised here, after the items before it. However the consumer stops
    (exhaustion, break, close, KeyboardInterrupt), the thread has ended once this generator is
    closed: it finishes the item it is making and makes no other.
    """
    iterator = iter(items)
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
    try:
        # One worker runs the calls one after another, so the items keep their order.
        ready = deque(executor.submit(next, iterator, _END) for _ in range(depth))
        while (item := ready.popleft().result()) is not _END:
            ready.append(executor.submit(next, iterator, _END))
            yield item
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
