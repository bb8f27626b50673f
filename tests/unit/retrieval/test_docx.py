"""DOCX: headings, numbered and plain lists, tables that keep their labels; nothing hidden, nothing hostile."""

from __future__ import annotations

import io
import zipfile

import pytest

from proveout.errors import InvalidInput
from proveout.retrieval import docx
from proveout.retrieval.parse import Parsed, parse

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
STYLES = """
<w:style w:styleId="T"><w:name w:val="Title"/></w:style>
<w:style w:styleId="H1"><w:name w:val="heading 1"/></w:style>
<w:style w:styleId="H2"><w:name w:val="Ueber 2"/><w:pPr><w:outlineLvl w:val="1"/></w:pPr></w:style>
<w:style w:styleId="H2b"><w:name w:val="Mine"/><w:basedOn w:val="H2"/></w:style>
<w:style w:styleId="Round"><w:name w:val="a"/><w:basedOn w:val="Round"/></w:style>
<w:style w:styleId="LB"><w:name w:val="List Bullet"/><w:pPr><w:numPr><w:numId w:val="1"/></w:numPr></w:pPr></w:style>
"""
NUMBERING = """
<w:abstractNum w:abstractNumId="0"><w:lvl w:ilvl="0"><w:numFmt w:val="bullet"/></w:lvl></w:abstractNum>
<w:abstractNum w:abstractNumId="1"><w:lvl w:ilvl="0"><w:start w:val="4"/><w:numFmt w:val="decimal"/></w:lvl>
<w:lvl w:ilvl="1"><w:numFmt w:val="lowerLetter"/></w:lvl></w:abstractNum>
<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num><w:num w:numId="2"><w:abstractNumId w:val="1"/></w:num>
"""


def pack(body: str, **parts: str) -> bytes:
    """A file with this body; the other parts are styles, numbering and core."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", f'<w:document xmlns:w="{W}"><w:body>{body}</w:body></w:document>')
        archive.writestr("word/styles.xml", f'<w:styles xmlns:w="{W}">{parts.get("styles", STYLES)}</w:styles>')
        archive.writestr("word/numbering.xml", f'<w:numbering xmlns:w="{W}">{NUMBERING}</w:numbering>')
        dc = "http://purl.org/dc/elements/1.1/"
        title = f"<x xmlns:dc='{dc}'><dc:title>{parts.get('title', '')}</dc:title></x>"
        archive.writestr("docProps/core.xml", title)
    return out.getvalue()


def p(text: str, style: str = "", properties: str = "") -> str:
    style = f'<w:pStyle w:val="{style}"/>' if style else ""
    return f"<w:p><w:pPr>{style}{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"


def item(text: str, number: int, level: int = 0) -> str:
    return p(text, properties=f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="{number}"/></w:numPr>')


def table(*rows: list[str], look: str = "") -> str:
    cells = (f"<w:tr>{''.join(c if c[:5] == '<w:tc' else f'<w:tc>{p(c)}</w:tc>' for c in row)}</w:tr>" for row in rows)
    return f"<w:tbl><w:tblPr>{look}</w:tblPr>{''.join(cells)}</w:tbl>"


def read(body: str, **parts: str) -> Parsed:
    return parse("x/travel_rules.docx", pack(body, **parts))


def texts(parsed: Parsed, kind: str) -> list[str]:
    return [b.text for b in parsed.blocks if b.kind == kind]


def test_headings_by_style_outline_and_inheritance() -> None:
    parsed = read(
        p("Rules", "T") + p("Leave", "H1") + p("Years", "H2b") + p("25 days.") + p("Pay", "H1") + p("Monthly.")
    )
    assert parsed.title == "Rules"
    assert [(b.text, b.headings) for b in parsed.blocks if b.kind == "paragraph"] == [
        ("25 days.", ("Leave", "Years")), ("Monthly.", ("Pay",)),
    ]  # fmt: skip


def test_the_title_is_styled_or_a_property_or_the_first_heading_or_the_name() -> None:
    body = p("Leave", "H1") + p("25 days.")
    assert read(p("Rules", "T") + body, title="A Template Title").title == "Rules"
    assert read(body, title="Rules of Travel").title == "Rules of Travel"
    assert read(body, title="Rules of Travel").blocks[-1].headings == ("Leave",)
    assert read(body).title == "Leave"
    assert read(p("25 days.")).title == "Travel rules"


def test_lists_count_as_word_counts() -> None:
    body = (
        item("a", 2)
        + item("b", 2)
        + item("b1", 2, 1)
        + item("c", 2)
        + item("c1", 2, 1)
        + p("dot", "LB")
        + p("x", "Round")
    )
    assert texts(read(body), "item") == ["4. a", "5. b", "1. b1", "6. c", "1. c1", "- dot"]


def test_rows_keep_their_labels() -> None:
    merged = '<w:tc><w:tcPr><w:vMerge w:val="restart"/></w:tcPr>' + p("EU") + "</w:tc>"
    goes_on = "<w:tc><w:tcPr><w:vMerge/></w:tcPr><w:p/></w:tc>"
    wide = '<w:tc><w:tcPr><w:gridSpan w:val="2"/></w:tcPr>' + p("by agreement") + "</w:tc>"
    parsed = read(
        table(["Region", "Country", "Day"], [merged, "Spain", "55"], [goes_on, "Norway", "80"], ["Asia", wide])
    )
    assert texts(parsed, "row") == [
        "Region: EU; Country: Spain; Day: 55",
        "Region: EU; Country: Norway; Day: 80",
        "Region: Asia; Country: by agreement",
    ]
    plain = read(table(["Phone", "123"], ["Mail", "a@b"], look='<w:tblLook w:firstRow="0"/>'))
    assert texts(plain, "row") == ["Phone; 123", "Mail; a@b"]


def test_a_table_in_a_cell_is_the_cell_s_text() -> None:
    inner = table(["Size", "small"])
    parsed = read(table(["What", "Details"], ["Sensor", f"<w:tc>{inner}<w:p/></w:tc>"]))
    assert texts(parsed, "row") == ["What: Sensor; Details: Size small"]


def test_what_is_not_shown_is_not_read() -> None:
    hidden = "<w:r><w:rPr><w:vanish/></w:rPr><w:t>hidden</w:t></w:r>"
    gone = "<w:del><w:r><w:delText>deleted</w:delText></w:r></w:del><w:r><w:instrText>HYPERLINK</w:instrText></w:r>"
    shown = "<w:ins><w:r><w:t>in</w:t><w:tab/><w:t>serted</w:t></w:r></w:ins>"
    shown += "<w:hyperlink><w:r><w:t>link</w:t></w:r></w:hyperlink>"
    assert read(f"<w:p>{hidden}{gone}{shown}</w:p>").text == "in sertedlink"
    assert "control" in read(f"<w:sdt><w:sdtPr/><w:sdtContent>{p('in a control')}</w:sdtContent></w:sdt>").text


def test_spans_are_exact() -> None:
    parsed = read(p("Rules", "T") + p("One.") + item("a", 1) + item("b", 1) + table(["A", "B"], ["1", "2"]))
    assert [parsed.text[a:b] for a, b in parsed.spans] == [b.text for b in parsed.blocks]


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_document_type_is_refused(encoding: str) -> None:
    text = (
        f'<?xml version="1.0" encoding="{encoding}"?>{BOMB}<w:document xmlns:w="{W}"><w:body>&b;</w:body></w:document>'
    )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("word/document.xml", text.encode(encoding))
    with pytest.raises(InvalidInput, match="declares a document type"):
        parse("a.docx", out.getvalue())


def test_what_unpacks_beyond_measure_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docx, "MAX_PART_BYTES", 10_000)
    with pytest.raises(InvalidInput, match="unpacks to more than"):
        read(p("x" * 20_000))
    monkeypatch.setattr(docx, "MAX_ENTRIES", 2)
    with pytest.raises(InvalidInput, match="parts"):
        read(p("x"))


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(InvalidInput, match="nests deeper"):
        read("<w:sdt>" * 300 + p("deep") + "</w:sdt>" * 300)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 not", pack("<w:p>")[:200]])
def test_broken_files_say_so(data: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"a\.docx: the DOCX is broken"):
        parse("a.docx", data)


def test_another_office_format_says_so() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("xl/workbook.xml", "<x/>")
    with pytest.raises(InvalidInput, match="not a DOCX"):
        parse("a.docx", out.getvalue())
