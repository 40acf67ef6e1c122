"""Imported once by the server from which workers are forked: what every stage would import.

Imports only: a thread or a CUDA context here would not survive the fork.
"""

from __future__ import annotations

import contextlib
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations among third-party packages
    with contextlib.suppress(
        ImportError
    ):  # a missing package is reported by the stage that needs it
        import transformers.models.clip.modeling_clip
        import transformers.models.llama.modeling_llama
        import transformers.models.llava.modeling_llava  # noqa: F401
