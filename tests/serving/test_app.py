"""The pages of a server, and what it writes to its log."""

import logging
import re


def test_the_page_needs_nothing_from_elsewhere(client):
    answer = client.get("/")
    assert (
        answer.status_code == 200
        and "default-src 'none'" in answer.headers["content-security-policy"]
    )
    assert not re.findall(r"(?:src|href)=|https?://|@import", answer.text)


def test_the_api_is_described(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/audio/transcriptions", "/v1/models", "/health", "/ready", "/metrics"} <= {*paths}
    assert client.get("/docs").status_code == 200


def test_no_text_is_logged(client, wav, caplog):
    with caplog.at_level(logging.DEBUG):
        answer = client.post("/v1/audio/transcriptions", files={"file": wav})
    words = {word for word in answer.json()["text"].split() if len(word) > 3}
    logged = " ".join(record.getMessage() for record in caplog.records)
    assert words and not {word for word in words if word in logged}
