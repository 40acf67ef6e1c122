"""The page's figures with their legends. All is drawn here; page.js only shows, hides and reads."""

from __future__ import annotations

from collections.abc import Iterable

from scalesweep.report import formatting as fmt
from scalesweep.report.figures.cost_score import cost_score_views, dot_radius, tone
from scalesweep.report.figures.effects import effect_figure, effect_panels, name_width
from scalesweep.report.figures.loss_curves import every_curve, legend, loss_figure
from scalesweep.report.figures.predicted_measured import (
    BAND,
    Panel,
    predicted_figure,
    prediction_panels,
)
from scalesweep.report.figures.shapes import swatch
from scalesweep.report.figures.timeline import attempt_spans, timeline_figure
from scalesweep.report.html_table import html_table
from scalesweep.report.labels import value_at
from scalesweep.report.markup import Child, Markup, joined, tag
from scalesweep.report.predictions import prediction_report
from scalesweep.report.render_predictions import groups_table, times_table
from scalesweep.report.study_report import StudyReport
from scalesweep.report.summary import error_sources

_TUNINGS = {"full": "full tuning", "lora": "LoRA", "qlora": "QLoRA", "blind": "blind baseline"}


def section(title: str, *children: Child, lead: str = "", class_: str | None = None) -> Markup:
    return tag(
        "section",
        tag("h2", title),
        tag("p", lead, class_="lead") if lead else None,
        children,
        class_=class_,
    )


def cost_score_section(report: StudyReport) -> Markup | None:
    views = cost_score_views(report)
    if not views:
        return None
    return section(
        "What a point of score costs",
        tag(
            "figure",
            (
                tag(
                    "div",
                    view.figures,
                    class_="view",
                    data_unit=view.unit,
                    data_scale=view.scale,
                    hidden=i > 0,
                )
                for i, view in enumerate(views)
            ),
            data_views="unit scale",
        ),
        _cost_score_legend(report),
        lead="Each setting by what one run of it costs alone, all its stages included. Lines "
        f"are 95 % intervals, of {error_sources(report)}. The dotted staircase is the Pareto "
        "front: the best score for at most that cost.",
    )


def _cost_score_legend(report: StudyReport) -> Markup:
    items = [
        tag("li", swatch(method), _TUNINGS.get(method, method), data_tuning=method)
        for method in dict.fromkeys(tone(s) for s in report.settings)
    ]
    items.append(tag("li", tag("span", class_="swatch ring"), "on the Pareto front"))
    models = {
        str(value_at(s.config, "model.name") or ""): s.cells[0].cell.num_params
        for s in report.settings
    }
    sizes = sorted(set(models.values()))
    if len(models) > 1:
        items += [
            tag(
                "li",
                swatch("", radius=dot_radius(sizes.index(models[name]), len(sizes)), class_="size"),
                name,
                data_model=name,
            )
            for name in sorted(models, key=lambda name: (models[name], name))
        ]
    return tag("ul", items, class_="legend", aria_label="Tuning methods and models")


def effects_section(report: StudyReport) -> Markup | None:
    panels = effect_panels(report)
    if not panels:
        return None
    values = [report.interval(setting) for panel in panels for _, setting in panel.rows]
    most = max(value.high for value in values if value is not None) * 1.02
    return section(
        "What moves the score",
        tag(
            "div",
            (
                tag(
                    "figure",
                    tag("h3", panel.axis),
                    tag("p", panel.fixed),
                    effect_figure(report, panel, most=most, room=name_width(panels)),
                )
                for panel in panels
            ),
            class_="panels",
        ),
        lead=f"Settings that differ in one thing, with 95 % intervals. Score on {report.primary}.",
    )


def loss_section(report: StudyReport) -> Markup | None:
    curves = every_curve(report)
    if not curves:
        return None
    shown = [curve for curve in curves if curve.is_shown]
    methods = {value_at(curve.setting.config, "tuning.method") for curve in shown}
    adapters = bool(methods & {"lora", "qlora"}) and len(shown) < len(curves)
    return section(
        "Training loss",
        tag("figure", loss_figure(curves)),
        legend(curves),
        lead="Smoothed. "
        + (
            "Shown are LoRA and QLoRA settings beside full tuning; the other cells can be chosen "
            "below."
            if adapters
            else "One line per cell."
        ),
    )


def predictions_section(report: StudyReport) -> Markup:
    results = report.results
    predictions = prediction_report(results.plan.study, results.stages.values())
    panels = prediction_panels(predictions)
    title = "Predicted against measured"
    if not panels:
        return section(
            title,
            tag(
                "p",
                "No stage of this study that ran in one go has a prediction on record: it was "
                "planned before predictions were recorded, or nothing is finished yet.",
                class_="lead",
            ),
        )
    table = groups_table(predictions)
    kinds = dict.fromkeys(pair.kind for panel in panels for pair in panel.pairs)
    return section(
        title,
        tag(
            "div",
            (
                tag(
                    "figure",
                    tag("h3", panel.title),
                    tag("p", _panel_words(panel)),
                    predicted_figure(panel),
                )
                for panel in panels
            ),
            class_="panels",
        ),
        _kinds_legend(kinds, is_mark=True),
        tag("h3", "Errors in time, by kind of stage", class_="below-table"),
        html_table(table, is_sortable=False),
        tag("ul", (tag("li", note) for note in table.notes), class_="notes"),
        tag("details", tag("summary", "Every stage"), html_table(times_table(predictions))),
        lead="Every mark is a stage: what the planner expected of it before it ran, and what it "
        f"took. On the diagonal they agree; shaded is {BAND * 100:.0f} % to either side.",
    )


def _panel_words(panel: Panel) -> str:
    within = sum(abs(p.amount.measured / p.amount.predicted - 1) <= BAND for p in panel.pairs)
    return (
        f"{fmt.sentence(panel.about)} Median error {panel.median_error * 100:.0f} %, "
        f"{within} of {len(panel.pairs)} in the band."
    )


def timeline(report: StudyReport) -> Markup | None:
    figures = timeline_figure(report)
    if not figures:
        return None
    spans = attempt_spans(report)
    kinds = dict.fromkeys(str(stage.kind) for stage in report.results.stages.values())
    extra = []
    if any(span.startup_s > 0 for span in spans):
        extra.append(tag("li", tag("span", class_="swatch square startup-key"), "start-up"))
    if any(span.lost_s > 0 for span in spans):
        extra.append(tag("li", tag("span", class_="swatch square lost-key"), "lost work"))
    if any(span.ended_badly for span in spans):
        extra.append(tag("li", tag("span", "✕", class_="fault-key"), "fault"))
    return joined(
        [
            tag(
                "p",
                "When each attempt of each stage ran, side by side, by its machine's clock; "
                "minutes and seconds since the first.",
                class_="lead",
            ),
            tag("figure", figures),
            _kinds_legend(kinds, is_mark=False, extra=extra),
        ]
    )


def _kinds_legend(kinds: Iterable[str], *, is_mark: bool, extra: Iterable[Markup] = ()) -> Markup:
    return tag(
        "ul",
        (
            tag(
                "li",
                swatch(kind) if is_mark else tag("span", class_=f"swatch square {kind}"),
                kind,
                data_kind=kind,
            )
            for kind in kinds
        ),
        extra,
        class_="legend",
        aria_label="Kinds of stages",
    )
