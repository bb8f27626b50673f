"""A client that leaves in the middle of an answer: the model stops, and the record says so."""

from __future__ import annotations

import json
import time
import urllib.request

import openai

from conftest import Server


def test_a_client_that_leaves_is_recorded_as_cancelled(server: Server) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.owner_key, max_retries=0)
    stream = client.chat.completions.create(
        model="local/smollm2-135m-instruct",
        messages=[{"role": "user", "content": "Write a very long story about a river."}],
        max_tokens=1000,
        stream=True,
    )
    request = stream.response.headers["x-proveout-request"]
    for _, _chunk in zip(range(5), stream, strict=False):
        pass
    stream.close()
    began = time.monotonic()
    record: dict[str, object] = {"outcome": None}
    while record["outcome"] is None and time.monotonic() - began < 5:
        call = urllib.request.Request(
            f"{server.url}/api/v1/requests/{request}", headers={"Authorization": f"Bearer {server.owner_key}"}
        )
        with urllib.request.urlopen(call) as response:
            record = json.load(response)
        time.sleep(0.05)
    assert record["outcome"] == "cancelled"
    tokens = record["completion_tokens"]
    assert isinstance(tokens, int) and 3 <= tokens < 500  # what was produced, not what was asked for
