"""The curriculum of depth: how deep a step is, in a run, and that evaluation is always whole."""

import pytest
from runs import ARCH, arrays_of, assert_same, config, take_steps

from trm_mlx.cli import main
from trm_mlx.config_io import arch_config
from trm_mlx.errors import InputError
from trm_mlx.models.variants import recursion_at
from trm_mlx.run.trainer import Trainer

DEEP = {"H_cycles": 3, "L_cycles": 6}
STAGES = {0: (1, 2), 3: (1, 2), 4: (2, 4), 7: (2, 4), 8: (3, 6), 11: (3, 6)}  # of 12 steps


@pytest.mark.parametrize(("step", "cycles"), STAGES.items())
def test_depth_grows_with_the_steps(step, cycles):
    recursion = recursion_at(arch_config("trm", **DEEP), step, 12)
    assert (recursion.cycles, len(recursion.cycle) - 1) == cycles


@pytest.mark.parametrize("variant", ["trm", "trm_singlez", "hrm"])
@pytest.mark.parametrize("step", [0, 5, 11])
def test_cycles_that_cannot_be_parted_are_rounded_up(variant, step):
    arch = arch_config(variant, H_cycles=2, L_cycles=1)
    expected = {0: 1, 5: 2, 11: 2}[step]
    assert recursion_at(arch, step, 12).cycles == expected


@pytest.mark.parametrize("compiled", ["false", "true"])
def test_a_run_begins_as_a_shallow_one_and_evaluates_as_a_deep_one(data, tmp_path, compiled):
    growing, shallow = (
        Trainer(config(data, tmp_path / "r", arch, depth_curriculum=grows, compile=compiled))
        for grows, arch in ((True, DEEP), (False, {"H_cycles": 1, "L_cycles": 2}))
    )
    whole = growing.model.recursion
    take_steps(growing, 4)
    take_steps(shallow, 4)
    assert_same(arrays_of(growing), arrays_of(shallow))
    take_steps(growing, 1)
    take_steps(shallow, 1)
    ((state, after),) = (
        (name, array) for name, array in arrays_of(growing).items() if name.endswith("states.z_H")
    )
    changed = after != arrays_of(shallow)[state]
    assert changed.any(), "the fifth step is as shallow as the fourth"
    assert growing.model.recursion == whole


def test_the_command_says_when_a_run_goes_deeper(data, tmp_path, capsys):
    sizes = [f"arch.{name}={value}" for name, value in {**ARCH, **DEEP}.items() if name != "name"]
    words = [f"data_paths=[{data}]", "epochs=4", "eval_interval=4", "global_batch_size=8", *sizes]
    words += [f"checkpoint_path={tmp_path / 'r'}", "depth_curriculum=true"]
    assert main(["train", *words]) == 0
    assert "two thirds after 4 steps, all after 8" in capsys.readouterr().err


@pytest.mark.parametrize("variant", ["trm_hier6", "transformers_baseline"])
def test_variants_without_cycles_to_spare(variant):
    with pytest.raises(InputError, match=f"depth_curriculum=true: arch={variant} cannot recurse"):
        config("", arch={"name": variant, "H_layers": 1}, depth_curriculum=True)
