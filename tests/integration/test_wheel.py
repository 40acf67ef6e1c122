"""The wheel holds all that the command needs, and runs where the repository is not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.tiny_study import TINY, environment

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).parents[2]
SOURCES = (
    "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "src", "launchers", "conf", "sweeps",
)  # fmt: skip
"""What a wheel is made of."""


@dataclass(frozen=True)
class Installed:
    """The wheel in an environment of its own."""

    wheel: Path
    bin: Path
    folder: Path
    """Where lines are typed; nothing of the repository is near."""

    def type(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A line of the installed command."""
        return subprocess.run(
            [str(self.bin / "scalesweep"), *words],
            cwd=self.folder,
            env={**environment(), "HOME": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )


def call(*line: str | Path, cwd: Path) -> None:
    ended = subprocess.run(
        [str(word) for word in line],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources, so that the repository stays as it is."""
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (REPOSITORY / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(REPOSITORY / name, source / name, ignore=ignored)
        else:
            shutil.copy(REPOSITORY / name, source / name)
    built = tmp_path_factory.mktemp("built")
    words = ("-m", "build", "--wheel", "--no-isolation", "--outdir", built)
    call(sys.executable, *words, cwd=source)
    return next(built.glob("scalesweep-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """In a new environment that borrows this one's other packages: there is no network here."""
    folder = tmp_path_factory.mktemp("elsewhere")
    venv = folder / "venv"
    call(sys.executable, "-m", "venv", "--without-pip", venv, cwd=folder)
    libraries = sysconfig.get_paths(vars={"base": str(venv), "platbase": str(venv)})["purelib"]
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python")
    words = ("install", "--quiet", "--no-deps", "--no-index", "--ignore-installed", wheel)
    call(*pip, venv / "bin" / "python", *words, cwd=folder)
    borrowed = folder / "borrowed"
    borrowed.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        # Everything but this project's own editable install, which points to the repository.
        if "scalesweep" not in path.name and path.name != "hydra_plugins":
            (borrowed / path.name).symlink_to(path)
    (Path(libraries) / "borrowed.pth").write_text(f"{borrowed}\n")
    work = folder / "work"
    work.mkdir()
    return Installed(wheel, venv / "bin", work)


def test_the_wheel_holds_the_package_its_values_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()

    info = next(name for name in names if name.endswith("/METADATA")).partition("/")[0]
    roots = {name.partition("/")[0] for name in names}
    assert roots == {"scalesweep", "hydra_plugins", info}
    for name in (
        "scalesweep/py.typed",
        "scalesweep/conf/config.yaml",
        "scalesweep/conf/model/65b.yaml",
        "scalesweep/sweeps/quickstart.yaml",
        "scalesweep/report/page.css",
        "scalesweep/report/page.js",
        "scalesweep/miniature/manifest.json",
        "scalesweep/miniature/mini_s/model.safetensors",
        "scalesweep/miniature/tower_48px/model.safetensors",
    ):
        assert name in names
    assert "hydra_plugins/__init__.py" not in names  # a namespace that others share
    assert any(name.startswith("hydra_plugins/") for name in names)
    strays = ("__pycache__", ".pyc", "tests/", ".git", "store/", "/.")
    assert not [name for name in names if any(stray in name for stray in strays)]


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = REPOSITORY / "src"
    ours = {
        path.relative_to(package).as_posix()
        for path in (package / "scalesweep").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert ours <= names


def test_the_code_that_runs_is_the_installed_one(installed: Installed) -> None:
    ended = subprocess.run(
        [
            str(installed.bin / "python"),
            "-c",
            "import scalesweep, sys; print(scalesweep.__file__); print(*sys.path, sep='\\n')",
        ],
        cwd=installed.folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )

    lines = ended.stdout.splitlines()
    assert Path(lines[0]).is_relative_to(installed.bin.parent)
    assert not [line for line in lines if line.startswith(str(REPOSITORY / "src"))]


def test_help_finds_groups_and_sweeps(installed: Installed) -> None:
    ended = installed.type("--help")

    assert ended.returncode == 0, ended.stderr
    assert "quickstart" in ended.stdout
    assert "tuning" in ended.stdout


def test_a_plan_of_the_quickstart_finds_plugins_and_weights(installed: Installed) -> None:
    ended = installed.type("plan", "-m", "+sweep=quickstart", "--json")

    assert ended.returncode == 0, ended.stderr
    assert len(json.loads(ended.stdout)["cells"]) == 11


def test_a_study_runs_from_the_wheel(installed: Installed) -> None:
    ended = installed.type("study=wheel", "until=align", *TINY)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "2 stages: 2 done (0 done before), 2 new attempts" in ended.stdout
    executions = list(installed.folder.glob("store/stages/*/*/attempts/0001/execution.json"))
    assert len(executions) == 2
    for path in executions:
        record = json.loads(path.read_text())
        assert record["commit"] is None
        assert str(REPOSITORY) not in json.dumps(record["paths"])
    assert [path.name for path in installed.folder.iterdir()] == ["store"]
