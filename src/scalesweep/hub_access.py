"""Whether the hub would give repositories away: asked only of what is nowhere on this machine.

    python -m scalesweep.hub_access < ids.json

A process of its own, so that the command line needs neither the hub's library nor to wait for it
longer than a few seconds. Where the hub does not answer, nothing is said.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from scalesweep.models.hub import HubId

REQUEST_TIMEOUT_S = 4.0
TIMEOUT_S = 20.0
"""Of the whole process: its imports, and one request for each repository."""


def ask_hub(wanted: Sequence[HubId]) -> Mapping[HubId, str]:
    """What speaks against downloading each; without those that are fine or not known about."""
    if is_offline(os.environ) or importlib.util.find_spec("huggingface_hub") is None:
        return {}
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "scalesweep.hub_access"],
            input=json.dumps([[one.repository, one.revision] for one in wanted]),
            capture_output=True,
            text=True,
            check=True,
            timeout=TIMEOUT_S,
        )
        said = json.loads(ended.stdout)
    except (subprocess.SubprocessError, ValueError):
        return {}
    return {one: text for one, text in zip(wanted, said, strict=True) if text is not None}


def is_offline(environ: Mapping[str, str]) -> bool:
    """Whether the hub's own variables forbid asking it."""
    said = environ.get("HF_HUB_OFFLINE") or environ.get("TRANSFORMERS_OFFLINE") or ""
    return said.upper() in {"1", "ON", "YES", "TRUE"}


def objection(wanted: HubId) -> str | None:
    """Ask for one small file's header, as a download would, with the token that is there."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    url = hf_hub_url(wanted.repository, "config.json", revision=wanted.revision)
    try:
        get_hf_file_metadata(url, timeout=REQUEST_TIMEOUT_S)
    except GatedRepoError:
        return (
            f"{wanted.repository} is gated: accept its licence at {wanted.page}, log in with "
            f"`hf auth login`, then `{wanted.download}`"
        )
    except RevisionNotFoundError:
        return f"{wanted.repository} has no revision {wanted.revision}; see {wanted.page}/commits"
    except RepositoryNotFoundError:
        return (
            f"the hub has no repository {wanted.repository}, or a private one; correct the name, "
            "or log in with `hf auth login`"
        )
    except Exception:  # of its HTTP client, which differs between versions: no answer
        return None
    return None


def main() -> None:
    wanted = [HubId(repository, revision) for repository, revision in json.load(sys.stdin)]
    print(json.dumps([objection(one) for one in wanted]))


if __name__ == "__main__":
    main()
