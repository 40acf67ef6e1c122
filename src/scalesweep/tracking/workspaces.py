"""Dashboards in the words of W&B's workspaces and reports. The only file that knows
wandb-workspaces.

Nothing is asked of a server here, so that a specification can be looked at without a login: what is
printed is what is sent. The library's ids of panels are of chance; they are replaced by such that
stay the same.

Private names of the library are used: it has no public way to a specification that is not sent.
Tried with wandb-workspaces 0.4.13; other than 0.4 is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from scalesweep.errors import ConfigError
from scalesweep.tracking import dashboard as shown
from scalesweep.tracking.dashboard import Dashboard
from scalesweep.tracking.views import Document, Place

_WIDTH = 24
"""Of a report's grid, in its own units."""
_TITLE_LENGTH = 128


def documents(dashboard: Dashboard, place: Place, *, project_id: str) -> tuple[Document, Document]:
    """The workspace and the report of a study.

    project_id: the server's own; only the report's panels need it.

    Raises:
        ConfigError: wandb-workspaces is not installed, or is of another version.
    """
    check_installed()
    import wandb_workspaces.workspaces as ws

    workspace = ws.Workspace(
        entity=place.entity,
        project=place.project,
        name=dashboard.title,
        sections=[
            ws.Section(
                name=section.title,
                panels=[_panel(panel) for panel in section.panels],
                is_open=section.is_open,
            )
            for section in dashboard.sections
        ],
        settings=ws.WorkspaceSettings(max_runs=max(dashboard.num_runs, 10)),
        runset_settings=ws.RunsetSettings(
            filters=[ws.Metric("Group") == dashboard.study],
            order=[ws.Ordering(ws.Summary(dashboard.order.name), ascending=False)],
            pinned_columns=[_column(key) for key in dashboard.columns],
        ),
    )
    spec = _plain(workspace._to_model().spec)
    seed = f"{dashboard.study}/{place.project}"
    spec["section"]["runSets"][0]["id"] = _name(f"runs {seed}")
    return (
        Document(
            type="project-view",
            name=f"nw-{_name(f'workspace {seed}')}-v",
            display_name=dashboard.title,
            description="",
            spec=_with_lasting_ids(spec, seed),
        ),
        Document(
            type="runs",
            name=_name(f"report {seed}"),
            display_name=dashboard.title[:_TITLE_LENGTH],
            description=dashboard.description,
            spec=_with_lasting_ids(
                _report_spec(dashboard, place, project_id=project_id),
                seed,
            ),
        ),
    )


def check_installed() -> None:
    """Refuse to go on without the library.

    Raises:
        ConfigError: it is not installed, or is of another version.
    """
    from importlib import metadata

    try:
        import wandb_workspaces  # noqa: F401

        found = metadata.version("wandb-workspaces")
    except ImportError as error:
        raise ConfigError(
            f"dashboard: {error.name or error} is not installed; "
            "pip install 'scalesweep[dashboard]'"
        ) from error
    if not found.startswith("0.4."):
        raise ConfigError(
            f"dashboard: wandb-workspaces {found} was not tried; "
            "pip install 'wandb-workspaces>=0.4.13,<0.5'"
        )


# ---------------------------------------------------------------- in the library's words


def _report_spec(dashboard: Dashboard, place: Place, *, project_id: str) -> dict[str, Any]:
    import wandb_workspaces.reports.v2 as wr

    report = wr.Report(
        entity=place.entity,
        project=place.project,
        title=dashboard.title[:_TITLE_LENGTH],
        blocks=[_block(block, dashboard) for block in dashboard.report],
        width="fixed",
    )
    spec = _plain(report._to_model().spec)
    for block in spec["blocks"]:
        for runset in block.get("metadata", {}).get("runSets", ()):
            # The library asks the server for this while it builds, unless it knows no project.
            runset["project"] = {
                "id": project_id,
                "name": place.project,
                "entityName": place.entity,
            }
            runset["id"] = _name(f"{runset['name']} {dashboard.study}")
    return spec


def _block(block: shown.Block, dashboard: Dashboard) -> Any:
    import wandb_workspaces.reports.v2 as wr
    from wandb_workspaces import expr

    if isinstance(block, shown.Heading):
        return wr.H2(block.text)
    if isinstance(block, shown.Paragraph):
        return wr.P(block.text)
    if isinstance(block, shown.Markdown):
        return wr.MarkdownBlock(block.text)
    kind = "study" if block.of_study else "cell"
    runset = wr.Runset(
        name="study" if block.of_study else "cells",
        filters=[expr.Metric("Group") == dashboard.study, expr.Metric("JobType") == kind],
        order=[wr.OrderBy(wr.SummaryMetric(dashboard.order.name), ascending=False)],
    )
    panels = [_panel(panel, layout=layout) for panel, layout in _laid_out(block.panels)]
    return wr.PanelGrid(runsets=[runset], panels=panels)


def _laid_out(panels: Sequence[shown.Panel]) -> list[tuple[shown.Panel, Mapping[str, int]]]:
    """Charts two in a row, wide ones alone."""
    placed: list[tuple[shown.Panel, Mapping[str, int]]] = []
    x, y = 0, 0
    for panel in panels:
        is_wide = isinstance(panel, shown.StoredTable | shown.ParallelCoordinates)
        width, height = (_WIDTH, 10) if is_wide else (_WIDTH // 2, 8)
        if x + width > _WIDTH:
            x, y = 0, y + 8
        placed.append((panel, {"x": x, "y": y, "w": width, "h": height}))
        x += width
        if is_wide:
            x, y = 0, y + height
    return placed


def _panel(panel: shown.Panel, *, layout: Mapping[str, int] | None = None) -> Any:
    import wandb_workspaces.reports.v2 as wr

    place = {"layout": wr.Layout(**layout)} if layout else {}
    if isinstance(panel, shown.Scatter):
        return wr.ScatterPlot(
            title=panel.title,
            x=_metric(panel.x),
            y=_metric(panel.y),
            z=_metric(panel.color) if panel.color else None,
            log_x=panel.log_x or None,
            log_y=panel.log_y or None,
            **place,
        )
    if isinstance(panel, shown.ParallelCoordinates):
        return wr.ParallelCoordinatesPlot(
            title=panel.title,
            columns=[
                wr.ParallelCoordinatesPlotColumn(
                    metric=_metric(axis.key), display_name=axis.title, log=axis.log or None
                )
                for axis in panel.axes
            ],
            **place,
        )
    if isinstance(panel, shown.Curves):
        return wr.LinePlot(title=panel.title, x=panel.x, y=[panel.y], **place)
    if isinstance(panel, shown.RunsTable):
        return wr.RunComparer(diff_only="split", **place)
    return wr.WeavePanelSummaryTable(table_name=f"tables/{panel.name}", **place)


def _metric(key: shown.Key) -> Any:
    import wandb_workspaces.reports.v2 as wr

    return wr.Config(key.name) if key.in_config else wr.SummaryMetric(key.name)


def _column(key: shown.Key) -> str:
    """ "config:swept.value.model": below the name of a setting W&B keeps its value."""
    if not key.in_config:
        return f"summary:{key.name}"
    first, _, rest = key.name.partition(".")
    return f"config:{first}.value.{rest}" if rest else f"config:{first}.value"


# ---------------------------------------------------------------- ids that last


def _plain(model: Any) -> dict[str, Any]:
    return dict(json.loads(model.model_dump_json(by_alias=True, exclude_none=True)))


def _with_lasting_ids(spec: dict[str, Any], seed: str) -> dict[str, Any]:
    """Panels with ids made of where they stand; the library's are of chance."""
    number = 0

    def walk(value: Any) -> None:
        nonlocal number
        if isinstance(value, dict):
            if "__id__" in value:
                number += 1
                value["__id__"] = _name(f"panel {number} {seed}")
            for part in value.values():
                walk(part)
        elif isinstance(value, list):
            for part in value:
                walk(part)

    walk(spec)
    return spec


def _name(of: str) -> str:
    """Eleven letters and digits, as W&B's own names are."""
    return hashlib.sha256(of.encode()).hexdigest()[:11]
