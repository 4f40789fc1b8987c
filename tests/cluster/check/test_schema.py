"""Keys and values of one object, and how a finding is printed."""

import pytest

from cluster.check.finding import Finding
from cluster.check.schema import model_errors, unknown_keys
from deployments.engine_settings import ExpertArgs


def test_an_unknown_key_is_named_with_its_object() -> None:
    (finding,) = unknown_keys({"port": 1, "prot": 2}, "http", "http_options")

    assert (finding.level, finding.key) == ("error", "http_options.prot")


def test_an_unknown_key_at_the_top_has_no_dot() -> None:
    (finding,) = unknown_keys({"aplications": []}, "deploy", "")

    assert finding.key == "aplications"


@pytest.mark.parametrize(
    ("data", "found"), [(None, "it is empty"), (3, "not 3"), (["a"], "not ['a']"), ("", "not ''")]
)
def test_a_value_that_is_no_object_is_an_error(data: object, found: str) -> None:
    (finding,) = unknown_keys(data, "http", "http_options")

    assert finding.key == "http_options"
    assert finding.message == f"must be an object with Serve's keys, {found}"


def test_each_error_of_a_model_is_a_finding_with_its_key() -> None:
    findings = list(model_errors(ExpertArgs, {"name": "sums", "modle": "x"}, "app.args"))

    assert {finding.key for finding in findings} == {"app.args.model", "app.args.modle"}
    assert list(model_errors(ExpertArgs, {"name": "sums", "model": "x"}, "app.args")) == []


def test_a_finding_is_one_line_and_only_errors_are_errors() -> None:
    assert str(Finding("error", "a.b", "is missing")) == "error: a.b: is missing"
    assert Finding("error", "a", "b").is_error
    assert not Finding("warning", "a", "b").is_error
