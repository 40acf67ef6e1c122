"""Accelerators by the name that a cluster's configuration gives them (cluster.device).

A prediction needs the peak of a named GPU: of one that is not here nothing is guessed.
"""

from __future__ import annotations

from dataclasses import dataclass

from scalesweep.errors import PlanError
from scalesweep.models.devices import peak_bf16_flops

CPU = "cpu"
# What one rank of the miniature reaches in fp32 on one core of a current server, its share of
# Python included: by the demo 8 to 34 GFLOP/s in training, the more the larger the model, and 6 to
# 15 in answering. Only where nothing was measured yet (benchmarks/predictions.py compares).
CPU_RANK_FLOPS = 12e9
# Products of fp32 inputs without tensor cores: 19.5 of 312 (NVIDIA A100 data sheet); later cards
# are within a tenth of that ratio or better.
FP32_SHARE = 1 / 16


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """Peaks of one device, from its maker's data sheet."""

    name: str
    peak_flops: float
    """FLOP/s, dense, bf16 inputs; of a CPU what one rank reaches."""
    bandwidth: float
    """Bytes/s of its own memory; infinite where answering is not bound by it (a CPU)."""

    @property
    def is_cpu(self) -> bool:
        return self.name == CPU

    def flops(self, precision: str) -> float:
        """FLOP/s at most in "bf16" or "fp32"."""
        if self.is_cpu or precision != "fp32":
            return self.peak_flops
        return self.peak_flops * FP32_SHARE


# Name -> (as torch calls it: models/devices.py has its peak, bytes/s of its memory by the same data
# sheets).
_GPUS = {
    "A100-80GB": ("A100-SXM4-80GB", 2.039e12),
    "A100-40GB": ("A100-SXM4-40GB", 1.555e12),
    "A100-PCIE-80GB": ("A100 80GB PCIe", 1.935e12),
    "A100-PCIE-40GB": ("A100-PCIE-40GB", 1.555e12),
    "H100-80GB": ("H100 80GB HBM3", 3.35e12),
    "H100-PCIE-80GB": ("H100 PCIe", 2.0e12),
    "H200": ("H200", 4.8e12),
    "B200": ("B200", 8.0e12),
    "A10": ("A10", 600e9),
    "A10G": ("A10G", 600e9),
    "A40": ("A40", 696e9),
    "L4": ("L4", 300e9),
    "L40S": ("L40S", 864e9),
    "RTX-3090": ("GeForce RTX 3090", 936e9),
    "RTX-4090": ("GeForce RTX 4090", 1008e9),
}
_BY_TORCH_NAME = {torch: name for name, (torch, _) in _GPUS.items()}


def accelerator(name: str) -> Accelerator:
    """Of cluster.device: a name above, what torch calls a card, or "cpu".

    Raises:
        PlanError: it is not known; with those that are.
    """
    if name == CPU:
        return Accelerator(name=CPU, peak_flops=CPU_RANK_FLOPS, bandwidth=float("inf"))
    asked = _BY_TORCH_NAME.get(name.strip().removeprefix("NVIDIA "), name)
    if asked not in _GPUS:
        raise PlanError(
            f"cluster.device={name}: nothing is known of such a device, so no time or price can be "
            f"predicted; name one of {', '.join(_GPUS)} or cpu, or set cluster.device=null to go "
            "without predictions"
        )
    torch_name, bandwidth = _GPUS[asked]
    peak = peak_bf16_flops(torch_name)
    assert peak is not None, torch_name
    return Accelerator(name=asked, peak_flops=peak, bandwidth=bandwidth)
