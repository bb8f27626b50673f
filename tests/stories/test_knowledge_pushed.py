"""Documents pushed by the API: searchable when the answer comes, seen by their readers alone, gone when deleted."""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Server

Call = Callable[..., tuple[int, Any]]


@pytest.fixture
def call(server: Server) -> Call:
    """`call(method, path, body, key=…, kind=…)` below /api/v1."""

    def run(
        method: str, path: str, body: Any = None, key: str | None = None, kind: str = "application/json"
    ) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {key or server.owner_key}", "content-type": kind}
        request = urllib.request.Request(f"{server.url}/api/v1{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as refused:
            return refused.code, json.loads(refused.read())

    return run


def key_of(call: Call, name: str, groups: list[str], role: str = "user") -> str:
    return str(call("POST", "/keys", {"name": name, "groups": groups, "role": role})[1]["key"])


def found(call: Call, base: str, query: str, **more: Any) -> list[str]:
    key = more.pop("key", None)
    status, answer = call("POST", f"/knowledge/{base}/search", {"query": query, **more}, key=key)
    assert status == 200, answer
    return [result["document"] for result in answer["results"]]


def test_a_document_is_put_read_and_deleted(call: Call) -> None:
    hr, other = key_of(call, "ann", ["hr"]), key_of(call, "bob", [])
    path = "/knowledge/pushed/documents/hr%2Fpay%20%C3%BC%3F.txt"
    document = {"title": "Pay", "text": "The kestrel earns 41 a day.\n\nAnd more.", "metadata": {"year": 2025}}
    status, made = call("PUT", path, {**document, "readers": ["group:hr"]})
    assert status == 201 and made["document"] == "hr/pay ü?.txt" and made["snapshot"].startswith("sha256:")
    status, read = call("GET", path, key=hr)
    assert status == 200 and read == {"document": "hr/pay ü?.txt", **document}
    status, answer = call("POST", "/knowledge/pushed/search", {"query": "kestrel", "k": 3}, key=hr)
    (result,) = answer["results"]
    assert result["document"] == "hr/pay ü?.txt" and result["text"] == document["text"]
    assert {"document", "chunk", "text", "score"} <= set(result)
    for mode in ("hybrid", "dense", "lexical"):
        assert found(call, "pushed", "kestrel", key=hr, mode=mode) == ["hr/pay ü?.txt"]
        assert found(call, "pushed", "kestrel", key=other, mode=mode) == []
        assert found(call, "pushed", "kestrel", mode=mode) == [], "the owner is no reader"
    assert found(call, "pushed", "kestrel", **{"as": "user:ann"}) == ["hr/pay ü?.txt"]
    assert call("PUT", path, {**document, "readers": []})[0] == 200
    assert found(call, "pushed", "kestrel", key=hr) == []
    assert call("DELETE", path) == (204, None)
    assert call("DELETE", path)[0] == 404 and call("GET", path, key=hr)[0] == 404


def test_absent_and_forbidden_answer_alike(call: Call) -> None:
    call("PUT", "/knowledge/alike/documents/a", {"text": "The merlin hides.", "readers": ["group:hr"]})
    other = key_of(call, "bob", [])
    for path in ("/knowledge/alike/documents/a", "/knowledge/alike/documents/b", "/knowledge/nowhere/documents/a"):
        status, said = call("GET", path, key=other)
        assert status == 404
        message = said["error"]["message"].replace(path.split("/")[2], "KB").replace(f"'{path[-1]}'", "ID")
        assert message == "There is no document ID in KB, or your key does not grant it."
    assert found(call, "alike", "merlin", key=other) == found(call, "nowhere", "merlin", key=other) == []
    for method, path, body in (
        ("PUT", "/knowledge/alike/documents/a", {"text": "x"}), ("DELETE", "/knowledge/alike/documents/a", None),
        ("POST", "/knowledge/alike/documents", {"id": "a", "text": "x"}), ("POST", "/knowledge/alike/sync", None),
        ("GET", "/knowledge/alike/snapshots", None), ("GET", "/knowledge", None),
    ):  # fmt: skip
        assert call(method, path, body, key=other)[0] == 404, path
    status, _ = call("POST", "/knowledge/alike/search", {"query": "merlin", "as": "group:hr"}, key=other)
    assert status == 404, "nobody borrows other eyes without the right to set readers"


def test_lines_become_visible_at_once_or_not_at_all(call: Call) -> None:
    rows = [{"id": f"d{i}", "text": f"The curlew number {i} calls.", "readers": ["everyone"]} for i in range(40)]

    def push(rows: list[Any]) -> tuple[int, Any]:
        body = b"\n".join(r if isinstance(r, bytes) else json.dumps(r).encode() for r in rows)
        return call("POST", "/knowledge/lines/documents", body, kind="application/x-ndjson")

    for wrong, said in (
        (b'{"id": "x", "text": "y"', "line 41: "),
        ({"id": "x", "txt": "y"}, "line 41: Object contains unknown field `txt`"),
        ({"id": "x", "text": "y", "readers": ["hr"]}, "line 41: readers: 'hr' is not everyone"),
        ({"id": "", "text": "y"}, "line 41: id: 1 to 1000 characters"),
        ({"id": "x", "text": " "}, "line 41: text: it is empty"),
    ):
        status, answer = push([*rows, wrong])
        assert status == 400 and answer["error"]["message"].startswith(said), answer
    assert call("POST", "/knowledge/lines/search", {"query": "curlew"})[0] == 404, "nothing was taken"
    status, made = push([*rows, b"", {"id": "d0", "text": "The curlew sleeps.", "readers": "everyone"}])
    assert status == 200 and (made["documents"], made["created"]) == (40, 40)
    assert found(call, "lines", "curlew sleeps")[0] == "d0"
    (snapshot,) = call("GET", "/knowledge/lines/snapshots")[1]["snapshots"]
    assert snapshot["digest"] == made["snapshot"] and snapshot["documents"] == 40


def test_files_are_read_by_their_type(call: Call) -> None:
    page = b"<h1>Hide</h1><nav>menu</nav><p>The bittern booms at dawn.</p>"
    put = "/knowledge/files/documents/{}?readers=everyone&readers=group:hr"
    assert call("PUT", put.format("page"), page, kind="text/html; charset=utf-8")[0] == 201
    word = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    text = "<w:body><w:p><w:r><w:t>The avocet wades.</w:t></w:r></w:p></w:body>"
    docx = io.BytesIO()
    with zipfile.ZipFile(docx, "w") as archive:
        archive.writestr("word/document.xml", f'<w:document xmlns:w="{word}">{text}</w:document>')
    assert call("PUT", put.format("a.docx"), docx.getvalue(), kind="application/octet-stream")[0] == 201
    assert found(call, "files", "bittern dawn")[0] == "page" and found(call, "files", "avocet")[0] == "a.docx"
    status, answer = call("PUT", put.format("b.pdf"), b"%PDF-1.4 no", kind="application/pdf")
    assert status == 400 and "b.pdf: the PDF is broken" in answer["error"]["message"]
    status, answer = call("PUT", put.format("c"), b"x", kind="image/png")
    assert status == 400 and "image/png is not read" in answer["error"]["message"]
    status, answer = call("PUT", put.format("c"), b"x", kind="application/octet-stream")
    assert status == 400 and "content-type" in answer["error"]["message"]


APP = """\
app: {app}
purpose: Answer from what is pushed.
owners: {{accountable: someone@example.com}}
model: {{use: local/smollm2-135m-instruct}}
knowledge: [{{name: followed, follow: {follow}}}]
"""


def test_an_app_follows_a_base_or_keeps_its_snapshot(
    server: Server, call: Call, app_folder: Callable[..., Path]
) -> None:
    refused = server.cli(
        "release", "create", str(app_folder({"app.yaml": APP.format(app="early", follow="true")}, "e"))
    )
    assert refused.returncode == 2 and "no document was pushed to it" in refused.stderr
    text, readers = "The visitors' gate is opened at 7:45 every morning.", ["everyone"]
    call("PUT", "/knowledge/followed/documents/gate", {"text": text, "readers": readers})
    for app, follow in (("pinned", "false"), ("moving", "true")):
        folder = app_folder({"app.yaml": APP.format(app=app, follow=follow)}, app)
        assert server.cli("release", "create", str(folder)).returncode == 0
        assert server.cli("release", "promote", f"{app}@1", "--to", "poc").returncode == 0
    call("PUT", "/knowledge/followed/documents/gate", {"text": text.replace("7:45", "9:15"), "readers": readers})

    def ask(app: str) -> str:
        body = {"model": app, "messages": [{"role": "user", "content": "When is the visitors' gate opened?"}]}
        headers = {"authorization": f"Bearer {server.owner_key}", "content-type": "application/json"}
        request = urllib.request.Request(f"{server.url}/v1/chat/completions", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return str(json.load(answer)["choices"][0]["message"]["content"])

    assert "7:45" in ask("pinned") and "9:15" in ask("moving")


def test_a_folder_is_synced_compared_and_rolled_back(
    server: Server, call: Call, app_folder: Callable[..., Path]
) -> None:
    files = {
        "app.yaml": APP.format(app="synced", follow="true").replace(
            "name: followed", 'name: synced, source: docs, readers: {"hr/**": ["group:hr"]}'
        ),
        "docs/a.md": "The plover runs.",
        "docs/hr/b.md": "The dunlin earns 12.",
    }
    folder = app_folder(files)
    done = server.cli("knowledge", "sync", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout)["knowledge"][0]["snapshot"]
    (folder / "docs" / "a.md").write_text("The plover sleeps.")
    (folder / "docs" / "c.md").write_text("The knot flies.")
    status, answer = call("POST", "/knowledge/synced/sync", {"path": str(folder)})
    assert status == 200 and answer["snapshot"] != first and answer["documents"] == 3
    told = json.loads(server.cli("knowledge", "diff", "synced", first, answer["snapshot"], "--json").stdout)
    assert (told["added"], told["removed"], told["changed"], told["unseen"]) == (["c.md"], [], ["a.md"], 1)
    assert set(found(call, "synced", "plover dunlin")) == {"a.md", "c.md"}
    assert set(found(call, "synced", "plover dunlin", **{"as": "group:hr"})) == {"a.md", "c.md", "hr/b.md"}
    assert server.cli("knowledge", "rollback", "synced", "--to", first).returncode == 0
    assert found(call, "synced", "plover") == ["a.md"]
    assert "synced" in server.cli("knowledge", "status").stdout


def test_a_server_reads_its_own_apps_folder_anew(server: Server, call: Call) -> None:
    status, made = call("POST", "/knowledge/handbook/sync")
    (newest, *_) = call("GET", "/knowledge/handbook/snapshots")[1]["snapshots"]
    assert status == 200 and made["snapshot"] == newest["digest"] and made["documents"] == newest["documents"]
    status, said = call("POST", "/knowledge/nowhere/sync")
    assert status == 404 and "send the app's folder" in said["error"]["message"]
