"""Imported once by the server from which ranks are forked: what every stage would import.

Imports only: a thread or a CUDA context here would not survive the fork.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Iterator

from scalesweep.launch.rank import die_with_command
from scalesweep.stages import RUNNERS

MODULES = (
    "transformers.models.clip.modeling_clip",
    "transformers.models.llama.modeling_llama",
    "transformers.models.llava.modeling_llava",
    *dict.fromkeys(RUNNERS.values()),
)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing that libraries say on import reaches the terminal of the command."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(number) for number in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for number, old in zip((1, 2), saved, strict=True):
            os.dup2(old, number)
            os.close(old)
        os.close(nowhere)


die_with_command()  # imports take seconds, in which the server would not notice that it is alone
with _quiet():
    for name in MODULES:
        # What cannot be imported is reported by the stage that needs it.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
