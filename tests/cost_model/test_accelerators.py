"""Devices by the names that clusters give them."""

from __future__ import annotations

import pytest
import yaml

from scalesweep.config.paths import conf_dir
from scalesweep.cost_model.accelerators import accelerator
from scalesweep.errors import PlanError


def test_every_cluster_that_is_shipped_names_a_known_device() -> None:
    devices = {
        yaml.safe_load(path.read_text())["device"] for path in (conf_dir() / "cluster").glob("*")
    }

    assert len(devices - {None}) >= 2
    for device in devices - {None}:
        assert accelerator(device).peak_flops > 0


def test_a_gpu_is_known_by_its_short_name_and_by_torchs() -> None:
    assert accelerator("A100-80GB").peak_flops == 312e12
    assert accelerator("NVIDIA H100 80GB HBM3") == accelerator("H100-80GB")


def test_fp32_is_a_sixteenth_on_a_gpu_and_the_same_on_a_cpu() -> None:
    assert accelerator("A100-80GB").flops("fp32") == 19.5e12
    assert accelerator("cpu").flops("fp32") == accelerator("cpu").flops("bf16")


def test_of_an_unknown_gpu_nothing_is_guessed() -> None:
    with pytest.raises(PlanError, match=r"cluster\.device=A100-80G: .*name one of A100-80GB"):
        accelerator("A100-80G")
