"""Host memory that a node needs for the ranks of a stage. Arithmetic alone."""

from __future__ import annotations

from scalesweep.models.parameters import num_trainable_params
from scalesweep.specs import TrainingSpec

# Resident, with what a worker has imported before it is given a stage: judge and data stages of the
# demo had 0.35 to 0.38 GB on a CPU. With CUDA's libraries it is more; declared, not measured.
PROCESS_BYTES = 0.38e9
CUDA_PROCESS_BYTES = 3e9


def process_bytes(*, on_gpu: bool) -> float:
    """One rank before it holds anything."""
    return CUDA_PROCESS_BYTES if on_gpu else PROCESS_BYTES


def checkpoint_copy_bytes(spec: TrainingSpec, *, num_ranks: int, num_nodes: int) -> float:
    """Copies in which a node's ranks keep what is being written: fp32 weights and two moments.

    train/keeper.py takes them only from memory that is free, and else waits for the disk.
    """
    per_rank = 12.0 * num_trainable_params(spec) / num_ranks
    return per_rank * num_ranks / num_nodes
