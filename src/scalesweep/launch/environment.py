"""Which environment variables a job gets: an allow-list, since Slurm keeps them in its files.

slurmctld writes the environment of every batch job to its state directory, and some sites log it
into their database; a token in the shell of whoever submits must not get there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

NAMES = (
    "HOME",
    "LANG",
    "LANGUAGE",
    "LD_LIBRARY_PATH",
    "LOGNAME",
    "PATH",
    "SHELL",
    "SLURM_CONF",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
    "CONDA_PREFIX",
    "CUDA_HOME",
    "HF_HOME",
    "HF_HUB_CACHE",
    "MODULEPATH",
    "MODULESHOME",
    "VIRTUAL_ENV",
    "SCALESWEEP_DATA",
    "SCALESWEEP_RUNNER",
    "SCALESWEEP_STORE",
)
PREFIXES = ("LC_",)


def allowed(environment: Mapping[str, str], *, also: Iterable[str] = ()) -> dict[str, str]:
    """The part of an environment that goes into a job. also: names from cluster.export."""
    names = {*NAMES, *also}
    return {k: v for k, v in environment.items() if k in names or k.startswith(PREFIXES)}
