"""How much of its devices a step used."""

from __future__ import annotations

import torch

from scalesweep.models.devices import peak_bf16_flops
from scalesweep.models.flops import Work, mfu, model_flops
from scalesweep.specs import Precision, TrainingSpec
from scalesweep.tracking import metric_names as names


def peak_flops(precision: Precision, device: torch.device) -> float | None:
    """FLOP/s of this rank's device at most, or None where it is not known."""
    if device.type != "cuda" or precision is not Precision.bf16:
        return None
    return peak_bf16_flops(torch.cuda.get_device_name(device))


def utilisation(
    spec: TrainingSpec, work: Work, seconds: float, *, num_devices: int, peak_flops: float | None
) -> dict[str, float]:
    """Metrics of a step that all devices together took so many seconds for."""
    flops = model_flops(spec, work)
    # Four figures: miniatures do a thousandth of what a GPU does.
    row = {names.MODEL_TFLOPS_PER_SECOND: float(f"{flops / seconds / 1e12:.4g}")}
    if peak_flops is not None:
        share = mfu(flops, seconds=seconds, peak_flops=peak_flops, num_devices=num_devices)
        row[names.MFU] = round(share, 4)
    return row
