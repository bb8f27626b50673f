"""`proveout`: the command line."""

from __future__ import annotations

import sys

import typer

from proveout.edge.cli import (
    audit,
    backup,
    costs,
    doctor,
    erase,
    evaluate,
    hold,
    init,
    keys,
    knowledge,
    migrate,
    notify,
    output,
    releases,
    replay,
    requests,
    rollout,
    serve,
    witness,
)
from proveout.edge.cli.client import Refused
from proveout.errors import InvalidInput, NotFound, ProveoutError, StartRefused, Unavailable

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Takes a generative-AI application from proof of concept to production, and runs it there, with proof.",
    epilog="Environment: PROVEOUT_URL and PROVEOUT_KEY name the server and the key that most commands use.",
)
app.command()(serve.up)
app.command()(serve.login)
app.command()(init.init)
app.command()(releases.check)
app.command()(doctor.doctor)
app.command()(costs.costs)
app.command()(erase.erase)
app.command()(replay.replay)
app.command()(migrate.migrate)
app.command()(backup.backup)
app.command()(backup.restore)
app.command()(witness.witness)
app.command()(rollout.rollback)
app.add_typer(releases.app, name="release", help="Create releases, approve them, bring them into stages.")
app.add_typer(rollout.app, name="rollout", help="Let a release in step by step; it is rolled back by itself.")
app.add_typer(knowledge.app, name="knowledge", help="Search knowledge and look at its snapshots.")
app.add_typer(evaluate.app, name="eval", help="Ask a release questions, score, compare, report.")
app.add_typer(requests.app, name="requests", help="Search what was asked: who, when, of which release.")
app.add_typer(audit.app, name="audit", help="Receipts, and whether the log is what it was.")
app.add_typer(notify.app, name="notify", help="Who is told what happens: list them, send them a test.")
app.add_typer(keys.app, name="key", help="Create, list and revoke API keys; rotate the keys that seal content.")
app.add_typer(hold.app, name="hold", help="Keep what is on record from retention and erasure.")


def main() -> None:
    """Exit codes: 0 done, 1 a check failed or the server refused, 2 wrong usage or input, or no server answers,
    3 inconclusive. With `--json` an error is the one JSON document: `{"error": {"message", "code"}}`, with `missing`
    where a gate is closed."""
    try:
        app()
    except ProveoutError as error:
        sys.stderr.write(f"{error.message}\n")
        if "--json" in sys.argv:
            said = {"error": {"message": error.message, "code": error.code}}
            output.document(error.body if isinstance(error, Refused) else said)
        usage = isinstance(error, InvalidInput | NotFound | StartRefused | Unavailable) or (
            isinstance(error, Refused) and error.status in (400, 401, 404, 413)
        )
        sys.exit(2 if usage else 1)
    except KeyboardInterrupt:
        sys.exit(130)
