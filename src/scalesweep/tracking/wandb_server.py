"""The W&B server, as whoever is logged in here sees it: for processes of the login node only.

wandb waits for a server that is down for hours, in silence. Here each question is given up after a
few seconds, unless the environment says otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from scalesweep.errors import ConfigError, ServerDown

_BOUNDS = {
    "WANDB_X_GRAPHQL_RETRY_MAX": "2",
    "WANDB_X_GRAPHQL_RETRY_WAIT_MIN_SECONDS": "1",
    "WANDB_X_GRAPHQL_RETRY_WAIT_MAX_SECONDS": "2",
    "WANDB_X_GRAPHQL_TIMEOUT_SECONDS": "20",
}
_LOG_IN = "set WANDB_API_KEY, or log in with `wandb login`"

# The number from which wandb itself goes on when it resumes a run.
_NUM_ROWS = """
query RunResumeStatus($project: String, $entity: String, $name: String!) {
    model(name: $project, entityName: $entity) {
        bucket(name: $name, missingOk: true) { historyLineCount }
    }
}
"""


@dataclass(frozen=True, kw_only=True)
class Server:
    """One that answers, and knows who asks."""

    api: Any
    """wandb.Api"""
    entity: str
    """As asked, or of whoever is logged in: where runs go."""

    @property
    def address(self) -> str:
        """Where its interface is."""
        return str(self.api.settings["base_url"])

    @property
    def url(self) -> str:
        """Of its pages."""
        return str(self.api._service_api.app_url).rstrip("/")

    def ask(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """The data of a GraphQL answer.

        Raises:
            ServerDown: no answer, or one that is an error.
        """
        try:
            answer = self.api._service_api.execute_graphql(query, variables=dict(variables))
        except Exception as error:  # wandb has no common class for them
            raise ServerDown(f"the W&B server did not answer: {_first_line(error)}") from error
        return dict(answer)

    def num_rows(
        self, ids: Iterable[str], *, project: str, entity: str | None
    ) -> dict[str, int | None]:
        """Run id -> rows that the server has of it; 0 of no such run, None if it does not say."""
        found: dict[str, int | None] = {}
        for id_ in ids:
            asked = {"project": project, "entity": entity or self.entity, "name": id_}
            model = self.ask(_NUM_ROWS, asked).get("model") or {}
            bucket = model.get("bucket")
            found[id_] = bucket.get("historyLineCount") if bucket is not None else 0
        return found


def connect(entity: str | None) -> Server:
    """The server that WANDB_BASE_URL or the user's settings name, by the user's login.

    entity: as asked; None: the login's own.

    Raises:
        ServerDown: it does not answer.
        ConfigError: nobody is logged in, or the server does not know the key.
    """
    for name, value in _BOUNDS.items():
        os.environ.setdefault(name, value)
    os.environ["WANDB_SILENT"] = "true"
    import wandb

    try:
        api = wandb.Api(timeout=20)
        own = api.default_entity
    except wandb.errors.UsageError as error:
        raise ConfigError(f"W&B: nobody is logged in on this machine; {_LOG_IN}") from error
    except Exception as error:
        said = _first_line(error)
        if "giving up after" in str(error) or not isinstance(error, wandb.errors.Error):
            raise ServerDown(f"the W&B server does not answer: {said}") from error
        raise ConfigError(f"W&B: the server refused the login: {said}; {_LOG_IN}") from error
    if not (entity or own):
        raise ConfigError("W&B: the login has no default entity; name one, --entity TEAM")
    return Server(api=api, entity=str(entity or own))


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
