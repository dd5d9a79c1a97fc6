"""Records small traces of the published PyTorch code, which ``tests/test_traces.py`` follows.

    git clone https://github.com/SamsungSAILMontreal/TinyRecursiveModels
    pip install torch einops pydantic
    python tools/record_traces.py TinyRecursiveModels tests/traces

The code runs on the CPU in float32, without exploration, so that nothing is random. A file holds
the weights, rounded to float16, three batches and two runs: ``published`` starts from the published
initialisation, ``random_heads`` from the same weights with random halting head and puzzle table, so
that every array matters. A run is three evaluation steps and four training steps: loss / batch
size, sign descent on the puzzle table, AdamATan2 on the rest, moving average.

``RUN/KEY`` has the steps of a run, or its arrays by name, along the first axis, and
``RUN/spread/KEY`` the largest difference there between the code and itself over eight runs whose
weights were multiplied by 1 + 1e-7 noise.
"""

import argparse
import importlib
import json
import math
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

ARCH = {
    "hidden_size": 32, "num_heads": 4, "expansion": 4, "H_cycles": 2, "L_cycles": 2, "H_layers": 0,
    "L_layers": 1, "halt_max_steps": 3, "halt_exploration_prob": 0.0, "pos_encodings": "rope",
    "puzzle_emb_ndim": 32, "puzzle_emb_len": 2, "mlp_t": False, "no_ACT_continue": True,
    "forward_dtype": "float32",
}  # fmt: skip
CASES = {
    "trm": {},
    "trm_mlp_t": {"mlp_t": True, "pos_encodings": "none"},
    "trm_singlez": {},
    "trm_hier6": {},
    "hrm": {"H_layers": 1, "puzzle_emb_len": 0, "no_ACT_continue": False},
    "transformers_baseline": {
        "H_layers": 1,
        "L_layers": 0,
        "puzzle_emb_len": 0,
        "no_ACT_continue": False,
    },
}
SIZES = {"seq_len": 12, "vocab_size": 7, "num_puzzle_identifiers": 5, "batch_size": 4}
HYPER = {
    "lr": 1e-3, "lr_min_ratio": 0.1, "lr_warmup_steps": 2, "beta1": 0.9, "beta2": 0.95,
    "weight_decay": 0.1, "puzzle_emb_lr": 1e-2, "puzzle_emb_weight_decay": 0.1, "ema_rate": 0.9,
    "total_steps": 4,
}  # fmt: skip
OUTPUTS = ("logits", "q_halt_logits", "q_continue_logits", "target_q_continue")
BATCHES, NOISE, NOISY_RUNS, SAMPLE = 3, 1e-7, 8, 64


class AdamATan2(torch.optim.Optimizer):
    """The optimizer of the ``adam_atan2`` package, whose kernels need CUDA, in plain PyTorch."""

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                state, grad = self.state[parameter], parameter.grad
                if not state:
                    state.update(step=0, m=torch.zeros_like(grad), v=torch.zeros_like(grad))
                state["step"] += 1
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                m, v = state["m"].lerp_(grad, 1 - beta1), state["v"].lerp_(grad * grad, 1 - beta2)
                root = v.sqrt() / math.sqrt(1 - beta2 ** state["step"])
                step_size = group["lr"] / (1 - beta1 ** state["step"])
                parameter.add_(torch.atan2(m, root), alpha=-step_size)


def learning_rate(base: float, step: int) -> float:
    """``cosine_schedule_with_warmup_lr_lambda`` of the published ``pretrain.py``."""
    warmup, least = HYPER["lr_warmup_steps"], HYPER["lr_min_ratio"]
    if step < warmup:
        return base * step / warmup
    progress = (step - warmup) / max(1, HYPER["total_steps"] - warmup)
    return base * (least + (1 - least) * 0.5 * (1 + math.cos(math.pi * progress)))


def build(case: str) -> torch.nn.Module:
    """The published model of a case with its loss head."""
    name = case.removesuffix("_mlp_t")
    module = importlib.import_module(f"models.recursive_reasoning.{name}")
    (model_class,) = (
        v for k, v in vars(module).items() if k.endswith(("Model_ACTV1", "Model_ACTV2"))
    )
    losses = importlib.import_module("models.losses")
    arch = {**ARCH, **CASES[case], **SIZES, "causal": False}
    return losses.ACTLossHead(model_class(arch), "stablemax_cross_entropy")


def make_batches(random: np.random.Generator) -> list[dict[str, np.ndarray]]:
    """Batches with ignored labels; the second repeats an identifier, the third has an empty row."""
    shape, vocabulary = (SIZES["batch_size"], SIZES["seq_len"]), SIZES["vocab_size"]
    batches = []
    for index in range(BATCHES):
        labels = random.integers(1, vocabulary, shape)
        labels[random.random(shape) < 0.2] = -100
        identifiers = random.permutation(SIZES["num_puzzle_identifiers"])[: shape[0]]
        if index == 1:
            identifiers[1] = identifiers[0]
        if index == 2:
            labels[0] = -100
        inputs = random.integers(1, vocabulary, shape)
        batches.append({"inputs": inputs, "labels": labels, "puzzle_identifiers": identifiers})
    return batches


def sample(array: torch.Tensor) -> np.ndarray:
    """Values of an array at even distances: [SAMPLE]."""
    flat = array.detach().numpy().ravel()
    return flat[np.linspace(0, flat.size - 1, SAMPLE).astype(int)]


def run(case: str, weights: dict, batches: list[dict[str, torch.Tensor]]) -> dict[str, np.ndarray]:
    """Evaluate and train from ``weights``; every value is stacked over steps or arrays."""
    model = build(case)
    model.load_state_dict(weights)
    record = defaultdict(list)
    model.eval()
    carry = model.initial_carry(batches[0])
    with torch.no_grad():
        for _ in range(ARCH["halt_max_steps"]):
            carry, _, _, outputs, _ = model(carry=carry, batch=batches[0], return_keys=OUTPUTS)
            for name, array in outputs.items():
                record[f"eval/{name}"].append(array.numpy())

    model.train()
    embeddings = importlib.import_module("models.sparse_embedding")
    sparse = embeddings.CastedSparseEmbeddingSignSGD_Distributed(
        model.model.puzzle_emb.buffers(),
        world_size=1,
        weight_decay=HYPER["puzzle_emb_weight_decay"],
    )
    betas = HYPER["beta1"], HYPER["beta2"]
    defaults = {"lr": 0.0, "betas": betas, "weight_decay": HYPER["weight_decay"]}
    dense = AdamATan2(model.parameters(), defaults)
    average = importlib.import_module("models.ema").EMAHelper(HYPER["ema_rate"])
    average.register(model)
    carry = model.initial_carry(batches[0])
    for step in range(HYPER["total_steps"]):
        carry, loss, metrics, outputs, _ = model(
            carry=carry, batch=batches[step % BATCHES], return_keys=OUTPUTS
        )
        (loss / SIZES["batch_size"]).backward()
        if step == 0:
            record["gradients"] = [sample(p.grad) for _, p in sorted(model.named_parameters())]
        for optimizer, base in ((sparse, HYPER["puzzle_emb_lr"]), (dense, HYPER["lr"])):
            optimizer.param_groups[0]["lr"] = learning_rate(base, step + 1)
            optimizer.step()
            optimizer.zero_grad()
        average.update(model)
        for name, array in outputs.items():
            record[f"train/{name}"].append(array.numpy())
        record["train/loss"].append(loss.item())
        record["train/lr"].append(learning_rate(HYPER["lr"], step + 1))
        record["train/halted"].append(carry.halted.numpy())
        record["train/steps"].append(carry.steps.numpy())
        record["train/metrics"].append([float(metrics[name]) for name in sorted(metrics)])
    record["metrics"] = sorted(metrics)
    record["final"] = [sample(array) for _, array in sorted(model.state_dict().items())]
    record["final_ema"] = [sample(array) for _, array in sorted(average.shadow.items())]
    return {key: np.array(value) for key, value in record.items()}


def noisy(weights: dict, seed: int) -> dict:
    """``weights`` with rounding noise; heads at their initial value have no gradient to disturb."""
    generator = torch.Generator().manual_seed(seed)
    factor = {
        name: torch.randn(array.shape, generator=generator) for name, array in weights.items()
    }
    published = not weights["model.inner.q_head.weight"].any()
    return {
        name: array if published and "q_head" in name else array * (1 + NOISE * factor[name])
        for name, array in weights.items()
    }


def record_case(case: str, seed: int) -> dict[str, np.ndarray]:
    """The content of a file."""
    torch.manual_seed(seed)
    weights = {name: array.half().float() for name, array in build(case).state_dict().items()}
    heads = {
        name: (torch.randn_like(array) * ARCH["hidden_size"] ** -0.5).half().float()
        for name, array in weights.items()
        if "q_head" in name or "puzzle_emb" in name
    }
    batches = make_batches(np.random.default_rng(seed))
    in_torch = [{k: torch.tensor(v, dtype=torch.int32) for k, v in b.items()} for b in batches]
    config = {
        "name": case.removesuffix("_mlp_t"), "arch": {**ARCH, **CASES[case]}, **SIZES, **HYPER
    }  # fmt: skip
    content = {"config": np.array(json.dumps(config))}
    for index, batch in enumerate(batches):
        content |= {f"batch{index}/{name}": array.astype(np.int8) for name, array in batch.items()}
    for group, arrays in (("weights", weights), ("heads", heads)):
        for name, array in arrays.items():
            content[f"{group}/{name.removeprefix('model.inner.')}"] = array.half().numpy()
    for name, start in (("published", weights), ("random_heads", weights | heads)):
        recorded = run(case, start, in_torch)
        others = [run(case, noisy(start, seed + n), in_torch) for n in range(1, NOISY_RUNS + 1)]
        for key, array in recorded.items():
            content[f"{name}/{key}"] = array
            if array.dtype.kind == "f":
                axes = tuple(range(1, array.ndim))
                differences = [np.abs(other[key] - array).max(axis=axes) for other in others]
                content[f"{name}/spread/{key}"] = np.max(differences, axis=0)
            elif any((other[key] != array).any() for other in others):
                sys.exit(f"{case}: {name}/{key} depends on rounding: choose another seed")
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path, help="of the published code")
    parser.add_argument("output", type=Path, help="folder of the files")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.path.insert(0, str(arguments.checkout))
    torch.set_num_threads(1)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        content = record_case(case, arguments.seed)
        np.savez_compressed(arguments.output / f"{case}.npz", **content)
        spread = max(float(a.max()) for key, a in content.items() if "/spread/train/loss" in key)
        print(f"{case}: {len(content)} arrays, loss of a training step within {spread:.1e}")


if __name__ == "__main__":
    main()
