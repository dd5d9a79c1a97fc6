"""A curriculum of depth: a run begins with fewer cycles, which cost less.

After CGAR (arXiv 2511.08653), whose fractions these are. Evaluation is always at full depth.
"""

import dataclasses
import math

from trm_mlx.config import ArchConfig
from trm_mlx.models.recursion import Recursion
from trm_mlx.models.variants import VARIANTS

FRACTIONS = (0.3, 0.6)  # of the steps, after which a run goes deeper


def deepenings(total_steps: int) -> list[int]:
    """Return the steps after which a run goes deeper, each time by a third."""
    return [math.ceil(fraction * total_steps) for fraction in FRACTIONS]


def recursion_at(arch: ArchConfig, step: int, total_steps: int) -> Recursion:
    """Return the recursion of a training step, counted from 0; fractions of cycles round up."""
    thirds = 1 + sum(step >= start for start in deepenings(total_steps))
    cycles = {name: -(-getattr(arch, name) * thirds // 3) for name in ("H_cycles", "L_cycles")}
    return VARIANTS[arch.name](dataclasses.replace(arch, **cycles))
