"""``pretrain.py`` and ``trm train``: train a model from ``key=value`` options."""

import argparse
import dataclasses
import shlex
import signal
import sys
import typing
from pathlib import Path

from trm_mlx import device
from trm_mlx.config import ArchConfig, TrainConfig
from trm_mlx.config_io import config_folder, load_config, shown, type_name
from trm_mlx.distributed import connect
from trm_mlx.errors import InputError, located
from trm_mlx.files import expand_path
from trm_mlx.models.variants import deepenings
from trm_mlx.run.checkpoint import read_state
from trm_mlx.run.signals import SIGNALS, stop_signal
from trm_mlx.run.synced_stop import outlive_launcher
from trm_mlx.run.trainer import Trainer
from trm_mlx.tasks import get
from trm_mlx.train.batches import check_generated


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "keys:\n"
        + describe_options()
        + (
            "\n  experiment                   a recipe, config/experiment/NAME.yaml"
            "\n  resume                       run folder (or a step_* in it) to continue"
        )
        + "\n\nrecipes, as experiment=NAME:\n"
        + _describe_recipes()
    )
    overrides = parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="for example: arch=trm data_paths=[data/sudoku] arch.L_cycles=4 ema=true",
    )
    overrides.completer = lambda **_typed: _known_words()
    parser.add_argument(
        "--task",
        metavar="MODULE:NAME",
        help="import this task of your own; needed once, where a run from elsewhere names it",
    )


def run(arguments: argparse.Namespace) -> int:
    """Train; return 128 plus the number of the signal that stopped the run, if one did."""
    if arguments.task is not None:
        get(arguments.task)
    resume = [word for word in arguments.overrides if word.lstrip("+").startswith("resume=")]
    overrides = [word for word in arguments.overrides if word not in resume]
    checkpoint = saved = None
    if resume:
        folder = expand_path(resume[-1].partition("=")[2])
        if not folder:
            raise InputError("resume= names no folder: write resume=checkpoints/PROJECT/RUN")
        checkpoint, _, saved = read_state(folder)
        # A run that was moved or copied continues where it is now, unless it gets a new name.
        renamed = any(word.lstrip("+").startswith("run_name=") for word in overrides)
        with located(checkpoint):
            check_generated(load_config((), base=saved))
        saved = {**saved, "checkpoint_path": None if renamed else str(checkpoint.parent)}
    config = load_config(overrides, base=saved)
    world = connect()
    with world.reraise_lost_peer("start it again"):
        trainer = Trainer(config, checkpoint, world)
        trainer.open()
    if world.is_main:
        _announce(trainer)
    # SIGHUP: the ssh through which a launcher has started this process has ended.
    with stop_signal(SIGNALS if world.size == 1 else (*SIGNALS, signal.SIGHUP)) as stop:
        if world.size > 1:
            outlive_launcher(stop)
        trainer.fit(stop.should_stop)
    if not trainer.finished:
        if not world.is_main:
            return 0  # at another status the launcher would end the main process, which still saves
        print(_resume_hint(trainer), file=sys.stderr)
        return 128 + (stop.signal or signal.SIGINT)
    if world.is_main:
        print(trainer.run)
    return 0


def _announce(trainer: Trainer) -> None:
    config = trainer.config
    parameters = sum(array.size for array in trainer.parameters().values())
    processes = f" on {trainer.world.size} processes" if trainer.world.size > 1 else ""
    device.announce(config.arch.forward_dtype)
    print(
        f"{config.arch.name}: {parameters:,} trained parameters, {trainer.total_steps} steps of "
        f"{config.global_batch_size} rows{processes}, run {trainer.run}",
        file=sys.stderr,
    )
    if config.depth_curriculum:
        first, second = deepenings(trainer.total_steps)
        print(
            f"a third of the cycles, two thirds after {first} steps, all after {second}: "
            "steps grow slower then",
            file=sys.stderr,
        )


def _resume_hint(trainer: Trainer) -> str:
    if not trainer.progress.step:
        return "stopped before the first step: nothing to resume"
    launchers = {"trm": ["trm", "train"], "pretrain.py": [sys.executable, sys.argv[0]]}
    module = [sys.executable, "-m", "trm_mlx", "train"]
    words = [*launchers.get(Path(sys.argv[0]).name, module), f"resume={trainer.run}"]
    return f"stopped at step {trainer.progress.step}; to go on: {shlex.join(words)}"


# Help


def describe_options() -> str:
    """Return the text of ``--help``: every option with its meaning, type and default."""
    lines = []
    for prefix, declared in (("", TrainConfig), ("arch.", ArchConfig)):
        kinds = typing.get_type_hints(declared)
        for item in dataclasses.fields(declared):
            if item.name == "arch":
                continue
            choices = item.metadata.get("choices", ())
            kind = " | ".join(choices) or type_name(kinds[item.name])
            default = shown(item.default)
            lines.append(
                f"  {prefix + item.name:28} {item.metadata['help']}  [{kind}; default {default}]"
            )
    return "\n".join(lines)


def _describe_recipes() -> str:
    """The text of ``--help``: every recipe with the first line of its file."""
    files = sorted((config_folder() / "experiment").glob("*.yaml"))
    firsts = [file.read_text("utf-8").partition("\n")[0].removeprefix("# ") for file in files]
    return "\n".join(f"  {f.stem:28} {line}" for f, line in zip(files, firsts, strict=True))


def _known_words() -> list[str]:
    """Every word that ``trm train`` can begin with, for completion."""
    groups = ("experiment", "arch")
    files = [(group, path.stem) for group in groups for path in (config_folder() / group).iterdir()]
    keys = [field.name for field in dataclasses.fields(TrainConfig) if field.name != "arch"]
    keys += [f"arch.{field.name}" for field in dataclasses.fields(ArchConfig)]
    return [*(f"{group}={name}" for group, name in files), *(f"{key}=" for key in keys), "resume="]
