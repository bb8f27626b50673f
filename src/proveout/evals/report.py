"""What an evaluation found, for people and for machines: HTML in one file, JUnit XML, Markdown, JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import jinja2
import msgspec

from proveout.evals.bias import Gap
from proveout.evals.cases import Case
from proveout.evals.compare import Change, Comparison, Difference
from proveout.evals.judge import CORRECTING, Judgement
from proveout.evals.plots import Forest, forest
from proveout.evals.statistics import Better, Interval, Kind
from proveout.evals.targets import Judged, Verdict

_TEMPLATE = Path(__file__).with_name("report.html")
_GAPS = 10  # are shown, the surest
_LONG = 300  # characters of a cell
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Score(msgspec.Struct, frozen=True):
    """The mean of one scorer over the cases that it says something about; None where there were none."""

    name: str
    kind: Kind
    better: Better
    interval: Interval | None


class Missed(msgspec.Struct, frozen=True):
    """A case that was not answered as it should be: by which scorers, and what was said."""

    case: str
    question: str
    answer: str
    missed: list[str]
    expected: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One evaluation of one release. `made` in ISO 8601, `usd` what it cost, `notes` what a reader must know."""

    release: str
    digest: str
    dataset: str  # the digest of the data set
    made: str
    cases: int
    repeats: int = 1
    scores: list[Score]
    targets: list[Judged] = []
    baseline: str = ""
    comparison: Comparison | None = None
    missed: list[Missed] = []
    changes: list[Change] = []  # of answers against the baseline's, most changed first
    bias: list[Gap] = []  # surest first
    usd: float = 0.0
    notes: list[str] = []
    whole: bool = True  # every question was asked
    failing: bool = False  # so many calls failed that nothing is decided
    judge: Judgement | None = None

    @property
    def verdict(self) -> Verdict:
        if self.failing:
            return "inconclusive"
        return verdict_of(self.targets, self.comparison, self.bias, self.whole)

    @property
    def reason(self) -> str:
        """Why the verdict is no `pass`; "" where it is one."""
        if self.verdict == "pass":
            return ""
        alike = [j for j in self.targets if j.verdict == self.verdict and not j.advises]
        told = [f"{j.target.name}: {j.reason}" for j in alike]
        for c in self.comparison.metrics if self.comparison else []:
            if c.overall.verdict == self.verdict:
                told.append(f"{c.metric.name} against {self.baseline}: {c.overall.reason}")
        told += [f"bias: {_pair(gap)}" for gap in self.bias if gap.alarm]
        if self.failing:
            told.insert(0, "so many calls failed that nothing is decided")
        if not self.whole:
            told.append("the budget ended it before every question was asked")
        return "; ".join(told) or "no target and no comparison decides"


def verdict_of(targets: Sequence[Judged], comparison: Comparison | None, bias: Sequence[Gap], whole: bool) -> Verdict:
    """`fail` if a target or the comparison fails, or bias is found, else `inconclusive` if one is, if nothing decides
    (no target and no comparison, or targets that all only advise), or if not every question was asked."""
    verdicts = {judged.verdict for judged in targets if not judged.advises}
    if targets and not verdicts:
        verdicts.add("inconclusive")
    if comparison:
        verdicts.add(comparison.verdict)
    if "fail" in verdicts or any(gap.alarm for gap in bias):
        return "fail"
    return "pass" if verdicts == {"pass"} and whole else "inconclusive"


def expectation(case: Case) -> str:
    """What a case expects, for a person."""
    if case.unanswerable:
        return "a refusal"
    said = [fact if isinstance(fact, str) else " or ".join(fact) for fact in case.facts]
    said += [case.exact] if case.exact is not None else []
    if case.numeric:
        within = f", at most {case.numeric.tolerance:g} away" if case.numeric.tolerance else ""
        said.append(f"the number {case.numeric.value:g}{within}")
    said += [f"the pattern {case.regex}"] if case.regex is not None else []
    said += ["JSON that fits its schema"] if case.json_schema is not None else []
    said = said or [case.reference]
    said += [f"not: {fact if isinstance(fact, str) else ' or '.join(fact)}" for fact in case.forbidden]
    return "; ".join(filter(None, said))


def as_json(report: Report) -> str:
    """The report and its verdict; a bound that is infinite is null."""
    return msgspec.json.encode({"verdict": report.verdict, **msgspec.to_builtins(report)}).decode()


def as_html(report: Report) -> str:
    """One page that needs nothing else: no script, no font, no image from elsewhere."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": number, "told": told, "signed": lambda value: number(value, "+")}
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        report=report,
        scores=_scores_plot(report),
        differences=_differences_plot(report),
        slices=_slices(report),
        gaps=[(_pair(gap), gap) for gap in report.bias[:_GAPS]],
        judge=judge_lines(report.judge) if report.judge else [],
    )


def as_markdown(report: Report) -> str:
    """A summary for a pull request or a job's page."""
    lines = [
        f"## {_cell(report.release)}: {report.verdict}",
        "",
        f"{report.cases} cases, {report.repeats} × each, {report.usd:.4f} USD. Release `{report.digest}`, data set "
        f"`{report.dataset}`.",
        *(line for note in report.notes for line in ("", f"> {_cell(note)}")),
    ]
    if report.targets:
        lines += ["", "| target | wanted | verdict | |", "|---|---|---|---|"]
        for j in report.targets:
            lines.append(f"| {_cell(j.target.name)} | {_cell(j.target.text)} | {j.verdict} | {_cell(j.reason)} |")
    if report.comparison:
        lines += ["", f"| against {_cell(report.baseline)} | before | now | difference (95 %) | verdict | reason |"]
        lines += ["|---|---|---|---|---|---|"]
        lines += [
            f"| {_cell(c.metric.name)} | {number(c.overall.baseline)} | {number(c.overall.candidate)} | "
            f"{_difference(c.overall)} | {c.overall.verdict} | {_cell(c.overall.reason)} |"
            for c in report.comparison.metrics
        ]
        if worst := report.comparison.worst_slice:
            lines += ["", f"Worst slice: {_cell(worst.tag)}, {_cell(worst.metric)} {number(worst.difference, '+')}."]
    if report.bias:
        lines += ["", "| bias | first minus second (95 %) | p | |", "|---|---|---|---|"]
        for gap in report.bias[:_GAPS]:
            said = "alarm" if gap.alarm else ""
            lines.append(f"| {_cell(_pair(gap))} | {told(gap.difference)} | {number(gap.p_adjusted)} | {said} |")
    if report.judge:
        lines += ["", *(f"- {_cell(line)}" for line in judge_lines(report.judge))]
    lines += ["", "| score | mean (95 %) | cases |", "|---|---|---|"]
    lines += [f"| {_cell(s.name)} | {told(s.interval)} | {s.interval.n if s.interval else 0} |" for s in report.scores]
    if report.missed:
        lines += ["", "| missed | by | expected | answered |", "|---|---|---|---|"]
        for case in report.missed:
            cells = (case.case, ", ".join(case.missed), case.expected, case.answer)
            lines.append(f"| {' | '.join(_cell(_short(cell)) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def as_junit(report: Report) -> str:
    """JUnit XML: targets, compared metrics and the verdict are tests; `fail` fails, `inconclusive` is skipped."""
    suites = ElementTree.Element("testsuites", name=_clean(report.release))
    tests = [(f"{j.target.name} {j.target.text}", j.verdict, j.reason) for j in report.targets]
    _suite(suites, "targets", tests)
    if report.comparison:
        compared = [(c.metric.name, c.overall.verdict, c.overall.reason) for c in report.comparison.metrics]
        _suite(suites, f"against {report.baseline}", compared)
    if report.bias:
        verdicts: dict[bool, Verdict] = {True: "fail", False: "pass"}
        gaps = [(_pair(gap), verdicts[gap.alarm], told(gap.difference)) for gap in report.bias]
        _suite(suites, "bias", gaps)
    if report.judge:
        may: Verdict = "pass" if report.judge.decides else "inconclusive"
        _suite(suites, "judge", [("agreement with people", may, report.judge.standing)])
    verdict = _suite(suites, "verdict", [("verdict", report.verdict, report.reason)])
    if report.missed:
        ElementTree.SubElement(verdict, "system-out").text = _clean("\n".join(map(_told_of_missed, report.missed)))
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"


def judge_lines(judge: Judgement) -> list[str]:
    """What a person must know of the judge before its scores, each a sentence's length."""
    again = "" if judge.variance is None else f", variance between repeats {number(judge.variance)}"
    lines = [f"judge {judge.model} {judge.standing}", f"{judge.unread:.0%} of its words could not be read{again}"]
    if judge.agreement:
        lines[0] += f"; the same as people on {told(judge.agreement.accuracy)} of them"
    if judge.corrected >= CORRECTING:
        lines.append(f"its mean is corrected by what people say of {judge.corrected} of these answers")
    if judge.pairs:
        pairs = judge.pairs
        lines.append(
            f"side by side: {pairs.wins} better, {pairs.losses} worse, {pairs.ties} as good as the baseline's; "
            f"net {told(pairs.net)}; the place of an answer decided {pairs.earlier + pairs.later:.0%}"
        )
    return lines


def _suite(suites: ElementTree.Element, name: str, tests: Sequence[tuple[str, Verdict, str]]) -> ElementTree.Element:
    verdicts = [verdict for _, verdict, _ in tests]
    suite = ElementTree.SubElement(suites, "testsuite", name=_clean(name), tests=str(len(tests)))
    suite.set("failures", str(verdicts.count("fail")))
    suite.set("skipped", str(verdicts.count("inconclusive")))
    for title, verdict, reason in tests:
        case = ElementTree.SubElement(suite, "testcase", classname=_clean(name), name=_clean(title))
        if verdict != "pass":
            kind = "failure" if verdict == "fail" else "skipped"
            ElementTree.SubElement(case, kind, message=_clean(reason))
    return suite


def _told_of_missed(case: Missed) -> str:
    missed = ", ".join(case.missed)
    return f"{case.case} ({missed})\n  asked    {case.question}\n  expected {case.expected}\n  answered {case.answer}"


# -- what the page shows --------------------------------------------------------------------------


def _scores_plot(report: Report) -> Forest:
    shown = [(s, s.interval) for s in report.scores if s.interval and s.kind != "positive"]
    return forest([(s.name, told(i), s.better, i) for s, i in shown], 0.0, 1.0)


def _differences_plot(report: Report) -> Forest | None:
    if report.comparison is None:
        return None
    shown = [c for c in report.comparison.metrics if c.metric.kind != "positive"]
    rows = [(c.metric.name, _difference(c.overall), c.overall.verdict, _interval(c.overall)) for c in shown]
    return forest(rows) if rows else None


def _slices(report: Report) -> Sequence[tuple[str, Forest]]:
    """Per metric, the differences by tag."""
    found = []
    for compared in report.comparison.metrics if report.comparison else []:
        if compared.slices and compared.metric.kind != "positive":
            ordered: Mapping[str, Difference] = dict(sorted(compared.slices.items(), key=lambda s: s[1].p))
            rows = [(f"{tag} ({d.n})", _difference(d), d.verdict, _interval(d)) for tag, d in ordered.items()]
            found.append((compared.metric.name, forest(rows)))
    return found


def _interval(difference: Difference) -> Interval:
    return Interval(difference.difference, difference.low, difference.high, difference.n)


def _pair(gap: Gap) -> str:
    return f"{gap.attribute}: {gap.group}, {gap.other}"


def _difference(difference: Difference) -> str:
    low, high = number(difference.low, "+"), number(difference.high, "+")
    return f"{number(difference.difference, '+')} ({low} to {high})"


def told(interval: Interval | None) -> str:
    """`0.842 (0.790 to 0.884)`."""
    if interval is None:
        return "–"
    return f"{number(interval.estimate)} ({number(interval.low)} to {number(interval.high)})"


def number(value: float | None, sign: str = "") -> str:
    """Three decimals below ten, else whole; `+` as sign shows both signs."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    small = 0 < abs(value) < 0.001
    form = ".2g" if small else ".3f" if abs(value) < 10 else ",.0f"
    return format(value, sign + form).replace("-", "−")


def _cell(text: str) -> str:
    """Text for a cell of a Markdown table: no markup of its own."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(text.split()))


def _short(text: str) -> str:
    return text if len(text) <= _LONG else text[: _LONG - 2] + " …"


def _clean(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
