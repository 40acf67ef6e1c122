"""The shipped record of how much scores differ between seeds.

A study of one seed per cell cannot know it, so it is measured once, by a study with several seeds
of every cell, and shipped with the program (seeds_record.json beside this file).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalesweep.errors import ConfigError, StoreError
from scalesweep.records import SCHEMA, check_schema
from scalesweep.report.collect import StudyResults
from scalesweep.report.settings import own_spread, settings_of
from scalesweep.report.statistics import Spread
from scalesweep.report.versions import known_versions
from scalesweep.rundir import read_json, write_json

SHIPPED = Path(__file__).with_name("seeds_record.json")


@dataclass(frozen=True, kw_only=True)
class RecordedSpread:
    """Spread between seeds on one benchmark."""

    spread: Spread
    num_questions: int


@dataclass(frozen=True, kw_only=True)
class RecordedSetting:
    label: str
    scores: Mapping[str, Mapping[str, float]]
    """Benchmark -> seed -> score."""
    keys: Mapping[str, str]
    """Seed -> the judge stage it was scored by; its key names model, data and recipe."""


@dataclass(frozen=True, kw_only=True)
class SeedsRecord:
    study: str
    command: str
    """The command line that made the study."""
    versions: Mapping[str, list[str]]
    benchmarks: Mapping[str, RecordedSpread]
    settings: tuple[RecordedSetting, ...]

    @property
    def keys(self) -> set[str]:
        return {key for setting in self.settings for key in setting.keys.values()}

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "study": self.study,
            "command": self.command,
            "versions": dict(self.versions),
            "benchmarks": {
                name: {
                    "pooled_standard_deviation": recorded.spread.standard_deviation,
                    "df": recorded.spread.df,
                    "num_settings": recorded.spread.num_settings,
                    "num_questions": recorded.num_questions,
                }
                for name, recorded in self.benchmarks.items()
            },
            "settings": [
                {
                    "label": setting.label,
                    "scores": {name: dict(scores) for name, scores in setting.scores.items()},
                    "keys": dict(setting.keys),
                }
                for setting in self.settings
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SeedsRecord:
        check_schema(data, "seeds_record.json")
        try:
            return cls(
                study=data["study"],
                command=data["command"],
                versions=data["versions"],
                benchmarks={
                    name: RecordedSpread(
                        spread=Spread(
                            standard_deviation=float(entry["pooled_standard_deviation"]),
                            df=int(entry["df"]),
                            num_settings=int(entry["num_settings"]),
                        ),
                        num_questions=int(entry["num_questions"]),
                    )
                    for name, entry in data["benchmarks"].items()
                },
                settings=tuple(RecordedSetting(**entry) for entry in data["settings"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"the record of seeds is damaged ({type(error).__name__}: {error}); make it again "
                "with `scalesweep report quickstart_seeds --seed-record FILE`"
            ) from error


def load_seed_record(path: Path = SHIPPED) -> SeedsRecord | None:
    """The record, or None where there is none: verdicts then know the questions' error only."""
    try:
        return SeedsRecord.from_json(read_json(path))
    except FileNotFoundError:
        return None


def seed_record(results: StudyResults, *, command: str) -> SeedsRecord:
    """What a finished study of several seeds says about their spread.

    Raises:
        ConfigError: a cell has no score yet, or no setting has two seeds.
    """
    study = results.plan.study
    missing = [cell.cell.name for cell in results.cells if results.primary not in cell.scores]
    if missing:
        raise ConfigError(
            f"study={study}: {len(missing)} of {len(results.cells)} cells have no score "
            f"({missing[0]}, ...); a record of seeds is made of a finished study: run it again"
        )
    settings = settings_of(results)
    names = sorted({name for cell in results.cells for name in cell.scores})
    spreads = {
        name: RecordedSpread(
            spread=spread,
            num_questions=max(
                cell.scores[name].num_questions for cell in results.cells if name in cell.scores
            ),
        )
        for name in names
        if (spread := own_spread(settings, name)) is not None
    }
    if not spreads:
        raise ConfigError(
            f"study={study}: every cell has one seed, so there is no spread to record; "
            "add seed=1,2,3 to the line"
        )
    return SeedsRecord(
        study=study,
        command=command,
        versions=known_versions(results),
        benchmarks=spreads,
        settings=tuple(
            RecordedSetting(
                label=setting.label,
                scores={
                    name: {str(c.seed): c.scores[name].score for c in setting.scored(name)}
                    for name in names
                },
                keys={str(cell.seed): str(cell.cell.stages["judge"]) for cell in setting.cells},
            )
            for setting in settings
        ),
    )


def write_seed_record(results: StudyResults, path: Path, command: str) -> SeedsRecord:
    """Writes the record of a finished study; see seed_record for when it is refused."""
    record = seed_record(results, command=command)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record.to_json())
    return record
