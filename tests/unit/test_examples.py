"""The example apps: enough documents of each kind, and golden questions that are answerable, fair and hard enough.

Documents are read here without the product's parsers, so that a mistake there cannot hide one here.
"""

from __future__ import annotations

import fnmatch
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pypdfium2
import pytest
import yaml

EXAMPLES = Path(__file__).parents[2] / "examples"
HELPDESK = EXAMPLES / "helpdesk"
HANDBOOK = HELPDESK / "knowledge"
DOCUMENTS = sorted(str(path.relative_to(HANDBOOK)) for path in HANDBOOK.rglob("*") if path.is_file())

Case = dict[str, Any]
WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"

STOP_WORDS = frozenset(
    re.findall(
        r"[a-z']+",
        """a about after all also am an and any are as at be because been before but by can could did do does during
        each for from get gets give gives given had has have having how i if in into is isn't it it's its
        just long many may me might more most much must my no not now of off on one only or other our out
        over own per should since so some still such take than that the their them then there these they
        this those through till to too under until up us want was we were what what's when where which while
        who whom whose why will with within without would yet you your i'd i'll i'm i've""",
    )
)


def read(app: str) -> list[Case]:
    lines = (EXAMPLES / app / "evals" / "golden.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


CASES = read("helpdesk")
ANSWERABLE = [case for case in CASES if not case["unanswerable"]]
RESTRICTED = [case for case in ANSWERABLE if case.get("groups")]
OUTSIDE = [case for case in CASES if case["unanswerable"] and case["documents"]]


class Page(HTMLParser):
    """A page's text with `\\n# ` before its headings, without what stands around its content."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self._around = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._around += tag in ("nav", "header", "footer", "aside", "head")
        self.text += "\n# " if re.fullmatch("h[1-6]", tag) else "\n" if tag in ("p", "li", "tr") else " "

    def handle_endtag(self, tag: str) -> None:
        self._around -= tag in ("nav", "header", "footer", "aside", "head")
        self.text += "\n" if re.fullmatch("h[1-6]", tag) else " "

    def handle_data(self, data: str) -> None:
        self.text += "" if self._around else data


def paragraphs_of_docx(path: Path) -> Iterator[str]:
    with zipfile.ZipFile(path) as archive:
        root = ElementTree.fromstring(archive.read("word/document.xml"))
    for paragraph in root.iter(f"{WORD}p"):
        style = paragraph.find(f"{WORD}pPr/{WORD}pStyle")
        heading = style is not None and str(style.get(f"{WORD}val")).startswith(("Heading", "Title"))
        yield ("# " if heading else "") + "".join(node.text or "" for node in paragraph.iter(f"{WORD}t"))


@cache
def text_of(document: str) -> str:
    """A document's text; its headings stand on lines of their own that begin with `# `."""
    path = HANDBOOK / document
    match path.suffix:
        case ".html":
            page = Page()
            page.feed(path.read_text())
            return page.text
        case ".docx":
            return "\n".join(paragraphs_of_docx(path))
        case ".pdf":
            pdf = pypdfium2.PdfDocument(path)
            try:
                text = "\n".join(page.get_textpage().get_text_range() for page in pdf)
            finally:
                pdf.close()
            return re.sub(r"(?m)^\d+\. (?=[A-Z])", "# ", text.replace("\r", ""))
        case ".txt":
            return re.sub(r"(?m)^(?=[A-Z][A-Z '-]+$)", "# ", path.read_text())
    return re.sub(r"(?m)^#+ ", "# ", path.read_text())


def plain(text: str) -> str:
    return " ".join(re.sub(r"[*_`|]", " ", text).casefold().replace("’", "'").split())


def stands_in(fact: str | list[str], text: str) -> bool:
    if isinstance(fact, list):
        return any(stands_in(alternative, text) for alternative in fact)
    return re.search(r"(?<!\w)" + re.escape(plain(fact)) + r"(?!\w)", plain(text)) is not None


def content_words(text: str) -> set[str]:
    """The words that carry meaning, without their commonest endings."""
    words = re.findall(r"[£€$±]?\w[\w.,:%'-]*", text.casefold().replace("’", "'"))
    return {
        re.sub(r"(?<=\w{3})(?:'s|ing|ies|ed|es|s|ey|e|y)$", "", word)
        for word in (found.rstrip(".,:'-") for found in words)
        if word not in STOP_WORDS
    }


def reuse(case: Case) -> float:
    """The share of a question's content words in the section that holds its fact; of several, the shortest."""
    question = content_words(case["question"])
    shares = [0.0]
    for document in case["documents"]:
        sections = re.split(r"(?m)^(?=# )", text_of(document))
        for fact in case["facts"]:
            if found := [section for section in sections if stands_in(fact, section)]:
                passage = content_words(min(found, key=len))
                shares.append(len(question & passage) / len(question))
    return max(shares)


def readers_of(document: str) -> str:
    rules: dict[str, list[str]] = yaml.safe_load((HELPDESK / "app.yaml").read_text())["knowledge"][0]["readers"]
    front = re.match(r"---\n(.*?)\n---\n", (HANDBOOK / document).read_text(errors="replace"), re.DOTALL)
    if front and (marks := yaml.safe_load(front[1]).get("readers")):
        return str(marks[0])
    return next((marks[0] for pattern, marks in rules.items() if fnmatch.fnmatch(document, pattern)), "everyone")


def test_there_are_documents_of_every_kind() -> None:
    kinds = Counter(Path(document).suffix for document in DOCUMENTS)
    readers = Counter(readers_of(document) for document in DOCUMENTS)
    assert len(DOCUMENTS) >= 66
    assert min(kinds[suffix] for suffix in (".md", ".html", ".txt", ".pdf", ".docx")) >= 4, kinds
    assert set(readers) == {"everyone", "group:hr", "group:finance"} and min(readers.values()) >= 5, readers
    for document in DOCUMENTS:
        assert (HANDBOOK / document).stat().st_size < 50_000, f"{document} is large for an example"
        assert len(text_of(document).split()) > 100, f"{document} says too little"


def test_superseded_documents_say_so_with_the_date() -> None:
    told = [document for document in DOCUMENTS if "(superseded)" in text_of(document)[:300]]
    assert len(told) >= 5
    for document in told:
        said = re.search(r"superseded.{0,400}?\b(\d{1,2} \w+ 20\d\d)", plain(text_of(document)))
        assert said, f"{document} does not say since when"


def test_there_are_enough_questions() -> None:
    assert len(CASES) >= 124
    assert len({case["id"] for case in CASES}) == len(CASES)
    assert len([case for case in CASES if case["unanswerable"] and not case["documents"]]) >= 26
    assert len(RESTRICTED) >= 15
    asked = Counter(document for case in ANSWERABLE for document in case["documents"])
    assert len(asked) >= 60, "the questions leave out too much of the handbook"


def test_unanswerable_questions_are_half_near_the_topics() -> None:
    kinds = Counter(
        "off-topic" in case["tags"] for case in CASES if case["unanswerable"] and "restricted" not in case["tags"]
    )
    assert abs(kinds[True] - kinds[False]) <= 2, kinds


@pytest.mark.parametrize("case", ANSWERABLE, ids=lambda case: case["id"])
def test_every_fact_stands_in_a_source(case: Case) -> None:
    assert case["documents"] and case["facts"]
    for document in case["documents"]:
        assert document in DOCUMENTS
    for fact in case["facts"]:
        assert any(stands_in(fact, text_of(document)) for document in case["documents"]), fact


def test_questions_are_not_the_words_of_their_passage() -> None:
    worst = sorted(((reuse(case), case["id"], case["question"]) for case in ANSWERABLE), reverse=True)
    for share, name, question in worst[:25]:
        print(f"{share:.2f} {name}: {question}")
    print(f"mean {sum(share for share, _, _ in worst) / len(worst):.2f}")
    assert worst[0][0] <= 0.5, worst[0]


def test_restricted_questions_have_restricted_sources_alone() -> None:
    for case in ANSWERABLE:
        marks = {readers_of(document) for document in case["documents"]}
        assert marks == ({f"group:{group}" for group in case.get("groups", [])} or {"everyone"}), case["id"]


def test_each_restricted_question_is_asked_from_outside_too() -> None:
    inside = {case["question"]: case for case in RESTRICTED}
    assert {case["question"] for case in OUTSIDE} == set(inside)
    for case in OUTSIDE:
        assert case["documents"] == inside[case["question"]]["documents"]
        assert not set(case.get("groups", [])) & set(inside[case["question"]]["groups"]), case["id"]


def test_drafts_are_asked_for_what_the_notes_say() -> None:
    cases = read("drafting")
    assert len(cases) >= 5
    for case in cases:
        assert len(case["facts"]) >= 3
        for fact in case["facts"]:
            assert stands_in(fact, case["question"]), (case["id"], fact)
