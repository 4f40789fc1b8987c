"""Bad requests to the real application: status, OpenAI envelope, the client's exception class."""

from typing import Any

import httpx
import openai
import pytest

from tests.e2e.conftest import Application

pytestmark = pytest.mark.e2e

HELLO = [{"role": "user", "content": "hello"}]
CHAT = "/v1/chat/completions"
CASES: dict[str, tuple[str, str, dict[str, Any], int, str]] = {
    "not JSON": ("POST", CHAT, {"content": b"{nope"}, 400, "invalid_json"),
    "not an object": ("POST", CHAT, {"json": [1]}, 400, "invalid_json"),
    "no model": ("POST", CHAT, {"json": {"messages": HELLO}}, 400, "invalid_type"),
    "no messages": ("POST", CHAT, {"json": {"model": "auto"}}, 400, "missing_field"),
    "messages of a wrong type": (
        "POST",
        CHAT,
        {"json": {"model": "auto", "messages": "hi"}},
        400,
        "invalid_type",
    ),
    "unknown model": ("POST", CHAT, {"json": {"model": "gpt-9", "messages": HELLO}}, 404, "model_not_found"),
    "unknown routing field": (
        *("POST", CHAT, {"json": {"model": "auto", "messages": HELLO, "routing": {"speed": 1}}}, 400),
        "unknown_field",
    ),
    "no expert allowed": (
        *("POST", CHAT, {"json": {"model": "auto", "messages": HELLO, "routing": {"experts": []}}}, 400),
        "no_eligible_expert",
    ),
    "prompt longer than every context": (
        *(
            "POST",
            CHAT,
            {"json": {"model": "auto", "messages": [{"role": "user", "content": "word " * 4000}]}},
            400,
        ),
        "context_length_exceeded",
    ),
    "prompt longer than the named expert's context": (
        *(
            "POST",
            CHAT,
            {"json": {"model": "words", "messages": [{"role": "user", "content": "word " * 4000}]}},
            400,
        ),
        "context_length_exceeded",
    ),
    "what only the engine checks": (
        *("POST", CHAT, {"json": {"model": "words", "messages": HELLO, "temperature": -3}}, 400),
        "invalid_request",
    ),
    "unsupported method": ("GET", CHAT, {}, 405, "method_not_allowed"),
    "unknown path": ("POST", "/v1/nothing", {"json": {}}, 404, "path_not_found"),
    "administrative path of the engine": ("POST", "/reset_prefix_cache", {}, 404, "path_not_found"),
    "body over the limit": ("POST", CHAT, {"content": b" " * (17 * 1024 * 1024)}, 413, "body_too_large"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_request_gets_the_envelope_and_its_status(application: Application, case: str) -> None:
    method, path, options, status, code = CASES[case]
    response = httpx.request(method, application.url + path, timeout=60, **options)

    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["code"] == code
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    assert "Traceback" not in response.text


@pytest.mark.parametrize(
    ("model", "content", "exception"),
    [
        ("gpt-9", "hello", openai.NotFoundError),
        ("auto", "word " * 4000, openai.BadRequestError),
    ],
)
def test_the_openai_client_raises_its_own_class(
    client: openai.OpenAI, model: str, content: str, exception: type[openai.APIStatusError]
) -> None:
    with pytest.raises(exception) as caught:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": content}])

    assert isinstance(caught.value.code, str)
    assert caught.value.request_id


def test_the_chat_template_rejects_an_unknown_role(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(
            model="words",
            messages=[{"role": "oracle", "content": "hello"}],  # type: ignore[list-item, misc]
        )
