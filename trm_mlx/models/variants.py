"""The five published variants as data. A sixth is one more function here and one YAML file."""

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
