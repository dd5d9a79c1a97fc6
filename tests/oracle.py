"""A plain, slow PyTorch statement of the published recursive reasoning models.

TRM, its single-state and six-state variants, HRM and the transformer baseline, with their adaptive
computation (ACT) wrapper, loss, metrics and optimisation, written out once more so that the MLX
package has something independent to be compared with. It agrees with the traces of the published
code. Exploration is taken to be 0, so nothing here is random except `random_weights`/`perturbed`.
"""

import math

import torch
import torch.nn.functional as F

IGNORE_LABEL = -100
STABLEMAX = "stablemax_cross_entropy"
STATES = {
    "trm": ["z_H", "z_L"],
    "trm_singlez": ["z_L"],
    "trm_hier6": ["z_H", "z_L1", "z_L2", "z_L3", "z_L4", "z_L5", "z_L6"],
    "hrm": ["z_H", "z_L"],
    "transformers_baseline": ["z_H"],
}
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


def prefix_length(config):
    """Positions in front of the answer that hold the puzzle embedding."""
    if config["puzzle_emb_ndim"] == 0:
        return 0
    if config["name"] not in ("hrm", "transformers_baseline") and config.get("puzzle_emb_len", 0):
        return config["puzzle_emb_len"]
    return math.ceil(config["puzzle_emb_ndim"] / config["hidden_size"])


def rms_norm(x):
    """Root mean square normalisation of the last axis, without weight, in float32."""
    x32 = x.float()
    return (x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + 1e-5)).to(x.dtype)


def rotate(x):
    """Rotary position embedding of x [B, heads, L, head_dim], half-split, in float32."""
    length, head_dim = x.shape[-2:]
    frequency = 10000.0 ** (-torch.arange(0, head_dim, 2).float() / head_dim)
    angle = torch.arange(length).float()[:, None] * frequency[None, :]
    cos = torch.cat([angle.cos(), angle.cos()], dim=-1)
    sin = torch.cat([angle.sin(), angle.sin()], dim=-1)
    first, second = x.float().chunk(2, dim=-1)
    return (x.float() * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)


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


class Oracle:
    """One model with its weights, optimiser moments, EMA and step count."""

    def __init__(self, config, weights):
        self.config = config
        self.dtype = getattr(torch, config["forward_dtype"])
        self.weights = {
            name: value.detach().float().clone().requires_grad_(is_trained(name))
            for name, value in weights.items()
        }
        trained = {k: v.detach() for k, v in self.weights.items() if is_trained(k)}
        self.step = 0
        self.first_moment = {name: torch.zeros_like(value) for name, value in trained.items()}
        self.second_moment = {name: torch.zeros_like(value) for name, value in trained.items()}
        self.ema = {name: value.clone() for name, value in trained.items()}

    # The network

    def linear(self, x, name):
        """A linear map without bias, its weight cast to the type of x."""
        return F.linear(x, self.weights[name + ".weight"].to(x.dtype))

    def swiglu(self, x, name):
        """down(silu(gate) * up)."""
        gate, up = self.linear(x, name + ".gate_up_proj").chunk(2, dim=-1)
        return self.linear(F.silu(gate) * up, name + ".down_proj")

    def attention(self, x, name):
        """Non-causal multi-head attention."""
        heads = self.config["num_heads"]
        qkv = self.linear(x, name + ".qkv_proj").unflatten(-1, (3, heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each [B, heads, L, head_dim]
        if self.config["pos_encodings"] == "rope":
            query, key = rotate(query), rotate(key)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.linear(mixed.transpose(1, 2).flatten(-2), name + ".o_proj")

    def level(self, name, hidden, injection):
        """The blocks of one level, applied to the state plus the injected sum."""
        x = hidden + injection
        for index in range(self.config[name[0] + "_layers"]):
            layer = f"{name}.layers.{index}"
            if self.config.get("mlp_t", False):
                x = x.transpose(1, 2)
                x = rms_norm(x + self.swiglu(x, layer + ".mlp_t"))
                x = x.transpose(1, 2)
            else:
                x = rms_norm(x + self.attention(x, layer + ".self_attn"))
            x = rms_norm(x + self.swiglu(x, layer + ".mlp"))
        return x

    def embed(self, batch):
        """Puzzle embedding in front of the token embeddings: [B, P + S, D]."""
        width, prefix = self.config["hidden_size"], prefix_length(self.config)
        table = self.weights["embed_tokens.embedding_weight"].to(self.dtype)
        x = table[batch["inputs"].long()]
        if prefix > 0:
            rows = self.weights["puzzle_emb.weights"][batch["puzzle_identifiers"].long()]
            rows = F.pad(rows.to(self.dtype), (0, prefix * width - rows.shape[-1]))
            x = torch.cat([rows.view(-1, prefix, width), x], dim=1)
        if self.config["pos_encodings"] == "learned":
            x = 0.707106781 * (x + self.weights["embed_pos.embedding_weight"].to(self.dtype))
        return math.sqrt(width) * x

    def net(self, name, hidden, injection, gradient=True):
        """A level that lets gradients through, or not (then its result is a constant)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and gradient):
            return self.level(name, hidden, injection)

    def recur(self, z, x):
        """One recursion of the states z on the embedded input x."""
        variant, H_cycles = self.config["name"], self.config["H_cycles"]
        L_cycles = self.config.get("L_cycles", 0)
        if variant == "trm":
            for cycle in range(H_cycles):
                last = cycle == H_cycles - 1
                for _ in range(L_cycles):
                    z["z_L"] = self.net("L_level", z["z_L"], z["z_H"] + x, last)
                z["z_H"] = self.net("L_level", z["z_H"], z["z_L"], last)
        elif variant == "trm_singlez":
            for cycle in range(H_cycles):
                last = cycle == H_cycles - 1
                for _ in range(L_cycles):
                    z["z_L"] = self.net("L_level", z["z_L"], x, last)
                z["z_L"] = self.net("L_level", z["z_L"], 0, last)
        elif variant == "trm_hier6":
            low = [f"z_L{i}" for i in range(1, 7)]
            for cycle in range(H_cycles):
                last = cycle == H_cycles - 1
                for name in low[:L_cycles]:
                    z[name] = self.net("L_level", sum(z[i] for i in low), z["z_H"] + x, last)
                z["z_H"] = self.net("L_level", z["z_H"], sum(z[i] for i in low), last)
        elif variant == "hrm":
            for H_step in range(H_cycles):
                last = H_step == H_cycles - 1
                for L_step in range(L_cycles):
                    very_last = last and L_step == L_cycles - 1
                    z["z_L"] = self.net("L_level", z["z_L"], z["z_H"] + x, very_last)
                z["z_H"] = self.net("H_level", z["z_H"], z["z_L"], last)
        elif variant == "transformers_baseline":
            z["z_H"] = self.net("H_level", z["z_H"], x)
        return z

    def one_pass(self, states, batch):
        """One recursion with its read-out: new states, answer logits, q_halt, q_continue."""
        states = self.recur(dict(states), self.embed(batch))
        hidden = states["z_L" if self.config["name"] == "trm_singlez" else "z_H"]
        logits = self.linear(hidden, "lm_head")[:, prefix_length(self.config) :]
        bias = self.weights["q_head.bias"].to(hidden.dtype)
        q = (self.linear(hidden[:, 0], "q_head") + bias).float()
        return {k: v.detach() for k, v in states.items()}, logits, q[:, 0], q[:, 1]

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
        for name, old in carry["states"].items():  # z_L1 starts from L1_init
            initial = self.weights[name.removeprefix("z_") + "_init"].to(self.dtype)
            states[name] = torch.where(fresh[:, None, None], initial, old)
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
