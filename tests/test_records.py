"""What is written to disk is read back as it was."""

from __future__ import annotations

import json

from scalesweep.records import Execution, Predicted


def predicted() -> Predicted:
    return Predicted(
        startup_s=2.0,
        work_s=10.0,
        flops=1e12,
        device_bytes=0.0,
        host_bytes=5e8,
        node_hours=12 / 3600,
        usd=0.01,
    )


def test_an_execution_keeps_what_was_predicted() -> None:
    execution = Execution(cluster="local", study="quickstart", predicted=predicted())

    assert Execution.from_json(json.loads(json.dumps(execution.to_json()))) == execution


def test_an_execution_written_before_predictions_is_read() -> None:
    old = Execution(cluster="local").to_json()
    del old["predicted"], old["study"]

    read = Execution.from_json(old)

    assert read.predicted is None
    assert read.study == ""
