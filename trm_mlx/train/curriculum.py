"""A curriculum of depth: a run begins with fewer cycles, which cost less.

After CGAR (arXiv 2511.08653), whose shares these are. Evaluation is always at full depth.
"""

import dataclasses

from trm_mlx.config import ArchConfig
from trm_mlx.models.recursion import Recursion
from trm_mlx.models.variants import VARIANTS

THIRDS = ((0.3, 1), (0.6, 2), (1.0, 3))  # until this share of the steps, so many of the cycles


def recursion_at(arch: ArchConfig, step: int, total_steps: int) -> Recursion:
    """What a training step does, the first being 0; shares of cycles are rounded up."""
    thirds = next((part for share, part in THIRDS if step < share * total_steps), 3)
    cycles = {name: -(-getattr(arch, name) * thirds // 3) for name in ("H_cycles", "L_cycles")}
    return VARIANTS[arch.name](dataclasses.replace(arch, **cycles))
