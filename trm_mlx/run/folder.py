"""The folder of a run, locked by one process at a time.

The lock is the kernel's, on the file ``.lock``: it ends with the process, however that ends.
"""

import fcntl
import os
import time
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import yaml

from trm_mlx.config import TrainConfig
from trm_mlx.config_io import to_dict
from trm_mlx.distributed import World
from trm_mlx.errors import InputError
from trm_mlx.files import atomic_file, is_open_file, remove_stale
from trm_mlx.models.checkpoint_files import step_folders, step_of
from trm_mlx.train.batches import GENERATE

LOCK_FILE, RUN_CONFIG_FILE = ".lock", "all_config.yaml"


class RunFolder:
    """The folder for checkpoints and logs; `open` locks it for this process."""

    def __init__(self, path: Path):
        self.path = path
        self._lock: int | None = None

    def open(self, config: TrainConfig, resumed: Path | None) -> None:
        """Make and lock the folder, remove what a killed run left, write the configuration.

        Opening it twice does nothing.

        Raises:
            InputError: it cannot be written, another process holds it, or the run in it is further
                than ``resumed``.
        """
        if self._lock is not None:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            check_entries(self.path)
            self._lock = self._locked()
            check_newest(self.path, resumed)
            for folder in (self.path, *step_folders(self.path)):
                remove_stale(folder)
            with atomic_file(self.path / RUN_CONFIG_FILE) as unfinished:
                text = yaml.safe_dump(to_dict(config), sort_keys=False)
                unfinished.write_text(text, encoding="utf-8")
        except OSError as error:
            self.close()
            raise InputError(f"cannot write {self.path}: {error.strerror}") from error
        except InputError:
            self.close()
            raise

    def reopen_if_gone(self, config: TrainConfig, resumed: Path | None) -> bool:
        """Open the folder again if it was deleted or moved meanwhile; return whether it was.

        Raises:
            InputError: see `open`.
        """
        if is_open_file(self.path / LOCK_FILE, self._lock):
            return False
        self.close()
        self.open(config, resumed)
        return True

    def close(self) -> None:
        """Unlock the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _locked(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.path / LOCK_FILE, flags, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.truncate(descriptor, 0)
            os.write(descriptor, b"%d\n" % os.getpid())
        except OSError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                raise InputError(
                    f"{self.path} is being trained by process {holder}: wait for it, or choose "
                    "another run_name"
                ) from error
            raise
        return descriptor


def check_entries(run: Path) -> None:
    """Refuse a run folder in which a file to be written could be another one.

    A folder that was received may hold links to files outside it, or devices. Checkpoints may lie
    elsewhere, behind a link called ``step_*``.

    Raises:
        InputError: naming the entry.
        OSError: the folder cannot be listed.
    """
    inside = run.resolve()
    for folder in (run, *step_folders(run)):
        for path in folder.iterdir():
            leads_out = path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(
                inside
            )
            if leads_out and not (path.name.startswith("step_") and path.is_dir()):
                raise InputError(
                    f"{path} is a link to {os.readlink(path)}, outside the run, which would be "
                    "written there: remove it"
                )
            if path.exists() and not (path.is_file() or path.is_dir()):
                raise InputError(f"{path} is a device or a pipe, not a file: remove it")


def check_newest(run: Path, resumed: Path | None) -> None:
    """Refuse to write into a run that is further than the checkpoint it would continue from.

    Raises:
        InputError: naming what the folder holds.
    """
    steps = step_folders(run)
    if resumed is None or resumed.resolve().parent != run.resolve():
        if steps:
            raise InputError(
                f"{run} already holds a run: continue it with resume={run}, "
                "or choose another run_name"
            )
    elif steps and step_of(steps[-1]) > step_of(resumed):
        raise InputError(
            f"{run} holds the later {steps[-1].name}: resume from the newest, "
            "or branch off into another folder with checkpoint_path="
        )


def recovery_hint(run: Path) -> str:
    """Return the end of an error message: where the last checkpoint of the run is."""
    steps = step_folders(run)
    if not steps:
        return "the run has no checkpoint yet"
    return f"the last good checkpoint is {steps[-1]}, continue from it with resume={run}"


def fill_names(config: TrainConfig, world: World) -> TrainConfig:
    """Return a run's configuration with its open names filled in, the same in all processes."""
    first = config.data_paths[0]
    if first.startswith(GENERATE):
        first = first.partition("/")[0]  # its options are no part of the name
    project = config.project_name or Path(first).name.rpartition(":")[2]
    run = config.run_name
    if run is None:
        now = world.broadcast(mx.array(int(time.time()))).item()
        run = f"{config.arch.name}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}"
    folder = config.checkpoint_path or str(Path("checkpoints", project, run))
    return replace(config, project_name=project, run_name=run, checkpoint_path=folder)
