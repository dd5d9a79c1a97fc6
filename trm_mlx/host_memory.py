"""Memory of the computer: what it has, and what the limit of a container or job leaves of it.

On Linux such a limit is one of control groups, in version 1 or 2 of their files. It binds whoever
is in the group or in one inside it, and the kernel ends a process that goes beyond.
"""

import os
from collections.abc import Iterator
from pathlib import Path

# In a container the folder shows the container's own group; elsewhere the path leads to it.
GROUPS = Path("/sys/fs/cgroup")
MEMBERSHIPS = Path("/proc/self/cgroup")  # lines of number:controllers:path


def host_memory() -> int:
    """Bytes that this process may take: the machine's memory, or a smaller limit."""
    return min([machine_memory(), *_limits()])


def machine_memory() -> int:
    """Bytes of the whole computer, whoever may take them."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _limits() -> Iterator[int]:
    paths = {"": "/", "memory": "/"}  # by controllers; those of version 2 have none
    for line in _text(MEMBERSHIPS).splitlines():
        _, controllers, path = line.split(":", 2)
        paths |= {name: path for name in controllers.split(",") if name in paths}
    for folder, path, file in (
        (GROUPS, paths[""], "memory.max"),
        (GROUPS / "memory", paths["memory"], "memory.limit_in_bytes"),
    ):
        group = Path(path)
        for inside in (group, *group.parents):
            text = _text(folder / inside.relative_to("/") / file).strip()
            if text.isdigit():  # version 2 writes "max" for none, version 1 a huge number
                yield int(text)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # no such group, or no groups at all: no limit
        return ""
