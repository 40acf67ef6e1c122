"""What the training packages say of this machine; none of them takes the doctor with it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from scalesweep.doctor import probe
from scalesweep.doctor.findings import Finding, State


def test_a_package_that_crashes_is_blamed_by_what_was_begun() -> None:
    lines = [
        json.dumps({"begun": "torch"}),
        json.dumps(Finding(name="torch", value="2.13").to_json()),
        json.dumps({"begun": "bitsandbytes"}),
    ]

    found = probe.read_lines(lines, crash="ended with status -11")

    assert [finding.name for finding in found] == ["torch", "bitsandbytes"]
    assert found[0].state is State.well
    assert found[1].value == "ended with status -11"
    assert found[1].state is State.broken


def test_lines_that_are_none_of_ours_are_left_out() -> None:
    assert probe.read_lines(["Setting ds_accelerator", "[1]", "{}"], crash=None) == []


@pytest.fixture
def broken_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Installed, and its import raises."""
    (tmp_path / "brokenpackage.py").write_text("raise RuntimeError('libcudart.so.9 is missing')")
    info = tmp_path / "brokenpackage-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brokenpackage\nVersion: 1.2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "brokenpackage"


def test_a_package_that_cannot_be_imported_says_why(broken_package: str) -> None:
    found = probe.package(broken_package)

    assert found.state is State.broken
    assert found.value == "1.2, cannot be imported (RuntimeError: libcudart.so.9 is missing)"
    assert found.way_out == "pip install 'scalesweep[train]'"
    assert broken_package not in sys.modules


def test_a_package_that_is_not_installed_is_broken_with_a_way_out() -> None:
    found = probe.package("no-such-package-at-all")

    assert (found.value, found.state) == ("not installed", State.broken)
    assert found.way_out == "pip install 'scalesweep[train]'"


def test_a_look_that_raises_is_a_finding(capfd: pytest.CaptureFixture[str]) -> None:
    def look() -> Finding:
        print("noise")
        raise RuntimeError("CUDA driver is too old\nand more")

    assert not probe.tell("devices", look)

    begun, found = capfd.readouterr().out.splitlines()
    assert json.loads(begun) == {"begun": "devices"}
    assert json.loads(found)["value"] == "RuntimeError: CUDA driver is too old"


# arXiv:2305.14314, appendix E, to four digits.
NF4 = [-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0,
       0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1.0]  # fmt: skip


def test_four_bit_weights_lose_what_nf4_loses() -> None:
    weight = torch.randn(128, 128, generator=torch.Generator().manual_seed(1))
    blocks = weight.reshape(-1, 64)  # each scaled by its largest value
    largest = blocks.abs().amax(dim=1, keepdim=True)
    levels = torch.tensor(NF4)
    nearest = ((blocks / largest)[..., None] - levels).abs().argmin(dim=-1)
    back = (levels[nearest] * largest).reshape(weight.shape)
    by_hand = float((back - weight).norm() / weight.norm())

    found = probe.four_bit()

    assert found.state is State.well
    # Double quantisation rounds the blocks' scales too.
    assert found.facts["relative_error"] == pytest.approx(by_hand, rel=0.03)


def test_four_bit_weights_that_come_back_wrong_are_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    import scalesweep.models.quantization as quantization

    monkeypatch.setattr(quantization, "dequantized", lambda weight: weight * 0.5)

    assert probe.four_bit().state is State.broken


def test_a_fused_optimizer_that_steps_otherwise_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe.optimizer().state is State.well

    class Wrong(torch.optim.AdamW):
        def __init__(self, *args: object, fused: bool, **kwargs: object) -> None:
            super().__init__(*args, **{**kwargs, "lr": 0.2 if fused else 0.1})  # type: ignore[arg-type]

    monkeypatch.setattr(torch.optim, "AdamW", Wrong)
    assert probe.optimizer().state is State.broken


@pytest.mark.parametrize(("half", "state"), [(1e9, State.note), (90e9, State.well)])
def test_bf16_that_is_slower_than_fp32_is_noted(
    monkeypatch: pytest.MonkeyPatch, half: float, state: State
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(probe, "_flops", lambda dtype: half if dtype is torch.bfloat16 else 100e9)

    found = probe.dtypes()

    assert found.state is state
    assert ("precision=fp32" in found.way_out) == (state is State.note)
    assert found.value == f"{half / 1e9:.3g} GFLOP/s on this CPU, fp32 100"


def test_matrix_products_are_counted_twice_a_multiplication(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter([0.0, 1.0, 1.5, 9.0])  # until 0 + 0.3; one product of half a second
    monkeypatch.setattr(probe.time, "perf_counter", lambda: next(times))

    assert probe._flops(torch.float32, side=10) == pytest.approx(2 * 10**3 / 0.5)


def fake_gpu(name: str) -> Callable[[int], object]:
    class Properties:
        total_memory = 80 << 30
        major, minor = 9, 0

    Properties.name = name  # type: ignore[attr-defined]
    return lambda _: Properties()


@pytest.mark.parametrize(
    ("name", "state"), [("NVIDIA H100 80GB HBM3", State.well), ("NVIDIA T1000", State.note)]
)
def test_gpus_of_one_kind_are_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, state: State
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "get_device_properties", fake_gpu(name))

    found = probe.devices()

    assert found.value == f"8 x {name}, 80 GiB, capability 9.0"
    assert found.state is state
    assert len(found.facts["gpus"]) == 8


@pytest.mark.slow
def test_the_probe_of_this_machine_finds_every_package_and_look() -> None:
    found = {finding.name: finding for finding in probe.probe_findings()}

    assert list(found) == [*probe.PACKAGES, *probe.LOOKS, "4-bit weights"]
    assert not [f for f in found.values() if f.state is State.broken]
    assert found["torch"].facts["version"] == torch.__version__
