"""Every error scalesweep raises on purpose.

ScaleSweepError
├── ConfigError     a setting is wrong; found before anything runs
├── PlanError       settings are right one by one, but no graph of stages follows from them
├── StoreError      the store on disk is not as it must be
├── DataError       a data set or one of its items is broken
├── StageError      a stage ran and could not finish
├── ServerDown      a server does not answer now; nothing is lost, later it may
└── Interrupted     a signal asked to stop; what was done so far is safe
"""


class ScaleSweepError(Exception):
    """Base of all errors raised on purpose: one message for people, no traceback needed."""


class ConfigError(ScaleSweepError):
    """A setting is wrong. The message gives dotted key, value, rule and a way out."""


class PlanError(ScaleSweepError):
    """No graph of stages follows from the settings, or it cannot run here."""


class StoreError(ScaleSweepError):
    """A file of the store is missing, damaged or written by another version."""


class DataError(ScaleSweepError):
    """A data set or one of its items is broken. The message names file, item and defect."""


class StageError(ScaleSweepError):
    """A stage ran and could not finish."""


class ServerDown(ScaleSweepError):
    """A server of somebody else does not answer. What was to be sent is kept."""


class Interrupted(ScaleSweepError):
    """A signal asked to stop at a step boundary; a checkpoint is written, nothing is lost."""
