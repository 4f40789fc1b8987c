"""The table of errors: statuses, codes, and the trip between processes."""

import pickle  # noqa: TID251 - the trip between processes is made of it; nothing is stored

import orjson
import pytest

from deployments.contracts.errors import (
    ApiError,
    ErrorCode,
    ExpertError,
    ExpertOverloaded,
    TooMany,
    error_response,
)

API_ERRORS = [ApiError, *ApiError.__subclasses__()]
EXPERT_ERRORS = ExpertError.__subclasses__()


@pytest.mark.parametrize("error", API_ERRORS, ids=lambda error: error.__name__)
def test_an_api_error_survives_pickling(error: type[ApiError]) -> None:
    made = error("why", ErrorCode.TRY_AGAIN, "model", 2.0)
    copy = pickle.loads(pickle.dumps(made))  # noqa: S301 - our own bytes

    assert (type(copy), copy.args) == (error, made.args)
    assert (copy.code, str(copy)) == (ErrorCode.TRY_AGAIN, "why")


@pytest.mark.parametrize("error", EXPERT_ERRORS, ids=lambda error: error.__name__)
def test_an_expert_error_survives_pickling(error: type[ExpertError]) -> None:
    copy = pickle.loads(pickle.dumps(error("math", "why", 2.0)))  # noqa: S301 - our own bytes

    assert (copy.expert, copy.why, copy.retry_after_s) == ("math", "why", 2.0)
    assert str(ExpertOverloaded("math", "status 429")) == "math: status 429"


@pytest.mark.parametrize("error", API_ERRORS, ids=lambda error: error.__name__)
def test_every_error_is_the_openai_envelope(error: type[ApiError]) -> None:
    response = error_response(error("why", param="model"))

    assert response.status == error.status
    assert orjson.loads(response.body) == {
        "error": {"message": "why", "type": error.type, "param": "model", "code": error.default_code.value}
    }


def test_a_rejection_for_load_says_when_to_retry() -> None:
    headers = dict(error_response(TooMany("why", retry_after_s=0.25)).headers)

    assert headers["retry-after"] == "1"
    assert 250 <= int(headers["retry-after-ms"]) <= 313
    assert dict(error_response(TooMany("why", retry_after_s=500.0)).headers)["x-should-retry"] == "false"


def test_clients_that_were_rejected_together_do_not_return_together() -> None:
    waits = [dict(error_response(TooMany("full", None, None, 40.0)).headers) for _ in range(200)]
    seconds = {int(headers["retry-after"]) for headers in waits}

    assert len(seconds) > 5
    assert min(seconds) >= 40
    assert max(seconds) <= 50


def test_a_wait_stays_within_what_clients_bear() -> None:
    waits = [dict(error_response(TooMany("full", None, None, 119.0)).headers) for _ in range(50)]

    assert max(int(headers["retry-after-ms"]) for headers in waits) <= 120_000
