"""A report as JSON, everything in it as numbers; for other programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from scalesweep.cost_model.cost import Cost
from scalesweep.records import SCHEMA
from scalesweep.report import formatting as fmt
from scalesweep.report import summary
from scalesweep.report.answer_rows import best_under_json, front_rows, pair_rows, size_rows
from scalesweep.report.answer_text import answer_sentences
from scalesweep.report.collect import CellResult
from scalesweep.report.costs import JudgePay, StageCost
from scalesweep.report.scores import BenchmarkResult, CategoryResult
from scalesweep.report.settings import ErrorParts, Setting
from scalesweep.report.slurm_accounting import NamedCharge, StageAccount, StudyAccount
from scalesweep.report.stage_results import Attempt, StageResult
from scalesweep.report.study_report import StudyReport
from scalesweep.report.verdicts import Judged
from scalesweep.report.versions import known_versions


def render_json(report: StudyReport) -> str:
    return json.dumps(report_json(report), indent=2, allow_nan=False) + "\n"


def report_json(report: StudyReport) -> dict[str, Any]:
    results = report.results
    asked, more = summary.question(report)
    sentences, under = answer_sentences(report), report.best_under
    return {
        "schema": SCHEMA,
        "study": results.plan.study,
        "question": asked,
        "about": more,
        "answer": sentences[0],
        "answers": sentences,
        "progress": summary.progress(report),
        "command": fmt.public(results.plan.command),
        "primary": results.primary,
        "text_benchmark": results.text_benchmark,
        "cells": [cell_json(cell, has_jobs=results.account is not None) for cell in results.cells],
        "settings": [_setting(report, setting) for setting in report.settings],
        "pareto_front": [setting.label for setting in report.front],
        "front": front_rows(report),
        "pairs": pair_rows(report),
        "sizes": size_rows(report),
        **({"best_under": best_under_json(report, under)} if under is not None else {}),
        "seed_spread": {
            name: {
                "standard_deviation": known.spread.standard_deviation if known.spread else None,
                "df": known.spread.df if known.spread else None,
                "source": known.source,
            }
            for name, known in report.spreads.items()
        },
        "findings": [_finding(judged) for judged in report.findings],
        "costs": {
            **_stage_cost(results.total),
            "is_so_far": any(row.is_running for row in results.ledger),
            **_account(results.account),
            **({} if results.judging is None else {"judging": _judge_pay(results.judging)}),
            "paid_by": {name: _stage_cost(cost) for name, cost in results.paid_by.items()},
            "by_kind": {
                str(k): {
                    **_stage_cost(cost),
                    **({"queued_s": results.queued_s(k)} if results.account else {}),
                }
                for k, cost in results.cost_by_kind.items()
            },
            **({"repriced": results.repriced.asked} if results.repriced is not None else {}),
            "prices": [
                {
                    "usd_per_node_hour": price.usd_per_node_hour,
                    "node_devices": price.node_devices,
                    "cluster": price.cluster,
                    "is_example": price.is_example,
                }
                for price in results.prices
            ],
        },
        "stages": [_stage(stage) for stage in results.stages.values()],
        "versions": known_versions(results),
        "versions_recorded": bool(results.versions),
        "notes": [fmt.public(note) for note in results.plan.notes],
        "warnings": [fmt.public(warning) for warning in results.warnings],
    }


def _cost(cost: Cost) -> dict[str, float]:
    return {
        "node_hours": round(cost.node_hours, 9),
        "usd": round(cost.usd, 6),
        "device_seconds": round(cost.device_seconds, 3),
    }


def _judge_pay(pay: JudgePay) -> dict[str, Any]:
    """usd, unsure_usd: null where a model has no price; known_usd is then what is known of it."""
    return {
        "usd": pay.usd,
        "unsure_usd": pay.unsure_usd,
        "num_replies": pay.num_replies,
        "known_usd": pay.micro_usd / 1e6,
        "attempts": pay.num_asked,
        "attempts_without_price": pay.num_unpriced,
    }


def _stage_cost(cost: StageCost) -> dict[str, Any]:
    return {
        "total": _cost(cost.total),
        "startup": _cost(cost.startup),
        "lost": _cost(cost.lost),
    }


def _account(account: StudyAccount | None) -> dict[str, Any]:
    """Where the figures of Slurm jobs are from; nothing without such jobs."""
    if account is None:
        return {}
    return {
        "queued_s": account.queued_s,
        "accounting": {
            "attempts_by_sacct": account.num_by_sacct,
            "attempts_of_local_commands": account.num_local,
            "attempts_by_journal": [_charge(charge) for charge in account.by_journal],
            "runs_without_attempt": [_charge(charge) for charge in account.idle],
            "problem": fmt.public(account.problem),
        },
    }


def _charge(charge: NamedCharge) -> dict[str, Any]:
    return {"stage": charge.stage, "what": charge.what, "seconds": charge.seconds}


def cell_json(cell: CellResult, *, has_jobs: bool) -> dict[str, Any]:
    """All of one cell."""
    return {
        "name": cell.cell.name,
        "setting": cell.label,
        "seed": cell.seed,
        "point": dict(cell.cell.point),
        "state": str(cell.state),
        "cause": fmt.public(cell.cause),
        "trainable_params": cell.cell.num_trainable_params,
        "params": cell.cell.num_params,
        "nodes": cell.cell.num_nodes,
        "scores": {name: _benchmark(found) for name, found in cell.scores.items()},
        "before": {name: _benchmark(found) for name, found in cell.before.items()},
        "costs": {
            name: _cost(getattr(cell.costs, name))
            for name in ("tune", "standalone", "share", "startup", "lost", "evaluation")
        },
        **(
            {
                "judging": {
                    **_judge_pay(cell.costs.judge),
                    "share_usd": cell.costs.judge_share.usd,
                }
            }
            if cell.costs.judge.num_asked
            else {}
        ),
        "costs_are_whole": cell.costs_are_whole,
        "tune_wall_s": round(cell.wall_s, 3),
        **({"queued_s": cell.queued_s} if has_jobs else {}),
        "loss": [[point.step, point.loss] for point in cell.loss],
    }


def _benchmark(result: BenchmarkResult) -> dict[str, Any]:
    return {
        "score": result.score,
        "standard_error": result.standard_error,
        "official": result.official,
        "num_questions": result.num_questions,
        "num_missing": result.num_missing,
        "num_unparsable": result.num_unparsable,
        "rule": result.rule,
        "options": dict(result.options),
        "judge_model": result.judge_model,
        "runs": list(result.runs),
        "run_spread": result.run_spread,
        "also": dict(result.also),
        "categories": _parts(result.categories),
        "other_parts": {name: _parts(parts) for name, parts in result.other_parts.items()},
    }


def _parts(parts: Mapping[str, CategoryResult]) -> dict[str, Any]:
    return {
        name: {
            "score": part.score,
            "standard_error": part.standard_error,
            "official": part.official,
            "num_questions": part.num_questions,
        }
        for name, part in parts.items()
    }


def _setting(report: StudyReport, setting: Setting) -> dict[str, Any]:
    blind = report.blind_twin(setting)
    return {
        "label": setting.label,
        "cells": [cell.cell.name for cell in setting.cells],
        "score": setting.score(report.primary),
        "standard_error": report.standard_error(setting),
        "error_sources": _error_sources(report.error_parts(setting)),
        "blind_score": blind.score(report.primary) if blind is not None else None,
        "costs": {name: _cost(setting.mean_cost(name)) for name in ("tune", "standalone", "share")},
        **(
            {"judge_usd": setting.mean_cost("judging").usd}
            if any(cell.costs.judge.num_asked for cell in setting.cells)
            else {}
        ),
    }


def _error_sources(parts: ErrorParts | None) -> dict[str, float | None]:
    """Standard error by where it comes from; null: not known, so not in the whole."""
    found = parts.by_source if parts is not None else {}
    return {name: None if value is None else math.sqrt(value) for name, value in found.items()}


def _finding(judged: Judged) -> dict[str, Any]:
    value = judged.estimate
    return {
        "id": judged.finding.id,
        "paper": judged.finding.paper,
        "claim": judged.finding.claim,
        "paper_says": judged.finding.paper_says,
        "kind": str(judged.finding.kind),
        "measure": str(judged.finding.measure),
        "verdict": str(judged.verdict),
        "reason": judged.reason,
        "sides": [
            {
                "name": side.name,
                "setting": setting.label,
                "before_tuning": side.before,
                "value": number,
                "seeds": seeds,
            }
            for side, setting, number, seeds in zip(
                judged.finding.sides,
                judged.settings,
                judged.values,
                judged.num_seeds,
                strict=False,
            )
        ],
        "value": value.value if value else None,
        "standard_error": value.standard_error if value else None,
        "df": value.df if value and math.isfinite(value.df) else None,
        "low": value.low if value else None,
        "high": value.high if value else None,
        "must_be_above": judged.threshold if value else None,
        "num_questions": judged.num_questions,
        "also_differs": list(judged.also_differs),
    }


def _stage(stage: StageResult) -> dict[str, Any]:
    return {
        "stage": str(stage.ref),
        "label": stage.label,
        "state": str(stage.state),
        "cause": fmt.public(stage.cause),
        "cells": stage.num_cells,
        "attempts": [
            {
                "number": attempt.number,
                "published": attempt.published,
                "outcome": str(attempt.usage.outcome) if attempt.usage else "unknown",
                "started_at": attempt.usage.started_at if attempt.usage else None,
                "wall_s": attempt.usage.wall_s if attempt.usage else None,
                **_charged(attempt, stage.account),
            }
            for attempt in stage.attempts
        ],
        "costs": _stage_cost(stage.cost),
        **({"queued_s": stage.queued_s} if stage.account else {}),
    }


def _charged(attempt: Attempt, account: StageAccount | None) -> dict[str, Any]:
    """What an attempt is charged, and by whose account; nothing where Slurm never ran its stage."""
    charge = (
        next((c for c in account.charges if c.number == attempt.number), None) if account else None
    )
    if charge is None:
        return {}
    return {
        "charged_s": charge.usage.wall_s if charge.usage else None,
        "charged_devices": charge.usage.num_devices if charge.usage else None,
        "charged_by": str(charge.source),
        "job": charge.run.element if charge.run else None,
        "restart": charge.run.restarts if charge.run else None,
    }
