"""Counts what an attempt trains on, and writes it down beside its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from scalesweep.records import WorkDone
from scalesweep.rundir import write_json
from scalesweep.stages import StageContext
from scalesweep.train.batches import Step


@dataclass(kw_only=True)
class WorkMeter:
    """All steps of one attempt so far. Every rank counts; rank zero writes."""

    context: StageContext
    device: str
    done: WorkDone = field(default_factory=WorkDone)

    def add(self, step: Step) -> None:
        """One step, as all ranks together did it."""
        done, work = self.done, step.work
        self.done = replace(
            done,
            units=done.units + 1,
            samples=done.samples + step.num_samples,
            tokens=done.tokens + work.num_tokens,
            squared_lengths=done.squared_lengths + work.sum_squared_lengths,
            supervised=done.supervised + work.num_supervised,
            pictures=done.pictures + work.num_pictures,
        )

    def write(self) -> None:
        """Replace work.json of the attempt."""
        if self.context.is_main and self.done.units:
            found = replace(self.done, device=self.device)
            write_json(self.context.attempt.work_file, found.to_json())
