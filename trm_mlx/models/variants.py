"""The five published variants as data, and how deep a run recurses at a step.

A sixth variant is one more function here and one YAML file.
"""

import dataclasses
import math
from collections.abc import Callable

from trm_mlx.config import ArchConfig
from trm_mlx.errors import InputError
from trm_mlx.models.recursion import INPUT, Recursion, Update

HIERARCHY = tuple(f"z_L{i}" for i in range(1, 7))


def trm(arch: ArchConfig) -> Recursion:
    """Tiny Recursive Model (arXiv 2510.04871): one net, a reasoning and an answer state."""
    think = Update("z_L", ("z_L",), ("z_H", INPUT))
    answer = Update("z_H", ("z_H",), ("z_L",))
    cycle = (think,) * arch.L_cycles + (answer,)
    return Recursion(cycle, arch.H_cycles, grad_updates=len(cycle), readout="z_H")


def trm_singlez(arch: ArchConfig) -> Recursion:
    """TRM with one state that both reasons and answers."""
    think, answer = Update("z_L", ("z_L",), (INPUT,)), Update("z_L", ("z_L",))
    cycle = (think,) * arch.L_cycles + (answer,)
    return Recursion(cycle, arch.H_cycles, grad_updates=len(cycle), readout="z_L")


def trm_hier6(arch: ArchConfig) -> Recursion:
    """TRM with six reasoning states, updated in turn from the sum of all six."""
    if arch.L_cycles > len(HIERARCHY):
        raise InputError(
            f"arch.L_cycles={arch.L_cycles}: trm_hier6 has {len(HIERARCHY)} reasoning states; "
            f"set arch.L_cycles to at most {len(HIERARCHY)}"
        )
    think = tuple(Update(z, HIERARCHY, ("z_H", INPUT)) for z in HIERARCHY[: arch.L_cycles])
    cycle = (*think, Update("z_H", ("z_H",), HIERARCHY))
    return Recursion(cycle, arch.H_cycles, grad_updates=len(cycle), readout="z_H")


def hrm(arch: ArchConfig) -> Recursion:
    """Hierarchical Reasoning Model (arXiv 2506.21734): two nets, one-step gradient."""
    think = Update("z_L", ("z_L",), ("z_H", INPUT))
    answer = Update("z_H", ("z_H",), ("z_L",), net="H_level")
    cycle = (think,) * arch.L_cycles + (answer,)
    return Recursion(cycle, arch.H_cycles, grad_updates=2, readout="z_H")


def transformers_baseline(arch: ArchConfig) -> Recursion:
    """A plain transformer, applied once per supervision step."""
    cycle = (Update("z_H", ("z_H",), (INPUT,), net="H_level"),)
    return Recursion(cycle, 1, grad_updates=1, readout="z_H")


VARIANTS: dict[str, Callable[[ArchConfig], Recursion]] = {
    function.__name__: function
    for function in (trm, trm_singlez, trm_hier6, hrm, transformers_baseline)
}

# A curriculum of depth, after CGAR (arXiv 2511.08653): a run begins with fewer cycles, which cost
# less. Evaluation is always at full depth.
FRACTIONS = (0.3, 0.6)  # of the steps, after which a run goes deeper


def deepenings(total_steps: int) -> list[int]:
    """Return the steps after which a run goes deeper, each time by a third."""
    return [math.ceil(fraction * total_steps) for fraction in FRACTIONS]


def recursion_at(arch: ArchConfig, step: int, total_steps: int) -> Recursion:
    """Return the recursion of a training step, counted from 0; fractions of cycles round up."""
    thirds = 1 + sum(step >= start for start in deepenings(total_steps))
    cycles = {name: -(-getattr(arch, name) * thirds // 3) for name in ("H_cycles", "L_cycles")}
    return VARIANTS[arch.name](dataclasses.replace(arch, **cycles))
