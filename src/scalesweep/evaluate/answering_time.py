"""How long answering took: per answer, per batch, per token. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from scalesweep.evaluate.answer_log import Answered


def answering_time(answered: Sequence[Answered]) -> dict[str, Any]:
    """Of these answers, whichever attempts and replicas gave them.

    seconds: of all their batches, as if one replica had done one after the other.
    seconds_per_answer: the same, divided by the answers.
    latency_s, latency_p90_s: how long the batch of a question took, on average and for nine of ten
        questions at most. An answer comes when its batch is done.
    tokens_per_second: generated tokens over seconds, of one replica; null where letters were
        compared and nothing was generated.
    """
    tokens = sum(one.answer.num_tokens for one in answered)
    # A batch's seconds stand beside each of its answers.
    seconds = sum(one.batch_seconds / one.batch_size for one in answered)
    count = len(answered)
    latencies = sorted(one.batch_seconds for one in answered)
    return {
        "answers": count,
        "tokens": tokens,
        "seconds": round(seconds, 3),
        "seconds_per_answer": round(seconds / count, 4) if count else None,
        "latency_s": round(sum(latencies) / count, 4) if count else None,
        "latency_p90_s": round(_percentile(latencies, 0.9), 4) if count else None,
        "tokens_per_second": round(tokens / seconds, 2) if tokens and seconds else None,
    }


def _percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that this share of all is not above (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
