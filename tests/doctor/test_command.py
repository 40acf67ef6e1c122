"""doctor on the command line: 80 columns, JSON with everything, and the exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scalesweep import cli
from scalesweep.doctor import command
from scalesweep.doctor.findings import Finding, State


@pytest.fixture(autouse=True)
def probed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Finding]:
    """What the probe finds; tests may add to it."""
    found = [Finding(name="torch", value="2.13")]
    monkeypatch.setattr(command, "probe_findings", lambda: found)
    monkeypatch.setenv("SCALESWEEP_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("SCALESWEEP_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return found


def test_without_settings_it_is_about_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["doctor"]) == 0

    out = capsys.readouterr().out
    assert out.startswith("This machine\n  python")
    assert "\n  torch               2.13\n" in out
    assert "Files of" not in out


def test_with_settings_it_is_about_their_files_too(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.run(["doctor", "model=mini_s"]) == 0

    out = capsys.readouterr().out
    assert "mini_s (language model): for 1 cell" in out
    assert out.rstrip().endswith("all there")
    assert not (tmp_path / "store").exists()


def test_files_that_are_missing_give_status_1_and_lines_of_80_columns(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.run(["doctor", "-m", "+sweep=table4"]) == 1

    out = capsys.readouterr().out
    assert "13 of 13 are missing or broken (X)" in out
    assert "-> hf download lmsys/vicuna-33b-v1.3, or model.path=DIR" in out
    too_wide = [line for line in out.splitlines() if len(line) > 80 and " " in line.strip()]
    assert not too_wide


def test_a_broken_package_gives_status_1_with_a_way_out(
    capsys: pytest.CaptureFixture[str], probed: list[Finding]
) -> None:
    probed.append(
        Finding(name="peft", value="not installed", state=State.broken, way_out="pip install x")
    )

    assert cli.run(["doctor"]) == 1
    assert "X peft                not installed\n" in capsys.readouterr().out


def test_json_has_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["doctor", "model=7b", "--json"]) == 1

    found = json.loads(capsys.readouterr().out)
    assert {f["name"] for f in found["machine"]} >= {"python", "memory", "store", "Slurm", "torch"}
    assert found["is_well"] is True
    assert found["files_are_whole"] is False
    (data,) = (group for group in found["files"] if group["name"] == "lcs558k")
    assert data["licence"]
    assert data["files"][0]["presence"] == "missing"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plan", "model=mini_s", "--hash"], "--hash: goes with doctor"),
        (["model=mini_s", "--json"], "--json: goes with plan, doctor and status"),
        (["doctor", "model=nosuch"], "nosuch"),
    ],
)
def test_wrong_words_are_refused(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert cli.run(words) == 2
    assert said in capsys.readouterr().err
