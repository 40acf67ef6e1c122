"""MFU and FLOP/s of a step, by hand."""

from __future__ import annotations

import pytest
import torch

from scalesweep.models.flops import Work, model_flops
from scalesweep.specs import Method, Precision
from scalesweep.train.utilisation import peak_flops, utilisation
from tests.train.small_stages import training_spec

WORK = Work.of([30, 20], num_supervised=9, num_pictures=1)


def test_mfu_is_a_share_of_what_all_devices_could_have_done() -> None:
    spec = training_spec(Method.lora)
    flops = model_flops(spec, WORK)

    row = utilisation(spec, WORK, 0.5, num_devices=4, peak_flops=flops * 2.0)

    # In half a second four devices could have done 4 x 0.5 x 2 times as much.
    assert row["mfu"] == pytest.approx(1 / 4)
    assert row["model_tflops_per_second"] == pytest.approx(flops / 0.5 / 1e12, rel=1e-3)


def test_a_device_that_is_not_known_has_no_mfu() -> None:
    row = utilisation(training_spec(Method.full), WORK, 0.5, num_devices=1, peak_flops=None)

    assert set(row) == {"model_tflops_per_second"}


def test_a_cpu_and_fp32_have_no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100 80GB HBM3")
    gpu = torch.device("cuda")

    assert peak_flops(Precision.bf16, gpu) == 989.4e12
    assert peak_flops(Precision.fp32, gpu) is None
    assert peak_flops(Precision.bf16, torch.device("cpu")) is None
