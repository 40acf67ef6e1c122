"""Peak arithmetic of GPUs by name; one that is not here has no MFU, since a guess would be wrong.

Dense products of bf16 inputs summed in fp32, without sparsity, at the boost clock.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

PEAK_BF16_FLOPS: dict[str, float] = {
    # NVIDIA A100 data sheet (June 2021): 312 TFLOPS for PCIe and SXM, 40 and 80 GB alike.
    "A100-SXM4-40GB": 312e12,
    "A100-SXM4-80GB": 312e12,
    "A100-PCIE-40GB": 312e12,
    "A100 80GB PCIe": 312e12,
    # NVIDIA H100 architecture white paper v1.04, table 3: SXM5 989.4, PCIe 756.
    "H100 80GB HBM3": 989.4e12,
    "H100 PCIe": 756e12,
    # NVIDIA H200 data sheet: 1,979 with sparsity, the same chip as the H100 SXM5.
    "H200": 989.4e12,
    # NVIDIA HGX B200 data sheet: 36 PFLOPS of 8 with sparsity, half of it dense.
    "B200": 2250e12,
    # NVIDIA A10 data sheet. The A10G of AWS has another (NVIDIA AWS A10G data sheet, 2022).
    "A10": 125e12,
    "A10G": 70e12,
    # NVIDIA A40 data sheet.
    "A40": 149.7e12,
    # NVIDIA L4 data sheet (242 with sparsity) and L40S data sheet (362.05 dense).
    "L4": 121e12,
    "L40S": 362.05e12,
    # NVIDIA GA102 white paper v2, appendix A; Ada white paper v2.1, appendix A. Consumer cards sum
    # in fp32 at half the rate of fp16.
    "GeForce RTX 3090": 71e12,
    "GeForce RTX 4090": 165.2e12,
}
"""torch.cuda.get_device_name() without "NVIDIA " -> FLOP/s"""


def peak_bf16_flops(name: str) -> float | None:
    """FLOP/s that a GPU of this name can reach at most, or None where it is not known.

    Names must be equal: a part of an A100 ("A100-SXM4-40GB MIG 1g.5gb") is not one.
    """
    return PEAK_BF16_FLOPS.get(name.strip().removeprefix("NVIDIA "))


@cache
def processor_name() -> str:
    """What this machine's processor calls itself; its architecture where it has no name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.machine()
