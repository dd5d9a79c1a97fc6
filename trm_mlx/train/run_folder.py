"""The folder of a run, held by one process at a time.

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
from trm_mlx.errors import InputError, shortened
from trm_mlx.models.weights import step_folders, step_of
from trm_mlx.options import plain
from trm_mlx.train.group import Group
from trm_mlx.whole_folder import sweep, whole_file

LOCK_FILE, RUN_CONFIG_FILE = ".lock", "all_config.yaml"


class RunFolder:
    """A place for checkpoints and logs, closed until `open` takes it for this process."""

    def __init__(self, path: Path):
        self.path = path
        self._lock: int | None = None

    def open(self, config: TrainConfig, resumed: Path | None) -> None:
        """Make and lock the folder, clear away what a killed run left, write the configuration.

        Open already, it stays so.

        Raises:
            InputError: it cannot be written, another process holds it, or a run has come further
                in it than ``resumed``.
        """
        if self._lock is not None:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = self._locked()
            check_newest(self.path, resumed)
            for folder in (self.path, *step_folders(self.path)):
                sweep(folder)
            with whole_file(self.path / RUN_CONFIG_FILE) as unfinished:
                text = yaml.safe_dump(plain(config), sort_keys=False)
                unfinished.write_text(text, encoding="utf-8")
        except OSError as error:
            self.close()
            raise InputError(f"cannot write {shortened(self.path)}: {error.strerror}") from error
        except InputError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _locked(self) -> int:
        descriptor = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
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


def check_newest(run: Path, resumed: Path | None) -> None:
    """Refuse to write into a run that has come further than the checkpoint it shall go on from.

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


def way_back(run: Path) -> str:
    """What to tell the user of a run that cannot go on: where its last checkpoint is."""
    steps = step_folders(run)
    if not steps:
        return "the run has no checkpoint yet"
    return f"the last good checkpoint is {steps[-1]}, continue from it with resume={run}"


def named(config: TrainConfig, group: Group) -> TrainConfig:
    """A run's configuration with the names it leaves open filled in, the same in all processes."""
    first = config.data_paths[0]
    if first.startswith("generate:"):
        first = first.partition("/")[0]  # its options are no part of the name
    project = config.project_name or Path(first).name.rpartition(":")[2]
    run = config.run_name
    if run is None:
        now = group.leaders(mx.array(int(time.time()))).item()
        run = f"{config.arch.name}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}"
    folder = config.checkpoint_path or str(Path("checkpoints", project, run))
    return replace(config, project_name=project, run_name=run, checkpoint_path=folder)
