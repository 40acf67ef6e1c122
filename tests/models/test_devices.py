"""Peaks of GPUs are known by their exact names, or not at all."""

from __future__ import annotations

import pytest

from scalesweep.models.devices import peak_bf16_flops


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989.4),
        ("NVIDIA A10G", 70),
        ("NVIDIA L40S", 362.05),
        ("NVIDIA GeForce RTX 4090", 165.2),
    ],
)
def test_gpus_are_known_as_torch_names_them(name: str, teraflops: float) -> None:
    assert peak_bf16_flops(name) == pytest.approx(teraflops * 1e12)


@pytest.mark.parametrize(
    "name", ["", "cpu", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA H100", "Tesla V100-SXM2-32GB"]
)
def test_a_gpu_of_another_name_has_no_peak(name: str) -> None:
    assert peak_bf16_flops(name) is None
