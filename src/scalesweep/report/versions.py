"""Which versions of which packages made a study."""

from __future__ import annotations

from scalesweep.report.collect import StudyResults
from scalesweep.versions import installed_versions


def known_versions(results: StudyResults) -> dict[str, list[str]]:
    """Package -> versions its attempts recorded; where none did, those installed here now."""
    if results.versions:
        return {package: list(found) for package, found in results.versions.items()}
    return {package: [version] for package, version in installed_versions().items()}
