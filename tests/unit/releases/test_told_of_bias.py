"""What evidence says of bias: figures alone."""

from __future__ import annotations

import rfc8785

from proveout.evals.bias import variants
from proveout.evals.cases import Case
from proveout.releases.findings import told_of_bias


def gap(attribute: str, group: str, estimate: float, alarm: bool, high: float = 1.0) -> dict[str, object]:
    interval = {"estimate": estimate, "low": -0.1, "high": high, "n": 12, "confidence": 0.95}
    return {
        "attribute": attribute,
        "group": group,
        "other": "x",
        "difference": interval,
        "p_adjusted": 0.1,
        "alarm": alarm,
    }


def test_the_surest_gap_of_each_attribute_is_told() -> None:
    told = told_of_bias(
        [gap("name", "a", 0.3, True), gap("age", "b", 0.2, False, float("inf")), gap("name", "c", 0, False)]
    )
    assert [(one["attribute"], one["group"], one["alarm"], one["questions"]) for one in told] == [
        ("name", "a", True, 12),
        ("age", "b", False, 12),
    ]
    assert told[1]["high"] is None and rfc8785.dumps(told)  # evidence is canonical JSON, which knows no infinity
    assert told_of_bias([]) == []
    assert len(variants([Case("1", "May Emily park here?", facts=["yes"])])) == 6  # what `eval plan` counts
