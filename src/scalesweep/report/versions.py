"""Which versions of which packages made a study."""

from __future__ import annotations

import contextlib
from importlib import metadata

import scalesweep
from scalesweep.report.collect import StudyResults

PACKAGES = ("torch", "transformers", "deepspeed", "peft", "bitsandbytes")
"""What numbers depend on, besides scalesweep itself."""


def known_versions(results: StudyResults) -> dict[str, list[str]]:
    """Package -> versions its attempts recorded; where none did, those installed here now."""
    if results.versions:
        return {package: list(found) for package, found in results.versions.items()}
    return {package: [version] for package, version in installed_versions().items()}


def installed_versions() -> dict[str, str]:
    """Read from the packages' metadata: nothing is imported for it."""
    found = {"scalesweep": scalesweep.__version__}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
