"""Times the published PyTorch code, from a checkout of it, as the parent process requests.

    python -m trm_mlx.bench.reference CHECKOUT '{"arch": {...}, "batch_size": 8, ...}'

Each line on standard input is a JSON list of a measurement and a number of runs; the answer is a
line of JSON. The published step is what its ``train_batch`` does: forward, backward, sign descent
on the puzzle embedding, AdamATan2, moving average. Compiled on CUDA as published, eager on the CPU,
which it does not support by itself. The only module besides ``convert`` that imports torch.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable

import numpy as np
import torch


class Published:
    """The published model with a batch, whose step and forward pass are timed."""

    def __init__(self, sizes: dict):
        self.device = sizes["device"]
        self.batch_size = sizes["batch_size"]
        arch = sizes["arch"]
        module = importlib.import_module(f"models.recursive_reasoning.{arch['name']}")
        (model_class,) = (
            v for name, v in vars(module).items() if name.endswith(("Model_ACTV1", "Model_ACTV2"))
        )
        losses = importlib.import_module("models.losses")
        if self.device == "cpu":
            torch.set_num_threads(len(os.sched_getaffinity(0)))
        torch.manual_seed(0)
        with torch.device(self.device):
            keys = ("seq_len", "vocab_size", "num_puzzle_identifiers", "batch_size")
            config = {**arch, **{key: sizes[key] for key in keys}, "causal": False}
            self.model = losses.ACTLossHead(model_class(config), sizes["loss"])
            shape = (self.batch_size, sizes["seq_len"])
            self.batch = {
                "inputs": torch.randint(1, sizes["vocab_size"], shape, dtype=torch.int32),
                "labels": torch.randint(1, sizes["vocab_size"], shape, dtype=torch.int32),
                "puzzle_identifiers": torch.zeros(self.batch_size, dtype=torch.int32),
            }
        if "weights" in sizes:
            weights = torch.load(sizes["weights"], weights_only=True)
            self.model.load_state_dict(weights)
            self.puzzles = dict(np.load(sizes["puzzles"]))
        self.steps, self.solved = arch["halt_max_steps"], 0.0
        if self.device == "cuda":
            self.model = torch.compile(self.model)
        self.carry = self.initial_carry()
        self.optimizers = self._optimizers()
        self.average = [p.detach().clone() for p in self.model.parameters()]

    def initial_carry(self):
        with torch.device(self.device):
            return self.model.initial_carry(self.batch)

    def _optimizers(self) -> list:
        embeddings = importlib.import_module("models.sparse_embedding")
        try:
            from adam_atan2 import AdamATan2

            weights = AdamATan2(self.model.parameters(), lr=1e-4, betas=(0.9, 0.95))
        except ImportError:  # its CUDA extension rarely builds; PyTorch's own is as fast or faster
            parameters = list(self.model.parameters())
            weights = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.95), fused=True)
        if not hasattr(self.model.model, "puzzle_emb"):
            return [weights]
        sparse = embeddings.CastedSparseEmbeddingSignSGD_Distributed
        return [weights, sparse(self.model.model.puzzle_emb.buffers(), lr=1e-4, world_size=1)]

    def step(self) -> None:
        self.model.train()
        self.carry, loss, _, _, _ = self.model(carry=self.carry, batch=self.batch, return_keys=[])
        (loss / self.batch_size).backward()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            for average, value in zip(self.average, self.model.parameters(), strict=True):
                average.mul_(0.999).add_(value, alpha=0.001)

    def forward(self) -> None:
        self.model.eval()
        with torch.inference_mode():
            self.carry = self.model(carry=self.initial_carry(), batch=self.batch, return_keys=[])[0]

    def evaluation(self) -> None:
        """All puzzles through all supervision steps, as the published evaluation does."""
        self.model.eval()
        exact = []
        for start in range(0, len(self.puzzles["inputs"]), self.batch_size):
            batch = {
                name: torch.as_tensor(array[start : start + self.batch_size], dtype=torch.int32)
                for name, array in self.puzzles.items()
            }
            short = self.batch_size - len(batch["inputs"])
            batch = {
                name: torch.cat([array, array[-1:].expand(short, *array.shape[1:])])
                for name, array in batch.items()
            }
            batch = {name: array.to(self.device) for name, array in batch.items()}
            with torch.device(self.device), torch.inference_mode():
                carry = self.model.initial_carry(batch)
                for _ in range(self.steps):
                    carry, _, _, outputs, _ = self.model(
                        carry=carry, batch=batch, return_keys=["preds"]
                    )
            right = (outputs["preds"] == batch["labels"]) | (batch["labels"] < 0)
            exact.append(right.all(-1)[: self.batch_size - short])
        self.solved = torch.cat(exact).float().mean().item()

    def synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def measure(self, name: str, runs: int) -> dict:
        """The mean of the seconds of ``runs`` calls, and the peak of memory in bytes, or 0."""
        run: Callable[[], None] = getattr(self, name)
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        for _ in range(runs):
            run()
        self.synchronize()
        seconds = (time.perf_counter() - start) / runs
        peak = torch.cuda.max_memory_allocated() if self.device == "cuda" else 0
        return {"seconds": seconds, "peak": peak, "solved": self.solved}


def main() -> None:
    checkout, sizes = sys.argv[1], json.loads(sys.argv[2])
    sys.path.insert(0, checkout)
    answers, sys.stdout = sys.stdout, sys.stderr  # the published code prints
    published = Published(sizes)
    for line in sys.stdin:
        name, runs = json.loads(line)
        print(json.dumps(published.measure(name, runs)), file=answers, flush=True)


if __name__ == "__main__":
    main()
