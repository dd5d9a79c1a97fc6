"""The configuration a published run saves beside its weights, ``all_config.yaml``."""

import dataclasses
import re
from pathlib import Path
from typing import Any

from trm_mlx.config import ArchConfig
from trm_mlx.errors import InputError, shortened
from trm_mlx.yaml_file import read_yaml

# Constants here, options there: another value is another model.
CONSTANTS = {"rope_theta": 10000, "rms_norm_eps": 1e-5}


def read_published_config(path: Path) -> dict[str, Any]:
    """The architecture fields of ``all_config.yaml``; the dtype is left to the machine.

    Raises:
        InputError: no such file, or an architecture that there is none of here.
    """
    arch = read_yaml(path).get("arch")
    if not isinstance(arch, dict):
        raise InputError(f"{path} has no arch section")
    for name, value in CONSTANTS.items():
        if str(arch.get(name, value)) not in (str(value), str(float(value))):
            raise InputError(f"{path}: arch.{name}={shortened(arch[name])}; ours is always {value}")
    known = {field.name for field in dataclasses.fields(ArchConfig)} - {"forward_dtype", "name"}
    chosen = {key: value for key, value in arch.items() if key in known}
    match = re.match(r"recursive_reasoning\.(\w+)@", str(arch.get("name")))
    if match:
        chosen["name"] = match.group(1)
    return chosen
