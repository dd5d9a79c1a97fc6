"""The published models in PyTorch: a plain, slow reference with literal loops.

``--verify`` and the tests compare the MLX models with it, so it shares no code with them. It holds
the network alone, one supervision step up to its heads; ``tests/oracle.py`` adds the training.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

STATES = {
    "trm": ["z_H", "z_L"],
    "trm_singlez": ["z_L"],
    "trm_hier6": ["z_H", "z_L1", "z_L2", "z_L3", "z_L4", "z_L5", "z_L6"],
    "hrm": ["z_H", "z_L"],
    "transformers_baseline": ["z_H"],
}


def prefix_length(config: Mapping[str, Any]) -> int:
    """The number of positions in front of the answer that hold the puzzle embedding."""
    if config["puzzle_emb_ndim"] == 0:
        return 0
    return config.get("puzzle_emb_len") or math.ceil(
        config["puzzle_emb_ndim"] / config["hidden_size"]
    )


def rms_norm(x: Tensor) -> Tensor:
    """Root mean square normalisation of the last axis, without weight, in float32."""
    x32 = x.float()
    return (x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + 1e-5)).to(x.dtype)


def angles(config: Mapping[str, Any], length: int, head_dim: int) -> Tensor:
    """The angles [L, head_dim / 2] that rotary positions turn by."""
    frequency = 10000.0 ** (-torch.arange(0, head_dim, 2).float() / head_dim)
    place = torch.arange(length)
    if config["pos_encodings"] == "rope":
        return place.float()[:, None] * frequency[None, :]
    prefix = prefix_length(config)
    side = math.isqrt(length - prefix)
    cell = (place - prefix).clamp(min=0)
    both = torch.stack([cell // side, cell % side], dim=1).float()
    return (both[:, :, None] * frequency[: head_dim // 4]).flatten(1)


def rotate(x: Tensor, angle: Tensor) -> Tensor:
    """Rotary position embedding of x [B, heads, L, head_dim], half-split, in float32."""
    cos = torch.cat([angle.cos(), angle.cos()], dim=-1)
    sin = torch.cat([angle.sin(), angle.sin()], dim=-1)
    first, second = x.float().chunk(2, dim=-1)
    return (x.float() * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)


class TorchModel:
    """The network of one variant.

    Args:
        config: the fields of a ``ModelConfig``, in the published spelling.
        weights: float32 tensors under the published names, without prefix.
    """

    def __init__(self, config: Mapping[str, Any], weights: dict[str, Tensor]):
        self.config = config
        self.weights = weights
        self.dtype = getattr(torch, config["forward_dtype"])

    def linear(self, x: Tensor, name: str) -> Tensor:
        """A linear map without bias, its weight cast to the type of x."""
        return F.linear(x, self.weights[name + ".weight"].to(x.dtype))

    def swiglu(self, x: Tensor, name: str) -> Tensor:
        """down(silu(gate) * up)."""
        gate, up = self.linear(x, name + ".gate_up_proj").chunk(2, dim=-1)
        return self.linear(F.silu(gate) * up, name + ".down_proj")

    def attention(self, x: Tensor, name: str) -> Tensor:
        """Non-causal multi-head attention."""
        heads = self.config["num_heads"]
        qkv = self.linear(x, name + ".qkv_proj").unflatten(-1, (3, heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each [B, heads, L, head_dim]
        if self.config["pos_encodings"] in ("rope", "rope2d"):
            angle = angles(self.config, *query.shape[-2:])
            query, key = rotate(query, angle), rotate(key, angle)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.linear(mixed.transpose(1, 2).flatten(-2), name + ".o_proj")

    def level(self, name: str, hidden: Tensor, injection: Tensor | int) -> Tensor:
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

    def embed(self, batch: Mapping[str, Tensor]) -> Tensor:
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

    def net(
        self, name: str, hidden: Tensor, injection: Tensor | int, gradient: bool = True
    ) -> Tensor:
        """Apply a level, with or without gradient."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and gradient):
            return self.level(name, hidden, injection)

    def recur(self, z: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
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

    def initial(self, state: str) -> Tensor:
        """The initial value of a state, [D]: L1_init for z_L1."""
        return self.weights[state.removeprefix("z_") + "_init"].to(self.dtype)

    def one_pass(
        self, states: dict[str, Tensor], batch: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
        """Run one recursion: returns new states, answer logits, q_halt and q_continue."""
        states = self.recur(dict(states), self.embed(batch))
        hidden = states["z_L" if self.config["name"] == "trm_singlez" else "z_H"]
        logits = self.linear(hidden, "lm_head")[:, prefix_length(self.config) :]
        bias = self.weights["q_head.bias"].to(hidden.dtype)
        q = (self.linear(hidden[:, 0], "q_head") + bias).float()
        return {k: v.detach() for k, v in states.items()}, logits, q[:, 0], q[:, 1]

    def first_step(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits [B, S, V] and q [B, 2] after one supervision step from the initial states."""
        rows, length = batch["inputs"].shape
        shape = (rows, prefix_length(self.config) + length, self.config["hidden_size"])
        states = {name: self.initial(name).expand(shape) for name in STATES[self.config["name"]]}
        with torch.no_grad():
            _, logits, q_halt, q_continue = self.one_pass(states, batch)
        return logits, torch.stack([q_halt, q_continue], dim=-1)
