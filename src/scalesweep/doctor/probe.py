"""What the training packages say of this machine, one JSON line each as soon as it is known.

    python -m scalesweep.doctor.probe

A process of its own: the command line imports no torch, and a package that crashes when it is
imported must not take the doctor with it. What was begun and never ended is what crashed.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Any

from scalesweep.doctor.findings import Finding, State

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "deepspeed")
INSTALL = "pip install 'scalesweep[train]'"
TIMEOUT_S = 300


# ---------------------------------------------------------------- the asking side


def probe_findings() -> list[Finding]:
    """What the probe said; that it crashed, and at what, where it did."""
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "scalesweep.doctor.probe"],
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        output, how = ended.stdout, f"ended with status {ended.returncode}"
        crashed = ended.returncode != 0
    except subprocess.TimeoutExpired as late:
        output = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
        how, crashed = f"did not end within {TIMEOUT_S} s", True
    return read_lines(output.splitlines(), crash=how if crashed else None)


def read_lines(lines: list[str], *, crash: str | None) -> list[Finding]:
    """Findings of a probe's lines. crash: how it ended, where not well."""
    findings: list[Finding] = []
    begun = ""
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError, TypeError, KeyError, ValueError):
            said = json.loads(line)
            if "begun" in said:
                begun = said["begun"]
            else:
                findings.append(Finding(**{**said, "state": State(said["state"])}))
                begun = ""
    if crash is not None:
        findings.append(
            Finding(
                name=begun or "probe",
                value=crash,
                state=State.broken,
                way_out=f"its installation is broken; {INSTALL}",
            )
        )
    return findings


# ---------------------------------------------------------------- the process that imports


def main() -> int:
    warnings.simplefilter("ignore")
    there = {}
    for name in PACKAGES:
        there[name] = tell(name, lambda name=name: package(name))  # type: ignore[misc]
    if there["torch"]:
        for title, look in LOOKS.items():
            tell(title, look)
        if there["bitsandbytes"]:
            tell("4-bit weights", four_bit)
    return 0


def tell(name: str, look: Callable[[], Finding]) -> bool:
    """Print what look() finds; whether it is not broken."""
    print(json.dumps({"begun": name}), flush=True)
    try:
        with _silenced():
            finding = look()
    except Exception as error:  # whatever a package raises is what there is to say
        said = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        finding = Finding(name=name, value=said, state=State.broken, way_out=INSTALL)
    print(json.dumps(finding.to_json()), flush=True)
    return finding.state is not State.broken


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Packages print when they are imported; lines here are for the doctor."""
    saved = os.dup(1)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def package(name: str) -> Finding:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(name=name, value="not installed", state=State.broken, way_out=INSTALL)
    if name == "deepspeed":
        os.environ.setdefault("DS_ACCELERATOR", "cpu" if not _has_cuda() else "cuda")
    try:
        importlib.import_module(name)
    except Exception as error:
        return Finding(
            name=name,
            value=f"{version}, cannot be imported ({type(error).__name__}: {error})",
            state=State.broken,
            way_out=INSTALL,
            facts={"version": version},
        )
    return Finding(name=name, value=version, facts={"version": version})


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def devices() -> Finding:
    import torch

    from scalesweep.models.devices import peak_bf16_flops

    if not torch.cuda.is_available():
        return Finding(
            name="devices",
            value=f"no GPU: {torch.get_num_threads()} CPU threads",
            facts={"gpus": []},
        )
    gpus: list[dict[str, Any]] = []
    for i in range(torch.cuda.device_count()):
        seen = torch.cuda.get_device_properties(i)
        gpus.append(
            {
                "name": seen.name,
                "memory": seen.total_memory,
                "capability": [seen.major, seen.minor],
                "peak_bf16_flops": peak_bf16_flops(seen.name),
            }
        )
    kinds: dict[str, int] = {}
    for gpu in gpus:
        text = (
            f"{gpu['name']}, {gpu['memory'] / 2**30:.0f} GiB, capability "
            f"{gpu['capability'][0]}.{gpu['capability'][1]}"
        )
        kinds[text] = kinds.get(text, 0) + 1
    unknown = [gpu["name"] for gpu in gpus if gpu["peak_bf16_flops"] is None]
    return Finding(
        name="devices",
        value="; ".join(f"{count} x {text}" for text, count in kinds.items()),
        state=State.note if unknown else State.well,
        way_out="its peak is not known here, so metrics will have no MFU" if unknown else "",
        facts={"gpus": gpus},
    )


def dtypes() -> Finding:
    """Matrix products in both, measured: a CPU without bf16 arithmetic takes a hundredfold."""
    import torch

    if torch.cuda.is_available():
        able = torch.cuda.is_bf16_supported()
        said = "supported; recipes of full-size models take it" if able else "not supported here"
        return Finding(
            name="bf16",
            value=said,
            state=State.well if able else State.note,
            way_out="" if able else "take precision=fp32",
            facts={"supported": able},
        )
    speeds = {str(dtype): _flops(dtype) for dtype in (torch.float32, torch.bfloat16)}
    whole, half = speeds["torch.float32"], speeds["torch.bfloat16"]
    slow = half < 0.5 * whole
    return Finding(
        name="bf16",
        value=f"{half / 1e9:.3g} GFLOP/s on this CPU, fp32 {whole / 1e9:.3g}",
        state=State.note if slow else State.well,
        way_out="bf16 is slow here; recipes of full-size models take it: precision=fp32"
        if slow
        else "",
        facts={"bf16_flops": half, "fp32_flops": whole},
    )


def _flops(dtype: Any, *, side: int = 384, seconds: float = 0.3) -> float:
    """Best of a few matrix products."""
    import torch

    a = torch.ones(side, side, dtype=dtype)
    best, until = float("inf"), time.perf_counter() + seconds
    while True:
        begin = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - begin)
        if time.perf_counter() > until:
            return 2 * side**3 / best


def attention() -> Finding:
    import torch

    from scalesweep.models.attention import Kernel, best_kernel

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = {
        str(dtype).removeprefix("torch."): str(best_kernel(device, dtype))
        for dtype in (torch.bfloat16, torch.float32)
    }
    words = ", ".join(f"{kernel} in {dtype}" for dtype, kernel in chosen.items())
    if len(set(chosen.values())) == 1:
        words = f"{chosen['float32']} in every dtype"
    slow = device.type == "cuda" and chosen["bfloat16"] == Kernel.sdpa
    return Finding(
        name="attention",
        value=words,
        state=State.note if slow else State.well,
        way_out="no FlashAttention for packed rows here; a newer torch has one, or flash-attn"
        if slow
        else "",
        facts={"kernels": chosen},
    )


def optimizer() -> Finding:
    """One step of the fused AdamW against one written out."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    steps = []
    for fused in (True, False):
        weight = torch.nn.Parameter(torch.ones(64, device=device))
        weight.grad = torch.linspace(-1, 1, 64, device=device)
        torch.optim.AdamW([weight], lr=0.1, fused=fused, foreach=False).step()
        steps.append(weight.detach())
    same = torch.allclose(steps[0], steps[1], rtol=0, atol=1e-6)
    return Finding(
        name="optimizer",
        value="AdamW, fused" if same else "the fused AdamW gives another step than the plain one",
        state=State.well if same else State.broken,
        way_out="" if same else INSTALL,
        facts={"fused_is_right": same},
    )


def collectives() -> Finding:
    import torch
    import torch.distributed as dist

    there = {"gloo": dist.is_gloo_available(), "nccl": dist.is_nccl_available()}
    cuda = torch.cuda.is_available()
    needed = "nccl" if cuda else "gloo"
    value = f"{needed}" if there[needed] else f"torch was built without {needed}"
    if cuda and there["nccl"]:
        version = torch.cuda.nccl.version()  # type: ignore[no-untyped-call]
        value += " " + ".".join(map(str, version))
    return Finding(
        name="collectives",
        value=value,
        state=State.well if there[needed] else State.broken,
        way_out="" if there[needed] else "install another build of torch",
        facts=there,
    )


def four_bit() -> Finding:
    """A matrix through NF4 and back."""
    import torch

    from scalesweep.models.quantization import dequantized

    weight = torch.randn(128, 128, generator=torch.Generator().manual_seed(1))
    error = float((dequantized(weight) - weight).norm() / weight.norm())
    # 16 levels fitted to a normal distribution: arXiv:2305.14314, section 3; measured 0.094.
    well = error < 0.15
    return Finding(
        name="4-bit weights",
        value=f"NF4 and back loses {error * 100:.0f} % of a random matrix",
        state=State.well if well else State.broken,
        way_out="" if well else f"bitsandbytes computes wrongly here; {INSTALL}",
        facts={"relative_error": error},
    )


LOOKS: Mapping[str, Callable[[], Finding]] = {
    "devices": devices,
    "bf16": dtypes,
    "attention": attention,
    "optimizer": optimizer,
    "collectives": collectives,
}

if __name__ == "__main__":
    sys.exit(main())
