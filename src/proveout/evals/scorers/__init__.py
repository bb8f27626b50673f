"""Scorers: what was delivered against what a case demands. One file a family; here is the list of them."""

from __future__ import annotations

from proveout.errors import InvalidInput
from proveout.evals.scorers.confined import Confined
from proveout.evals.scorers.delivered import Delivered, Kind, Plain, Scorer
from proveout.evals.scorers.effort import cost, per_token_ms, tokens, total_ms, ttft_ms
from proveout.evals.scorers.meaning import Embed, Similarity, Unsupported, Weigh
from proveout.evals.scorers.outcome import Correct, answering, refusal, restricted
from proveout.evals.scorers.personal_data import personal_data
from proveout.evals.scorers.sources import (
    citation_precision,
    citation_recall,
    retrieval,
    retrieval_mrr,
    retrieval_ndcg,
    retrieval_recall,
)
from proveout.evals.scorers.toxicity import Toxicity
from proveout.evals.scorers.words import Regex, exact, facts, json_schema, numeric

__all__ = ["Delivered", "Scorer", "kinds", "scorers"]


_RESERVED = (
    "similarity",
    "toxicity",
    "unsupported",
    "judge",
    "consistency",
    "paraphrases",
)  # whether they are made here or not


def kinds(custom: Confined | None = None) -> dict[str, Kind]:
    """All that an evaluation may measure, by name, what an app brings itself too. Raises InvalidInput as `scorers`."""
    return {
        **dict.fromkeys(_RESERVED, "unit"),
        **{name: scorer.kind for name, scorer in scorers(custom=custom).items()},
    }


def scorers(
    embed: Embed | None = None, support: Weigh | None = None, custom: Confined | None = None
) -> dict[str, Scorer]:
    """The scorers by name. `embed` makes texts vectors, `support` weighs the sentences of an answer against passages;
    without one, the scorers that need it are left out. `custom` brings an app's own; whoever made it ends it.

    Raises InvalidInput for an own scorer with the name of one of ours: it could let an app pass its own gate.
    """
    expectations: tuple[Scorer, ...] = (
        Plain("facts", facts),
        Plain("exact", exact),
        Plain("numeric", numeric),
        Regex(),
        Plain("json_schema", json_schema),
    )
    made: list[Scorer] = [
        Correct(expectations),
        *expectations,
        Plain("retrieval", retrieval),
        Plain("retrieval_recall", retrieval_recall, "unit"),
        Plain("retrieval_mrr", retrieval_mrr, "unit"),
        Plain("retrieval_ndcg", retrieval_ndcg, "unit"),
        Plain("citation_precision", citation_precision, "unit"),
        Plain("citation_recall", citation_recall, "unit"),
        Plain("refusal", refusal),
        Plain("answering", answering),
        Plain("restricted", restricted),
        Plain("personal_data", personal_data, better="lower"),
        Plain("ttft_ms", ttft_ms, "positive", "lower"),
        Plain("per_token_ms", per_token_ms, "positive", "lower"),
        Plain("total_ms", total_ms, "positive", "lower"),
        Plain("tokens", tokens, "positive", "lower"),
        Plain("cost", cost, "positive", "lower"),
    ]
    if embed:
        made += [Similarity(embed), Toxicity(embed)]
    if support:
        made.append(Unsupported(support))
    found = {scorer.name: scorer for scorer in made}
    for own in custom.scorers() if custom else []:
        if own.name in found or own.name in _RESERVED:
            raise InvalidInput(f"{own.child.file}: {own.name} is the name of a built-in scorer: give yours another")
        found[own.name] = own
    return found
