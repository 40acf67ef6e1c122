"""How answers become scores (conf/judge/)."""

from __future__ import annotations

from dataclasses import dataclass

from scalesweep.config.checks import at_least, not_negative, one_of


@dataclass(kw_only=True)
class JudgeConfig:
    """exact_match compares with the reference; openai asks a judge model."""

    name: str
    scorer: str
    """exact_match | openai."""
    model: str | None = None
    """Judge model of an OpenAI-compatible endpoint; null for exact_match."""
    temperature: float = 0.2
    num_runs: int = 1
    """Judge runs that are averaged; the paper takes 3."""
    where: str = "login"
    """On Slurm: login (by `scalesweep judge` or `watch`, where there is a network) | cluster."""

    def __post_init__(self) -> None:
        one_of("judge.scorer", self.scorer, ("exact_match", "openai"))
        one_of("judge.where", self.where, ("login", "cluster"))
        at_least(1, runs=("judge.num_runs", self.num_runs))
        not_negative("judge.temperature", self.temperature)
