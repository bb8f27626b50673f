"""Who may read: the longest pattern decides, front matter comes before, and a wrong mark opens nothing."""

import pytest

from proveout.errors import InvalidInput
from proveout.retrieval.readers import by_rules, check_readers, front_matter, matches


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("hr/**", "hr/pay.md", True),
        ("hr/**", "hr/a/b/pay.md", True),
        ("hr/**", "hrx/pay.md", False),
        ("hr/*", "hr/a/pay.md", False),
        ("**/pay.md", "pay.md", True),
        ("**/pay.md", "a/b/pay.md", True),
        ("*.md", "a/pay.md", False),
        ("a?.md", "ab.md", True),
        ("a?.md", "a/.md", False),
        ("a.md", "axmd", False),
        ("(a|b).md", "a.md", False),
    ],
)
def test_patterns(pattern: str, path: str, expected: bool) -> None:
    assert matches(pattern, path) is expected


def test_the_longest_pattern_decides() -> None:
    rules = {"**": ["group:staff"], "hr/**": ["group:hr"], "hr/open/**": ["everyone"], "hr/x.md": []}
    assert by_rules(rules, "a.md") == ("group:staff",)
    assert by_rules(rules, "hr/b.md") == ("group:hr",)
    assert by_rules(rules, "hr/open/b.md") == ("everyone",)
    assert by_rules(rules, "hr/x.md") == ()
    assert by_rules({}, "a.md") == ("everyone",)


def test_front_matter_comes_before() -> None:
    assert front_matter("a", {}, ("everyone",)) == ("everyone",)
    assert front_matter("a", {"readers": ["user:ann", "group:hr"]}, ("everyone",)) == ("group:hr", "user:ann")
    assert front_matter("a", {"readers": "group:hr"}, ("everyone",)) == ("group:hr",)
    assert front_matter("a", {"readers": []}, ("everyone",)) == front_matter("a", {"readers": None}, ("x",)) == ()


@pytest.mark.parametrize("wrong", ["hr", "group:", "user: x", "Everyone", "group:a\nb", ["everyone", 7], {"hr": 1}, 7])
def test_what_is_no_mark_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidInput):
        check_readers(wrong)
    with pytest.raises(InvalidInput, match=r"^a\.md: "):
        front_matter("a.md", {"readers": wrong}, ())
