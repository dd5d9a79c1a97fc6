"""What the tests run in several processes, and how they start them.

As a program, ``FOLDER NAME [key=value ...]`` writes what `everything` returns as
``FOLDER/NAME<rank>.npz``, and ``trm ...`` is the command; in ``slow ...`` it saves for seconds.
"""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

os.environ["MLX_ENABLE_TF32"] = "0"

import trm_mlx  # noqa: F401  isort: skip
import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map

from trm_mlx.cli import main
from trm_mlx.config_io import train_config
from trm_mlx.distributed import SINGLE, World, connect
from trm_mlx.errors import InputError
from trm_mlx.evaluate.evaluate import SAVABLE, evaluate
from trm_mlx.run import trainer as run_trainer
from trm_mlx.run.checkpoint import save_checkpoint
from trm_mlx.run.trainer import Trainer
from trm_mlx.train.step import averaged

CHECKOUT = Path(__file__).resolve().parents[1]
# With TRM_TEST_BACKEND=nccl, two GPUs are put to the test instead of the CPU.
BACKEND = os.environ.get("TRM_TEST_BACKEND", "ring")
# One thread each, as the processes share few cores. MKL's kernels are those conftest.py names.
PLACES = {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
ARCH = {
    "name": "trm", "hidden_size": 16, "num_heads": 2, "H_cycles": 2, "L_cycles": 2, "L_layers": 1,
    "puzzle_emb_len": 2, "halt_max_steps": 4, "halt_exploration_prob": 0.5,
    "forward_dtype": "float32",
}  # fmt: skip
ARC_ARCH = {
    "hidden_size": 8, "num_heads": 1, "pos_encodings": "rope2d", "canvases": [5, 10, 30],
    "puzzle_rows": "structured", "board_convolution": True,
}  # fmt: skip


def everything(folder: Path, world: World = SINGLE, **changes: str) -> dict[str, np.ndarray]:
    """20 steps on ``folder/random``, 4 on canvases of ``folder/arc``, evaluations: all by name.

    Rows halt early and explore. ``changes`` are of the configuration.
    """
    values = {
        "arch": ARCH, "global_batch_size": 8, "epochs": 7, "lr": 1e-3, "lr_warmup_steps": 4,
        "puzzle_emb_lr": 1e-2, "ema": True, "random_starts": 0.5, "depth_curriculum": True,
        "checkpoint_path": str(folder / "none"), **changes,
    }  # fmt: skip
    arc = {"arch": ARCH | ARC_ARCH, "data_paths": [str(folder / "arc")], "evaluators": ["arc"]}
    found = trained({**values, "data_paths": [str(folder / "random")]}, 20, world)
    of_arc = trained(values | arc, 4, world)
    return found | {f"arc.{name}": array for name, array in of_arc.items()}


def trained(values: dict, steps: int, world: World) -> dict[str, np.ndarray]:
    trainer = Trainer(train_config(values), world=world)
    trainer.model.q_head.bias = mx.array([0.5, -0.5])  # at first it would never halt
    metrics = []
    for (batch, _), _ in zip(trainer.stream, range(steps), strict=False):
        metrics.append({name: value.item() for name, value in trainer.train_step(batch).items()})
    with averaged(trainer.state):
        means, outputs = evaluate(
            trainer.evaluation, trainer.test_data, 5, SAVABLE, trainer.evaluators, world=world
        )
    found = {
        "weights": trainer.model.parameters(),
        "average": trainer.state.average,
        "optimizer": trainer.state.optimizer.state,
        "means": tree_map(mx.array, means),
        "outputs": tree_map(mx.array, outputs),
    }
    if metrics:
        found["train"] = {name: mx.array([step[name] for step in metrics]) for name in metrics[0]}
        found["carry"] = {
            str(cells): world.gather(carry)._asdict() for cells, carry in trainer.carries.items()
        }
    arrays = {name: np.array(array) for name, array in tree_flatten(found)}
    for evaluator in trainer.evaluators if world.is_main else ():
        arrays["votes"] = np.array(sorted(f"{item}" for item in evaluator.votes.items()))
        arrays |= {name: np.array(text) for name, text in evaluator.result().files.items()}
    return arrays


def messages(world: World) -> dict[str, np.ndarray]:
    """What becomes of arrays that differ from process to process."""
    own = {
        "bool": mx.array([world.is_main] * 3),
        "uint64": mx.array([[2**60 + world.rank]], mx.uint64),
        "float32": mx.array([[-0.0, 1.5 + world.rank], [mx.nan, 0.0]]),
        "uint8": mx.array([7 + world.rank], mx.uint8),
    }
    made = {"sum": world.sum(own["float32"]), **own}
    for name, change in {"gather": world.gather, "leaders": world.broadcast}.items():
        made |= {f"{name}.{key}": array for key, array in change(own).items()}
    world.check_same("colour", [1, 2], "paint them")
    try:
        world.check_same("colour", [1, world.rank], "paint them")
        complaint = ""
    except InputError as error:
        complaint = str(error)
    return {
        "message.complaint": np.array(complaint),
        **{f"message.{name}": np.array(array) for name, array in made.items()},
    }


def free_ports(count: int) -> list[int]:
    """As many free ports in a row."""
    while True:
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            ports = [first.getsockname()[1] + number for number in range(count)]
        try:
            for port in ports:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            continue
        return ports


def launching(processes: int, *words: object) -> dict[str, object]:
    """This program in several processes, by ``mlx.launch``: what `subprocess.Popen` is to start."""
    launcher = Path(sys.executable).with_name("mlx.launch")
    command = [launcher, "-n", str(processes), "--starting-port", str(free_ports(processes)[0])]
    command += ["--backend", BACKEND, "--", sys.executable, __file__, *map(str, words)]
    return {"args": command, "env": os.environ | PLACES, "stdin": subprocess.DEVNULL}


def launched(processes: int, *words: object) -> str:
    """This program in several processes, to its end; what they and ``mlx.launch`` say on stderr.

    Its exit status is 0 come what may, but it warns of a process that fails.
    """
    program = launching(processes, *words)
    done = subprocess.run(**program, check=True, capture_output=True, text=True, timeout=600)
    assert "exited with code" not in done.stderr, done.stderr
    return done.stderr


def alone(*words: object) -> subprocess.Popen:
    """This program in one process, with the same settings."""
    return subprocess.Popen([sys.executable, __file__, *map(str, words)], env=os.environ | PLACES)


def started(processes: int, folder: Path, *words: object) -> list[subprocess.Popen]:
    """This program in several processes, without a launcher that would watch over them."""
    hosts = folder / "hosts.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(processes)]))
    command = [sys.executable, __file__, *map(str, words)]
    places = os.environ | PLACES | {"MLX_HOSTFILE": str(hosts)}
    return [
        subprocess.Popen(
            command,
            env={**places, "MLX_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]


def save_slowly(*arguments: object) -> Path:
    """A checkpoint that the launcher has the time to interrupt."""
    time.sleep(2.5)
    return save_checkpoint(*arguments)


if __name__ == "__main__":
    if BACKEND == "ring":
        mx.set_default_device(mx.cpu)
    if sys.argv[1] == "slow":
        run_trainer.save_checkpoint = save_slowly
    if sys.argv[1] in ("trm", "slow"):
        sys.exit(main(sys.argv[2:]))
    folder, name, world = Path(sys.argv[1]), sys.argv[2], connect()
    changes = dict(word.split("=") for word in sys.argv[3:])
    found = everything(folder, world, **changes) | messages(world)
    np.savez(folder / f"{name}{world.rank}.npz", **found)
