"""The figures of a robustness report as plain data, for its JSON file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import combinations
from typing import Any

from rims_rl.experiments.robustness.conditions import CLEAN
from rims_rl.experiments.robustness.config import RobustnessConfig, plain_settings
from rims_rl.experiments.robustness.findings import Findings
from rims_rl.experiments.robustness.statistics import Estimate
from rims_rl.experiments.robustness.subjects import Subject
from rims_rl.machine import describe_machine

_FIGURES_OF_NO_MECHANISM = frozenset({"condition", "episodes", "seed", "deterministic", "max_episode_steps", "n_envs"})


def as_json(config: RobustnessConfig, findings: Findings, about: dict[str, Any]) -> dict[str, Any]:
    """Return every figure as JSON-safe data."""
    return {
        **_without_nan(about), "settings": plain_settings(config),
        "measured_on": describe_machine(), "missing": findings.missing,
        "random": [
            {"world": world, **condition._asdict(), "mean": float(scores.mean()), "scores": scores.tolist()}
            for (world, condition), scores in findings.random.items()
        ],
        "scores": [
            {**_who(subject), **condition._asdict(), "family": condition.family, "mean": float(scores.mean()),
             "retained": findings.retained(subject, condition), "human_normalised": findings.human(subject, condition),
             "scores": scores.tolist()}
            for (subject, condition), scores in findings.scores.items()
        ],
        "summary": list(_summary(findings)),
        "comparison": list(_comparison(findings)),
        "mechanism": [
            {**_who(subject), **condition._asdict(), **_only_figures(result)}
            for (subject, condition), result in findings.mechanism.items()
        ],
    }  # fmt: skip


def _without_nan(about: dict[str, Any]) -> dict[str, Any]:
    """Return what config.yaml says of a report, numbers that strict JSON lacks as texts: anyone may have added some."""
    plain: dict[str, Any] = json.loads(json.dumps(about), parse_constant=str)
    return plain


def _who(subject: Subject) -> dict[str, Any]:
    return {"agent": subject.label, "world": subject.world, "seed": subject.run.seed, "run": str(subject.path)}


def _only_figures(result: dict[str, Any]) -> dict[str, Any]:
    """Return what was measured without the rules, whose seed is that of the games and not of the run."""
    return {name: value for name, value in result.items() if name not in _FIGURES_OF_NO_MECHANISM}


def _summary(findings: Findings) -> Iterator[dict[str, Any]]:
    """Yield for each agent, family of conditions and world, None for all of them, the figures over the runs."""
    for label in findings.labels:
        for family in ("clean", *findings.families):
            conditions = [CLEAN] if family == "clean" else findings.of_family(family)
            for world in (*findings.worlds, None):
                numbers = {"score": findings.mean, "human_normalised": findings.human, "retained": findings.retained}
                if world is None:
                    del numbers["score"]  # raw scores of different games have no mean
                found = {name: findings.over_runs(number, label, conditions, world) for name, number in numbers.items()}
                if any(found.values()):
                    plain = {name: _plain(estimate) for name, estimate in found.items()}
                    _, seeds = findings.behind(findings.mean, label, conditions, world)
                    yield {"agent": label, "family": family, "world": world, "seeds": seeds, **plain}


def _plain(found: Estimate | None) -> dict[str, Any] | None:
    return None if found is None else found._asdict()


def _comparison(findings: Findings) -> Iterator[dict[str, Any]]:
    """Yield the paired differences of what two agents retain."""
    for first, second in combinations(findings.labels, 2):
        for family in findings.families:
            conditions = findings.of_family(family)
            pairs = findings.compared(findings.retained, first, second, conditions)
            if pairs is not None:
                yield {"first": first, "second": second, "family": family, "pairs": pairs.number,
                       "shared_seeds": findings.partners(first, second, conditions),
                       "better": pairs.better, "difference": pairs.difference._asdict()}  # fmt: skip
