"""A person's way through the console, in a real browser against a real server."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest
from playwright.sync_api import APIRequestContext, Browser, Page, Playwright, expect, sync_playwright

from proveout.edge.console.shell import CONTENT_SECURITY_POLICY

QUESTION = "How many days of annual leave do full-time employees in Leeds get?"
SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
QUIET = [
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ANSWERED = 20_000  # milliseconds
PAGE = {"accept": "text/html"}


class Server(Protocol):
    """The running server of `tests/conftest.py`."""

    @property
    def url(self) -> str: ...

    @property
    def owner_key(self) -> str: ...


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        reason = "no chromium on PATH: `apt-get install chromium`"
        print(reason)
        pytest.skip(reason)
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    browser = playwright.chromium.launch(executable_path=chromium, args=QUIET + sandbox)
    yield browser
    browser.close()


@pytest.fixture
def http(playwright: Playwright, server: Server) -> Iterator[APIRequestContext]:
    """A client without a browser around it; it keeps cookies."""
    context = playwright.request.new_context(base_url=server.url)
    yield context
    context.dispose()


def login_link(http: APIRequestContext, server: Server) -> str:
    made = http.post("/api/v1/logins", headers={"authorization": f"Bearer {server.owner_key}"})
    assert made.status == 201, made.text()
    return f"{server.url}/login?code={made.json()['code']}"


def open_console(browser: Browser, link: str, width: int = 1440) -> tuple[Page, list[str]]:
    """The ask page, logged in, and the list that its errors will go to."""
    context = browser.new_context(viewport={"width": width, "height": 900 if width > 600 else 740})
    page = context.new_page()
    errors: list[str] = []
    page.on("console", lambda said: errors.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(link)
    return page, errors


@pytest.fixture
def axe(node_modules: Path) -> str:
    """axe-core, as a script."""
    return (node_modules / "axe-core" / "axe.min.js").read_text()


def look(page: Page, axe: str, name: str) -> None:
    """What holds of every page in both schemes: it fits, and axe-core finds nothing serious. Keeps screenshots."""
    width = page.viewport_size["width"] if page.viewport_size else 0
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        assert_fits(page)
        page.evaluate(axe)
        found = page.evaluate("axe.run().then(({ violations }) => violations)")
        serious = [f for f in found if f["impact"] in ("serious", "critical")]
        assert not serious, [(f["id"], f["help"], [n["html"] for n in f["nodes"]]) for f in serious]
        page.screenshot(
            path=SCREENSHOTS / f"{name}-{width}-{scheme}.png", full_page=page.locator("body.operating").count() > 0
        )


def assert_fits(page: Page) -> None:
    """Nothing makes the page scroll sideways."""
    wide, window = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= window, f"the page is {wide} px wide in a window of {window} px"


# -- asking ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1440, 360])
def test_a_person_asks_and_reads_the_source(
    browser: Browser, http: APIRequestContext, server: Server, axe: str, width: int
) -> None:
    page, errors = open_console(browser, login_link(http, server), width)
    expect(page).to_have_url(f"{server.url}/")
    look(page, axe, "ask")
    page.get_by_label("App", exact=True).select_option("helpdesk")
    expect(page.locator("#answers")).to_have_text(re.compile(r"^helpdesk@\d+ · poc$"))
    question = page.get_by_label("Question", exact=True)
    question.fill(QUESTION)
    question.press("Enter")

    marker = page.locator(".answer .marker:enabled").first
    marker.wait_for(timeout=ANSWERED)
    expect(page.locator(".answer")).to_contain_text("25 days")
    print_ = page.locator(".print")
    expect(print_).to_contain_text(re.compile(r"Release\s*helpdesk@\d+"))
    expect(print_).to_contain_text("Groundedyes")
    expect(print_).to_contain_text(re.compile(r"Request\s*\S{8}"))
    source = page.locator(".source").first
    expect(source).to_contain_text("Annual leave in Leeds")
    expect(source.locator("blockquote")).to_contain_text("25 days")
    look(page, axe, "answer")

    marker.focus()
    marker.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("mark").first).to_be_visible()
    marked = " ".join(" ".join(dialog.locator("mark").all_inner_texts()).split())
    quote = " ".join(source.locator("blockquote").inner_text().split())
    assert marked in quote or quote in marked
    assert "25 days" in marked
    expect(dialog.locator("#passage-text")).to_contain_text("one twelfth")  # the passage goes on after the quote
    look(page, axe, "passage")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(marker).to_be_focused()

    page.get_by_role("button", name="Not helpful").click()
    expect(page.locator(".judge")).to_contain_text("Noted with the answer.")
    expect(page.get_by_role("button", name="Not helpful")).to_have_attribute("aria-pressed", "true")
    look(page, axe, "judged")

    page.keyboard.press("Tab")  # from the thumb on to what may be said with it
    comment, correction = page.get_by_label("Comment"), page.get_by_label("The right answer")
    expect(comment).to_be_focused()
    page.keyboard.type("Outdated.")
    page.keyboard.press("Tab")
    expect(correction).to_be_focused()
    page.keyboard.type("26 days since May.")
    page.keyboard.press("Tab")
    send, composer = page.get_by_role("button", name="Send").bounding_box(), page.locator(".sheet").bounding_box()
    assert send and composer and send["y"] + send["height"] <= composer["y"]  # nothing covers what has the focus
    page.keyboard.press("Enter")
    expect(page.locator(".judge").get_by_role("status")).to_have_text("Your words are noted with the answer.")
    expect(comment).to_be_hidden()
    expect(page.get_by_role("button", name="Not helpful")).to_be_focused()
    request = page.locator(".print code").inner_text()
    told = http.get(f"/api/v1/feedback/{request}", headers={"authorization": f"Bearer {server.owner_key}"}).json()
    assert (told["score"], told["comment"], told["correction"]) == (0, "Outdated.", "26 days since May.")
    page.get_by_role("button", name="Helpful", exact=True).click()
    expect(comment).to_be_visible()
    expect(correction).to_be_hidden()
    assert errors == []
    page.context.close()


def chunks(*events: Mapping[str, object]) -> str:
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events)


BEGUN = {"choices": [{"index": 0, "delta": {"content": "Full-time employees get [1] 25"}, "finish_reason": None}]}
FAILED = {"error": {"message": "The model went away.", "type": "upstream_error", "param": None, "code": "truncated"}}


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (chunks(BEGUN, FAILED), "The model went away."),
        (chunks(BEGUN), "The connection closed before the answer was whole."),
    ],
    ids=["error event", "no [DONE]"],
)
def test_a_broken_stream_never_looks_whole(
    browser: Browser, http: APIRequestContext, server: Server, stream: str, message: str
) -> None:
    page, errors = open_console(browser, login_link(http, server))
    page.route("**/v1/chat/completions", lambda route: route.fulfill(content_type="text/event-stream", body=stream))
    page.get_by_label("Question", exact=True).fill(QUESTION)
    page.get_by_role("button", name="Ask").click()
    problem = page.locator(".turn").get_by_role("alert")
    expect(problem).to_contain_text("The answer broke off.")
    expect(problem).to_contain_text(message)
    expect(page.locator(".answer")).to_have_text("Full-time employees get [1] 25")
    expect(page.locator(".answer button")).to_have_count(0)
    expect(page.locator(".print")).not_to_contain_text("Grounded")
    assert errors == []
    page.context.close()


def test_an_answer_cut_at_its_limit_says_so(browser: Browser, http: APIRequestContext, server: Server) -> None:
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}], "proveout": {"grounded": False}}
    stream = chunks(BEGUN, end) + "data: [DONE]\n\n"
    page, errors = open_console(browser, login_link(http, server))
    page.route("**/v1/chat/completions", lambda route: route.fulfill(content_type="text/event-stream", body=stream))
    page.get_by_label("Question", exact=True).fill(QUESTION)
    page.get_by_role("button", name="Ask").click()
    expect(page.locator(".turn").get_by_role("alert")).to_contain_text("Cut short.")
    expect(page.locator(".print")).to_contain_text("Groundedno")
    assert errors == []
    page.context.close()


def test_stop_ends_the_answer(browser: Browser, http: APIRequestContext, server: Server) -> None:
    page, errors = open_console(browser, login_link(http, server))
    page.route("**/v1/chat/completions", lambda route: None)  # never answered
    page.get_by_label("Question", exact=True).fill(QUESTION)
    page.get_by_role("button", name="Ask").click()
    stop = page.get_by_role("button", name="Stop")
    expect(stop).to_be_focused()
    stop.press("Enter")
    expect(page.locator(".turn").get_by_role("alert")).to_contain_text("Stopped.")
    expect(page.get_by_role("button", name="Ask")).to_be_focused()
    assert errors == []
    page.context.close()


def test_a_refusal_is_shown_in_the_servers_words(browser: Browser, http: APIRequestContext, server: Server) -> None:
    page, _ = open_console(browser, login_link(http, server))
    page.context.clear_cookies()
    page.get_by_label("Question", exact=True).fill(QUESTION)
    page.get_by_role("button", name="Ask").click()
    problem = page.locator(".turn").get_by_role("alert")
    expect(problem).to_contain_text("There is no answer. No valid API key was given")
    page.context.close()


# -- operations -----------------------------------------------------------------------------------


def ask(http: APIRequestContext, server: Server, model: str, question: str, **more: str) -> str:
    """Asks; the request's id."""
    said = {"model": model, "messages": [{"role": "user", "content": question}], **more}
    answer = http.post("/v1/chat/completions", data=said, headers={"authorization": f"Bearer {server.owner_key}"})
    assert answer.ok, answer.text()
    return answer.headers["x-proveout-request"]


@pytest.mark.parametrize("width", [1440, 360])
def test_an_operator_sees_what_runs_what_it_costs_and_the_last_requests(
    browser: Browser, http: APIRequestContext, server: Server, axe: str, width: int
) -> None:
    answered = ask(http, server, "echo", "heard by nobody else")
    refused = ask(http, server, "helpdesk", "Who won the football world cup of 1998?")
    page, errors = open_console(browser, login_link(http, server), width)
    page.get_by_role("link", name="Operations").click()
    running = page.get_by_role("region", name="Running")
    expect(running.get_by_role("row", name=re.compile(r"^helpdesk poc \d+ .*(just now|ago)"))).to_be_visible()
    expect(running.get_by_role("row", name=re.compile("all-minilm-l6-v2"))).to_contain_text("loaded")
    expect(running).to_contain_text(re.compile(r"Server\s*ready\s*Database\s*Postgres 18"))
    expect(page.get_by_role("img")).to_have_count(2)
    page.get_by_text("The numbers of both charts").press("Enter")
    expect(page.get_by_role("region", name="Load").get_by_role("row")).to_have_count(25)
    look(page, axe, "operations")

    page.get_by_role("navigation", name="Cost by").get_by_role("link", name="Model").press("Enter")
    expect(page.get_by_role("table", name="Cost by model").get_by_role("row", name=re.compile("^echo"))).to_be_visible()
    page.get_by_role("navigation", name="Period").get_by_role("link", name="7 days").click()
    expect(page.get_by_role("table", name="Cost by model")).to_be_visible()  # what was chosen before stays
    page.get_by_label("Outcome").select_option("refused")
    page.get_by_role("button", name="Filter").press("Enter")
    expect(page).to_have_url(re.compile(r"\?period=7d&by=model&app=&outcome=refused"))
    expect(page.locator(f"#{refused}")).to_be_visible()
    expect(page.locator(f"#{answered}")).to_have_count(0)

    page.locator(f"#{refused}").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text(refused)
    expect(page.get_by_role("region", name="Route")).to_contain_text(re.compile(r"helpdesk@\d+, serving poc\s*sha256:"))
    expect(page.get_by_role("region", name="Completion")).to_contain_text(re.compile(r"Outcome\s*refused"))
    expect(page.locator("main")).not_to_contain_text("football")
    look(page, axe, "request")
    assert errors == []
    page.context.close()


@pytest.mark.parametrize("width", [1440, 360])
def test_a_release_shows_what_it_has_and_what_blocks_it(
    browser: Browser, http: APIRequestContext, server: Server, axe: str, width: int
) -> None:
    page, errors = open_console(browser, login_link(http, server), width)
    page.get_by_role("link", name="Releases").press("Enter")
    expect(page.get_by_role("table", name="Releases of helpdesk")).to_contain_text("poc")
    look(page, axe, "releases")
    page.get_by_role("link", name="helpdesk@1", exact=True).press("Enter")
    production = page.get_by_role("table", name="production: blocked")
    expect(production.get_by_role("row", name=re.compile("^drill"))).to_contain_text("missing")
    expect(page.get_by_role("region", name="On record")).to_contain_text("company handbook")
    look(page, axe, "release")
    assert errors == []
    page.context.close()


@pytest.mark.parametrize("width", [1440, 360])
def test_a_rollout_is_watched_and_paused(
    browser: Browser, http: APIRequestContext, server: Server, app_folder: Callable[..., Path], axe: str, width: int
) -> None:
    app, owner = f"watched-{width}", {"authorization": f"Bearer {server.owner_key}"}
    for prompt in ("one", "two"):
        folder = app_folder(
            {
                "app.yaml": f"app: {app}\npurpose: p\nowners: {{accountable: a}}\nmodel: {{use: echo}}\n"
                "prompt: {answer: answer.md}\nrollout: {steps: [50%]}\n",
                "answer.md": f"{prompt}: {{{{ question }}}}",
            },
            prompt,
        )
        assert http.post(f"/api/v1/apps/{app}/releases", data={"path": str(folder)}, headers=owner).status == 201
    stage = f"/api/v1/apps/{app}/stages/poc"
    stable = {"release": 1, "stage": "poc"}
    assert http.post(f"/api/v1/apps/{app}/promotions", data=stable, headers=owner).ok
    assert http.post(f"{stage}/rollout", data={"action": "start", "release": 2}, headers=owner).ok

    page, errors = open_console(browser, login_link(http, server), width)
    page.get_by_role("link", name="Releases").press("Enter")
    page.get_by_role("link", name="50 % of poc").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"Rollout of {app}@2 beside {app}@1 in poc")
    for n in range(6):
        said = {"request": ask(http, server, app, f"question {n}"), "outcome": {"minutes": 4}}
        assert http.post("/api/v1/feedback", data=said, headers=owner).status == 201
    calls = page.get_by_role("region", name="Both arms").get_by_role("row", name=re.compile("^calls"))
    expect(calls).not_to_have_text(re.compile(r"calls\s*0\s*0"), timeout=ANSWERED)  # it keeps itself fresh
    minutes = page.get_by_role("region", name="Both arms").get_by_role("row", name=re.compile("^mean of minutes"))
    expect(minutes).to_contain_text(re.compile(r"4 of \d"))
    guardrails = page.get_by_role("table", name="Guardrails")
    expect(guardrails.get_by_role("row", name=re.compile("^errors"))).to_contain_text("333")  # 100 of its weight of 0.3
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Pause").press("Enter")
    expect(page.get_by_role("region", name="State")).to_contain_text("paused")
    expect(page.get_by_role("table", name="Decisions")).to_contain_text("paused by hand")
    look(page, axe, "rollout")
    page.goto(f"{server.url}/operations")
    listed = page.get_by_role("region", name="Rollouts").get_by_role("row", name=re.compile(f"^{app}@2"))
    expect(listed).to_contain_text("paused")
    assert http.get(f"/rollouts/{app}/beta", headers={**owner, **PAGE}).status == 404
    assert http.post(f"{stage}/rollout", data={"action": "abort"}, headers=owner).ok
    assert errors == []
    page.context.close()


@pytest.mark.parametrize("width", [1440, 360])
def test_a_request_is_found_and_opens_as_a_timeline(
    browser: Browser, http: APIRequestContext, server: Server, axe: str, width: int
) -> None:
    user = f"timeline-{width}"
    asked = ask(http, server, "helpdesk", QUESTION, user=user)
    receipt = http.get(
        f"/api/v1/requests/{asked}/receipt", headers={"authorization": f"Bearer {server.owner_key}"}
    ).body()  # it is in the log
    page, errors = open_console(browser, login_link(http, server), width)
    page.goto(f"{server.url}/operations")
    page.get_by_text("More", exact=True).press("Enter")
    page.get_by_label("User or key id").fill(user)
    page.get_by_label("Guard").fill("secrets")
    page.get_by_role("button", name="Filter").press("Enter")
    expect(page.get_by_role("table", name="Requests")).to_contain_text("No request like this is recorded")
    page.get_by_label("Guard").fill("")  # what is chosen stays open
    page.get_by_label("From, UTC").fill("2026-01-01T00:00")
    page.get_by_role("button", name="Filter").press("Enter")
    expect(page.get_by_role("table", name="Requests").get_by_role("row")).to_have_count(2)
    look(page, axe, "found")

    page.locator(f"#{asked}").press("Enter")
    expect(page.get_by_role("region", name="Time")).to_contain_text(
        re.compile(r"Sources found.*First token.*First text.*Whole answer", re.DOTALL)
    )
    expect(page.get_by_role("region", name="Route")).to_contain_text("nothing was drawn")
    expect(page.get_by_role("table", name="Passages").get_by_role("row")).not_to_have_count(1)
    expect(page.get_by_role("region", name="Completion")).to_contain_text(re.compile(r"Tokens in\s*\d"))
    held = page.get_by_role("region", name="Receipt")
    expect(held).to_contain_text(re.compile(r"State\s*verified, with what it commits to\s*Entry\s*\d+ of \d+"))
    with page.expect_download() as download:
        held.get_by_role("link", name="Download the receipt").press("Enter")
    assert Path(download.value.path()).read_bytes().startswith(receipt.split(b"index")[0])
    assert download.value.suggested_filename == f"{asked}.tlog-proof"
    expect(page.locator("main")).not_to_contain_text("Leeds")
    look(page, axe, "timeline")
    assert errors == []
    page.context.close()


def test_the_page_keeps_itself_fresh_unless_told_not_to(
    browser: Browser, http: APIRequestContext, server: Server
) -> None:
    first = ask(http, server, "echo", "one")
    page, errors = open_console(browser, login_link(http, server))
    page.goto(f"{server.url}/operations")
    page.locator(f"#{first}").focus()
    looks_again = "document.dispatchEvent(new Event('visibilitychange'))"  # as when one comes back to the page
    second = ask(http, server, "echo", "two")
    page.evaluate(looks_again)
    expect(page.locator(f"#{second}")).to_be_visible()
    expect(page.locator(f"#{first}")).to_be_focused()
    page.get_by_role("button", name="Live").click()
    third = ask(http, server, "echo", "three")
    page.evaluate(looks_again)
    page.wait_for_timeout(500)
    expect(page.locator(f"#{third}")).to_have_count(0)
    page.get_by_role("button", name="Live").click()
    expect(page.locator(f"#{third}")).to_be_visible()
    assert errors == []
    page.context.close()


def test_only_who_may_read_requests_sees_operations(
    browser: Browser, http: APIRequestContext, server: Server, axe: str
) -> None:
    owner = {"authorization": f"Bearer {server.owner_key}"}
    made = http.post("/api/v1/keys", data={"name": "anybody"}, headers=owner).json()
    request = ask(http, server, "echo", "one")
    for path in ("/operations", f"/operations/requests/{request}"):
        assert http.get(path, headers=PAGE | owner).status == 200
        anonymous = http.get(path, headers=PAGE)
        assert anonymous.status == 401 and "proveout login" in anonymous.text()
        other = http.get(path, headers=PAGE | {"authorization": f"Bearer {made['key']}"})
        assert other.status == 404 and "requests:read" in other.text() and "Running" not in other.text()
        assert other.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    context = browser.new_context(extra_http_headers={"authorization": f"Bearer {made['key']}"})
    page = context.new_page()
    page.goto(server.url)
    expect(page.get_by_role("navigation", name="Console").get_by_role("link")).to_have_text(["Ask"])
    page.goto(f"{server.url}/operations")
    expect(page.get_by_role("heading", level=1)).to_have_text("Not here, or not for your key")
    look(page, axe, "refused")
    context.close()


def test_operations_need_no_script_and_say_what_is_wrong_with_an_address(
    http: APIRequestContext, server: Server
) -> None:
    owner = PAGE | {"authorization": f"Bearer {server.owner_key}"}
    request = ask(http, server, "echo", "one")
    page = http.get("/operations?by=day", headers=owner)
    assert (
        request in page.text()
        and "Older requests" not in http.get("/operations?before=2000-01-01T00:00:00Z", headers=owner).text()
    )
    assert not re.search(r"<style| style=| on[a-z]+=", page.text())
    for query, key in (
        ("period=1y", "period"),
        ("by=mood", "by"),
        ("outcome=fine", "outcome"),
        ("before=noon", "before"),
    ):
        wrong = http.get(f"/operations?{query}", headers=owner)
        assert wrong.status == 400 and f"{key}: " in wrong.text()
    unknown = http.get("/operations/requests/req_nothing", headers=owner)
    assert unknown.status == 404 and "There is no request req_nothing" in unknown.text()


# -- coming and going -----------------------------------------------------------------------------


def test_a_login_link_works_once_and_logging_out_ends_the_session(
    browser: Browser, http: APIRequestContext, server: Server
) -> None:
    link = login_link(http, server)
    page, errors = open_console(browser, link)
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")
    again = http.get(link)
    assert again.status == 401
    assert "used already" in again.text()
    assert "proveout login" in again.text()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="Log in to the console")).to_be_visible()
    assert page.context.cookies() == []
    assert errors == []
    page.context.close()


def test_a_link_on_another_site_finds_the_session(browser: Browser, http: APIRequestContext, server: Server) -> None:
    page, errors = open_console(browser, "about:blank")
    elsewhere = f'<a href="{login_link(http, server)}">log in</a> <link rel="icon" href="data:,">'
    page.route("http://elsewhere.test/", lambda route: route.fulfill(content_type="text/html", body=elsewhere))
    page.goto("http://elsewhere.test/")
    page.get_by_role("link").click()
    expect(page.get_by_label("Question", exact=True)).to_be_visible()
    assert errors == []
    page.context.close()


def test_the_door_tells_browsers_and_programs_apart(http: APIRequestContext) -> None:
    about = http.get("/", headers={"accept": "application/json"})
    assert about.status == 200
    assert about.json() == {"name": "proveout", "version": about.json()["version"], "api": "/openapi.json"}
    page = http.get("/", headers=PAGE)
    assert page.status == 200
    assert "proveout login" in page.text()
    assert page.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert "<style" not in page.text()
    assert " style=" not in page.text()
    assert http.post("/logout").status == 401
    left = http.post("/logout", headers={"x-proveout-console": "1"})
    assert left.status == 204
    assert "proveout_session=" in left.headers["set-cookie"]
    assert "Max-Age=0" in left.headers["set-cookie"]


def test_a_key_opens_the_page_too(http: APIRequestContext, server: Server) -> None:
    page = http.get("/", headers=PAGE | {"authorization": f"Bearer {server.owner_key}"})
    assert page.status == 200
    assert 'data-answers="helpdesk@' in page.text()
    forged = http.get("/", headers=PAGE | {"cookie": "proveout_session=key_1.9999999999.00"})
    assert "Your session is over" in forged.text()
