"""Documents of every format become the same blocks; unreadable ones say what is wrong and how to mend it."""

import pytest

from proveout.errors import InvalidInput
from proveout.retrieval.parse import MAX_BYTES, SUFFIXES, Parsed, parse

MARKDOWN = b"""---
title: Travel
readers: [group:hr]
---
# Travel allowance

Trips over **five hours** earn an [allowance](https://x.example/a).
It is paid monthly.

## Rates

| Country | Day |
|---|---|
| Norway | 80 EUR |
| Spain | 55 EUR |

Claims need:

- the form
- a receipt
  1. scanned
  2. legible

```
code here
```
"""

HTML = b"""<html><head><title>VPN | Intranet</title><style>p{}</style></head><body>
<header><a href=/>Home</a></header><nav><ul><li>Menu</li></ul></nav>
<div class="breadcrumb">IT / VPN</div>
<main><h1>VPN</h1><p>Start the client <b>before</b> you sign in.<ul><li>Open it<ul><li>as yourself</li></ul></li>
<li>Sign in</li></ul><h2>Limits</h2><table><tr><th>What</th><th>Limit</th></tr><tr><td>Session</td><td>9 hours</td></tr>
</table><p>One<br>two</main><footer>Imprint</footer><script>alert(1)</script></body></html>"""

TEXT = b"""Gdansk office

Opening hours

The office is open from 7:00 to 19:00 on every working day of the
year, and closed on Sundays.

* First floor: laboratory
* Second floor: offices and a kitchen that is shared with
  the neighbours
"""


def texts(parsed: Parsed, kind: str) -> list[str]:
    return [b.text for b in parsed.blocks if b.kind == kind]


def pdf(lines: list[tuple[int, int, int, str]]) -> bytes:
    """One page; each line is (x, y, font size, text)."""
    content = "".join(f"BT /F1 {size} Tf {x} {y} Td ({text}) Tj ET\n" for x, y, size, text in lines).encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Resources<</Font<</F1 4 0 R>>>>/Contents 5 0 R>>",
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(content), content),
    ]
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj%s endobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % o for o in offsets)
    return out + b"xref\n0 6\n0000000000 65535 f \n%strailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (
        table,
        len(out),
    )


def test_markdown() -> None:
    parsed = parse("travel/allowance.md", MARKDOWN)
    assert parsed.title == "Travel"
    assert parsed.metadata["readers"] == ["group:hr"]
    assert texts(parsed, "paragraph") == [
        "Trips over five hours earn an allowance. It is paid monthly.",
        "Claims need:",
    ]
    assert texts(parsed, "row") == ["Country: Norway; Day: 80 EUR", "Country: Spain; Day: 55 EUR"]
    assert texts(parsed, "item") == ["- the form", "- a receipt", "1. scanned", "2. legible"]
    assert texts(parsed, "code") == ["code here"]
    assert {b.headings for b in parsed.blocks if b.kind == "row"} == {("Rates",)}


def test_html_without_furniture() -> None:
    parsed = parse("it/vpn.html", HTML)
    assert parsed.title == "VPN"
    assert parsed.text.split("\n\n") == [
        "VPN",
        "Start the client before you sign in.",
        "- Open it\n- as yourself\n- Sign in",
        "Limits",
        "What: Session; Limit: 9 hours",
        "One two",
    ]


def test_text_is_unwrapped() -> None:
    parsed = parse("facilities/gdansk.txt", TEXT)
    assert parsed.title == "Gdansk office"
    assert parsed.text.split("\n\n")[2:] == [
        "The office is open from 7:00 to 19:00 on every working day of the year, and closed on Sundays.",
        "- First floor: laboratory\n- Second floor: offices and a kitchen that is shared with the neighbours",
    ]
    assert parsed.blocks[-1].headings == ("Opening hours",)


def test_pdf_lines_headings_and_pages() -> None:
    long = "Every employee who travels for the company has insur-"
    data = pdf([(72, 760, 18, "Insurance"), (72, 720, 11, long), (72, 706, 11, "ance from the first day."),
                (72, 680, 11, "Call the desk."), (72, 640, 11, "- bring the card")])  # fmt: skip
    parsed = parse("travel/insurance_guide.pdf", data)
    assert parsed.title == "Insurance guide"
    assert texts(parsed, "heading") == ["Insurance"]
    assert texts(parsed, "paragraph") == [
        "Every employee who travels for the company has insurance from the first day.",
        "Call the desk.",
    ]
    assert texts(parsed, "item") == ["- bring the card"]
    assert {(b.page, b.headings) for b in parsed.blocks if b.kind == "paragraph"} == {(1, ("Insurance",))}


def test_spans_point_into_the_text() -> None:
    for name, data in (("a.md", MARKDOWN), ("a.html", HTML), ("a.txt", TEXT)):
        parsed = parse(name, data)
        assert [parsed.text[a:b] for a, b in parsed.spans] == [b.text for b in parsed.blocks]


def test_windows_1252_is_read() -> None:
    assert "Café – 5 €" in parse("a.txt", "Our Café – 5 € a cup, every day.".encode("cp1252")).text


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.doc", b"x", "not supported"),
        ("a.docx", b"x", "broken"),
        ("a.pdf", b"%PDF-1.4 nothing", "broken"),
        ("a.pdf", b"", "broken"),
        ("a.txt", b"  \n ", "no text"),
        ("a.md", b"# Only a heading\n", "no text"),
        ("a.txt", bytes(range(32)) * 9, "save it as UTF-8"),
        ("a.md", b"---\na: [\n---\ntext", "front matter"),
        ("a.html", b"<html><nav>menu</nav></html>", "no text"),
    ],
)
def test_what_cannot_be_read_says_so(name: str, data: bytes, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as caught:
        parse(name, data)
    assert caught.value.message.startswith(f"{name}: ")


def test_size_is_bounded() -> None:
    with pytest.raises(InvalidInput, match="split it"):
        parse("a.txt", b"x" * (MAX_BYTES + 1))


def test_deep_html_neither_crashes_nor_hangs() -> None:
    assert "deep" in parse("a.html", b"<div>" * 5000 + b"deep down" + b"</div>" * 5000).text


def test_every_suffix_has_a_reader() -> None:
    assert set(SUFFIXES) == {".md", ".markdown", ".html", ".htm", ".txt", ".pdf", ".docx"}
