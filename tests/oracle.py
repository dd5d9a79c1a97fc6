"""A plain, slow PyTorch statement of how the published models are trained.

Around the network of `trm_mlx.convert.torch_model`: the adaptive computation (ACT) wrapper, loss,
metrics and optimisation, written out once more so that the MLX package has something independent
to be compared with. It agrees with the traces of the published code. Exploration is taken to be 0,
so nothing here is random except `random_weights` and `perturbed`.
"""

import math

import torch
import torch.nn.functional as F

from trm_mlx.convert.torch_model import STATES, TorchModel, prefix_length

IGNORE_LABEL = -100
STABLEMAX = "stablemax_cross_entropy"
LEVELS = {
    "trm": ["L_level"],
    "trm_singlez": ["L_level"],
    "trm_hier6": ["L_level"],
    "hrm": ["H_level", "L_level"],
    "transformers_baseline": ["H_level"],
}


def is_trained(name):
    """True for what AdamATan2 and the EMA see: not puzzle embeddings, not initial states."""
    return name != "puzzle_emb.weights" and not name.endswith("_init")


def cross_entropy(logits, labels, loss_type):
    """Loss of every position [B, S], 0 where the label is ignored."""
    valid = labels != IGNORE_LABEL
    target = torch.where(valid, labels, 0).long()[..., None]
    if loss_type == STABLEMAX:
        v = logits.double()
        s = torch.where(v >= 0, v + 1, 1 / (1 - v.clamp(max=0)))
        log_probability = torch.log(s / s.sum(-1, keepdim=True))
    elif loss_type == "softmax_cross_entropy":
        log_probability = torch.log_softmax(logits.float(), dim=-1)
    else:
        raise ValueError(loss_type)
    return torch.where(valid, -log_probability.gather(-1, target)[..., 0], 0.0)


def loss_and_metrics(carry, outputs, loss_type=STABLEMAX):
    """The loss summed over the batch, and the metrics as sums over the rows that halted.

    A row without any label counts as exactly right in the halting loss, as published.
    """
    labels, logits = carry["batch"]["labels"], outputs["logits"]
    valid = labels != IGNORE_LABEL
    label_count = valid.sum(-1)
    right = valid & (logits.argmax(-1) == labels)
    exact = right.sum(-1) == label_count
    divisor = label_count.clamp(min=1)

    def binary(q, target):
        return F.binary_cross_entropy_with_logits(q, target.to(q.dtype), reduction="sum")

    lm_loss = (cross_entropy(logits, labels, loss_type) / divisor[:, None]).sum()
    q_halt_loss = binary(outputs["q_halt_logits"], exact)
    loss = lm_loss + 0.5 * q_halt_loss

    counted = carry["halted"] & (label_count > 0)
    halt_right = (outputs["q_halt_logits"] >= 0) == exact
    metrics = {
        "count": counted.sum(),
        "accuracy": torch.where(counted, right.sum(-1) / divisor, 0.0).sum(),
        "exact_accuracy": (counted & exact).sum(),
        "q_halt_accuracy": (counted & halt_right).sum(),
        "steps": torch.where(counted, carry["steps"], 0).sum(),
        "lm_loss": lm_loss,
        "q_halt_loss": q_halt_loss,
    }
    if "target_q_continue" in outputs:
        q_continue_loss = binary(outputs["q_continue_logits"], outputs["target_q_continue"])
        loss = loss + 0.5 * q_continue_loss
        metrics["q_continue_loss"] = q_continue_loss
    return loss, {name: value.item() for name, value in metrics.items()}


def scheduled(lr, step, hyper):
    """Learning rate of a step counted from 1: linear warm-up, then a cosine to lr_min_ratio."""
    warmup, total = hyper["lr_warmup_steps"], hyper["total_steps"]
    if step < warmup:
        return lr * step / warmup
    progress = (step - warmup) / max(1, total - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return lr * (hyper["lr_min_ratio"] + (1 - hyper["lr_min_ratio"]) * cosine)


class Oracle(TorchModel):
    """One model with its weights, optimiser moments, EMA and step count."""

    def __init__(self, config, weights):
        weights = {
            name: value.detach().float().clone().requires_grad_(is_trained(name))
            for name, value in weights.items()
        }
        super().__init__(config, weights)
        trained = {k: v.detach() for k, v in self.weights.items() if is_trained(k)}
        self.step = 0
        self.first_moment = {name: torch.zeros_like(value) for name, value in trained.items()}
        self.second_moment = {name: torch.zeros_like(value) for name, value in trained.items()}
        self.ema = {name: value.clone() for name, value in trained.items()}

    # The ACT wrapper

    def initial_carry(self, batch):
        """A carry in which every row has halted, so that the first step loads the batch."""
        size, length = batch["inputs"].shape
        states = STATES[self.config["name"]]
        shape = (size, prefix_length(self.config) + length, self.config["hidden_size"])
        return {
            "states": {name: torch.zeros(shape).to(self.dtype) for name in states},
            "steps": torch.zeros(size, dtype=torch.int32),
            "halted": torch.ones(size, dtype=torch.bool),
            "batch": {name: torch.zeros_like(value) for name, value in batch.items()},
        }

    def forward(self, carry, batch, training):
        """One supervision step."""
        fresh, states, current = carry["halted"], {}, {}
        for name, old in carry["states"].items():
            states[name] = torch.where(fresh[:, None, None], self.initial(name), old)
        for name, old in carry["batch"].items():
            rows = fresh.view(-1, *[1] * (old.ndim - 1))
            current[name] = torch.where(rows, batch[name], old)
        steps = torch.where(fresh, 0, carry["steps"]) + 1

        states, logits, q_halt, q_continue = self.one_pass(states, current)
        outputs = {"logits": logits, "q_halt_logits": q_halt, "q_continue_logits": q_continue}
        last = steps >= self.config["halt_max_steps"]
        halted = last
        if training and self.config["halt_max_steps"] > 1:
            two_heads = self.config["name"] in ("hrm", "transformers_baseline")
            two_heads = two_heads or not self.config["no_ACT_continue"]
            halted = last | (q_halt > (q_continue if two_heads else 0))
            if two_heads and self.config["name"] != "transformers_baseline":
                with torch.no_grad():
                    _, _, next_halt, next_continue = self.one_pass(states, current)
                    best = torch.where(last, next_halt, torch.maximum(next_halt, next_continue))
                outputs["target_q_continue"] = torch.sigmoid(best)
        return {"states": states, "steps": steps, "halted": halted, "batch": current}, outputs

    # Optimisation

    def train_step(self, carry, batch, hyper):
        """One optimisation step: (carry, loss, metrics, outputs, gradients).

        The gradients are those of loss / batch size, `puzzle_emb.weights` included (dense, summed
        over rows with equal identifiers).
        """
        names = [n for n in self.weights if is_trained(n) or n == "puzzle_emb.weights"]
        for name in names:
            self.weights[name].requires_grad_(True)
        carry, outputs = self.forward(carry, batch, training=True)
        loss, metrics = loss_and_metrics(carry, outputs, hyper.get("loss", STABLEMAX))
        parameters = [self.weights[name] for name in names]
        gradients = torch.autograd.grad(loss / len(batch["inputs"]), parameters)
        gradients = dict(zip(names, gradients, strict=True))

        self.step += 1
        with torch.no_grad():
            for name in names:
                if name == "puzzle_emb.weights":
                    self.sign_sgd(gradients[name], carry["batch"]["puzzle_identifiers"], hyper)
                else:
                    self.adam_atan2(name, gradients[name], hyper)
                    rate = hyper["ema_rate"]
                    self.ema[name] = rate * self.ema[name] + (1 - rate) * self.weights[name]
        if "puzzle_emb.weights" in names:
            self.weights["puzzle_emb.weights"].requires_grad_(False)
        outputs = {name: value.detach() for name, value in outputs.items()}
        gradients = {name: value.numpy() for name, value in gradients.items()}
        return carry, loss.detach(), metrics, outputs, gradients

    def sign_sgd(self, gradient, identifiers, hyper):
        """Decay and move by the sign of the gradient, for the rows of the batch only."""
        lr = scheduled(hyper["puzzle_emb_lr"], self.step, hyper)
        table = self.weights["puzzle_emb.weights"]
        for row in sorted(set(identifiers.tolist())):
            table[row] *= 1 - lr * hyper["puzzle_emb_weight_decay"]
            table[row] = torch.add(table[row], gradient[row].sign(), alpha=-lr)

    def adam_atan2(self, name, gradient, hyper):
        """Adam with atan2 in place of the division: no epsilon."""
        lr = scheduled(hyper["lr"], self.step, hyper)
        beta1, beta2 = hyper["beta1"], hyper["beta2"]
        parameter, m, v = self.weights[name], self.first_moment[name], self.second_moment[name]
        parameter *= 1 - lr * hyper["weight_decay"]
        m.lerp_(gradient, 1 - beta1)
        v.lerp_(gradient.square(), 1 - beta2)
        update = torch.atan2(m, v.sqrt() / math.sqrt(1 - beta2**self.step))
        parameter.add_(update, alpha=-lr / (1 - beta1**self.step))


def random_weights(config, seed):
    """Weights of the right shapes under the published names, all random so that all matter."""
    generator = torch.Generator().manual_seed(seed)
    width, vocabulary = config["hidden_size"], config["vocab_size"]
    length = prefix_length(config) + config["seq_len"]
    inner = config["num_heads"] * (width // config["num_heads"])
    weights = {}

    def normal(name, *shape, std):
        weights[name] = std * torch.randn(shape, generator=generator)

    def swiglu(name, size, scale):
        hidden = math.ceil(round(config["expansion"] * size * 2 / 3) / 256) * 256
        normal(name + ".gate_up_proj.weight", 2 * hidden, size, std=size**-0.5)
        normal(name + ".down_proj.weight", size, hidden, std=scale * hidden**-0.5)

    for state in STATES[config["name"]]:
        normal(state.removeprefix("z_") + "_init", width, std=1)
    normal("embed_tokens.embedding_weight", vocabulary, width, std=width**-0.5)
    normal("lm_head.weight", vocabulary, width, std=width**-0.5)
    normal("q_head.weight", 2, width, std=width**-0.5)
    normal("q_head.bias", 2, std=0.5)
    if config["puzzle_emb_ndim"] > 0:
        count = config["num_puzzle_identifiers"]
        normal("puzzle_emb.weights", count, config["puzzle_emb_ndim"], std=width**-0.5)
    if config["pos_encodings"] == "learned":
        normal("embed_pos.embedding_weight", length, width, std=width**-0.5)
    for level in LEVELS[config["name"]]:
        for index in range(config[level[0] + "_layers"]):
            layer = f"{level}.layers.{index}"
            if config.get("mlp_t", False):
                swiglu(layer + ".mlp_t", length, 0.3)  # token mixing is chaotic at full size
            else:
                normal(layer + ".self_attn.qkv_proj.weight", 3 * inner, width, std=width**-0.5)
                normal(layer + ".self_attn.o_proj.weight", width, inner, std=inner**-0.5)
            swiglu(layer + ".mlp", width, 1.0)
    return weights


def perturbed(weights, scale=1e-7, seed=0):
    """Every weight changed by `scale` of itself, to measure how far the oracle itself strays."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value.detach() * (1 + scale * torch.randn(value.shape, generator=generator))
        for name, value in weights.items()
    }
