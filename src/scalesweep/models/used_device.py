"""What a rank computes on."""

from __future__ import annotations

import torch

from scalesweep.models.devices import processor_name


def used_device_name(device: torch.device) -> str:
    """As the driver calls a GPU, or the system its processor."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return processor_name()
