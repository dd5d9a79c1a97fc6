"""Kill a training run at random moments, hundreds of times, and compare it with one left alone.

    python tools/crash_test.py --kills 200

Every process trains a tiny model, from the start or from the newest checkpoint, and dies by SIGKILL
after a random time, often while a checkpoint is being written; some are stopped by SIGTERM instead,
which leaves checkpoints at odd moments. After that, each checkpoint folder there is must be that of
the run left alone, array by array; whenever a run gets to its end, so must its metrics.jsonl, byte
for byte. Prints what was killed where; exits 1 at the first difference.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import trm_mlx.commands.train  # noqa: F401  so that no process has to

WORDS = [
    "data_paths=[generate:sudoku4x4]", "puzzles_per_epoch=48", "test_puzzles=16",
    "global_batch_size=8", "eval_interval=1", "lr=1e-3", "lr_warmup_steps=2",
    "ema=true", "arch.hidden_size=16", "arch.num_heads=2", "arch.L_layers=1", "arch.H_cycles=1",
    "arch.L_cycles=1", "arch.puzzle_emb_len=1", "arch.halt_max_steps=3",
]  # fmt: skip
KEPT = 3  # checkpoints, and the best, so that kills hit deletions too


def start(words: list[str]) -> int:
    """A process that trains, without a word; its number.

    It is forked from this one, which has read all modules but computed nothing with MLX.
    """
    process = os.fork()
    if process:
        return process
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    from trm_mlx.cli import main

    os._exit(main(["train", *words]))


def steps_of(run: Path) -> list[Path]:
    return sorted(run.glob("step_*"))


def differs(folder: Path, whole: Path) -> str | None:
    """What of a checkpoint is not as in the run left alone."""
    reference = whole / folder.name
    names = {path.name for path in steps_of(whole)[0].iterdir()}
    if {path.name for path in folder.iterdir() if path.name[0] != "."} != names:
        return f"{folder} is not whole"
    if not reference.exists():  # of a run that was stopped in the middle of an interval
        return None
    for name in sorted(names):
        ours, theirs = folder / name, reference / name
        if name.endswith(".safetensors"):
            left, right = load_file(ours), load_file(theirs)
            same = left.keys() == right.keys() and all(
                np.array_equal(left[key], right[key]) for key in left
            )
        else:
            left, right = json.loads(ours.read_text()), json.loads(theirs.read_text())
            stopped = left.get("interval") != right.get("interval")  # before its evaluation
            differing = {"train_config"} | ({"interval", "results", "sha256"} if stopped else set())
            same = all(left[key] == right[key] for key in right.keys() - differing)
        if not same:
            return f"{ours} differs"
    return None


def fail(text: str) -> None:
    sys.exit(f"FAILED: {text}")


def check(run: Path, whole: Path) -> None:
    for folder in steps_of(run):
        if problem := differs(folder, whole):
            fail(problem)


def check_end(run: Path, whole: Path) -> None:
    if (run / "metrics.jsonl").read_bytes() != (whole / "metrics.jsonl").read_bytes():
        fail(f"{run / 'metrics.jsonl'} is not that of the run left alone")
    if steps_of(run)[-1].name != steps_of(whole)[-1].name:
        fail(f"{run} did not end where the run left alone did")


def is_finished(run: Path, whole: Path) -> bool:
    """Whether a run was killed after its last checkpoint; nothing is left to resume."""
    last = [json.loads((steps_of(each)[-1] / "state.json").read_text()) for each in (run, whole)]
    return last[0]["interval"] == last[1]["interval"]


def kill_one(
    run: Path, words: list[str], number: signal.Signals, seconds: float, writing: float | None
) -> str | None:
    """Train in ``run`` and kill after some seconds; in what state, or None if it ended before.

    With ``writing``, that many seconds after the next checkpoint has begun to be written.
    """
    before, log = steps_of(run), run / "metrics.jsonl"
    process = start([f"resume={run}"] if before else words)
    begun = log.read_bytes() if log.exists() else b""
    deadline, aimed = time.monotonic() + seconds, writing is None
    while time.monotonic() < deadline or not aimed:
        if not aimed and time.monotonic() >= deadline and any(run.glob(".step_*")):
            deadline, aimed = time.monotonic() + writing, True
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            if status:
                fail(f"a run after {before[-1:]} ended with status {status}")
            return None
        time.sleep(0.0002)
    os.kill(process, number)
    _, status = os.waitpid(process, 0)
    if number != signal.SIGKILL:
        if os.waitstatus_to_exitcode(status) not in (0, 128 + number, -number):
            fail(f"a run stopped by {number.name} ended with status {status}")
        return f"by {number.name}"
    aside = [path.name for path in run.glob(".*.partial-*")]
    for place in ("step_", "metrics", "all_config"):
        if any(name.startswith(f".{place}") for name in aside):
            return f"while {place} was being written or deleted"
    if not log.exists() or log.read_bytes() == begun:
        return "before its first step"
    return "in training or evaluation"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=12, help="a checkpoint for each")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, killed = random.Random(arguments.seed), Counter()
    options = [*WORDS, f"epochs={arguments.epochs}"]
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "whole")
        begun = time.monotonic()
        _, status = os.waitpid(start([*options, f"checkpoint_path={whole}"]), 0)
        seconds = time.monotonic() - begun
        if status:
            fail(f"the run left alone ended with status {status}")
        print(f"left alone: {len(steps_of(whole))} checkpoints in {seconds:.2f} s", flush=True)
        runs = 0
        while killed.total() - killed["by SIGTERM"] < arguments.kills:
            run, runs = Path(folder, f"killed{runs}"), runs + 1
            words = [*options, f"checkpoint_path={run}"]
            words += [f"keep_checkpoints={KEPT}", "keep_best=all/exact_accuracy"]
            while True:
                number = signal.SIGTERM if rng.random() < 0.2 else signal.SIGKILL
                after, writing = rng.uniform(0, 0.8 * seconds), rng.uniform(0, 0.004)
                aim = writing if rng.random() < 0.5 else None
                where = kill_one(run, words, number, after, aim)
                check(run, whole)
                if where is None:
                    break
                killed[where] += 1
                if steps_of(run) and is_finished(run, whole):
                    break
            check_end(run, whole)
            kills = killed.total() - killed["by SIGTERM"]
            print(f"{run.name} reached its end: {kills} kills by SIGKILL so far", flush=True)
    for where, count in killed.most_common():
        print(f"{count:5} killed {where}")
    print(f"{kills} kills by SIGKILL; {runs} runs reached their end, each as the one left alone")


if __name__ == "__main__":
    main()
