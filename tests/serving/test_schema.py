"""The server against its own OpenAPI document: no internal errors, and no answers that it does not describe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from support.photos import photo
from support.runs import Run
from support.serving import running

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
TOKEN = {"Authorization": "Bearer t"}
OPERATIONS = [
    ("/v1/predict", "POST"),
    ("/v1/explain", "POST"),
    ("/v1/model", "GET"),
    ("/v1/reload", "POST"),
    ("/healthz", "GET"),
    ("/readyz", "GET"),
    ("/metrics", "GET"),
]


@pytest.fixture(scope="module")
def schema(run: Run) -> Iterator[Any]:
    bundle: Path = run.out / "frozen" / "bundle"
    with running(bundle, "--token", "t") as server:
        yield schemathesis.openapi.from_url(f"{server.url}openapi.json")


def test_all_operations_are_tried(schema: Any) -> None:
    found = {(path, method.upper()) for path, item in schema.raw_schema["paths"].items() for method in item}
    assert found == set(OPERATIONS)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_no_request_of_the_documents_form_meets_a_mistake(schema: Any, path: str, method: str) -> None:
    operation = schema[path][method]
    plain = operation.as_strategy()
    strange = operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)

    @settings(
        max_examples={"/v1/reload": 3, "/v1/predict": 30}.get(path, 10),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(case=plain | strange if operation.query or operation.body else plain)
    def holds(case: Any) -> None:
        case.call_and_validate(checks=CHECKS, headers=TOKEN, timeout=90)  # a heat map starts a process

    holds()


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/explain"])
def test_photos_with_any_options_meet_none_either(schema: Any, path: str) -> None:
    operation = schema[path]["POST"]

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy(), data=st.data())
    def holds(case: Any, data: st.DataObject) -> None:
        case.body, case.media_type = photo(data.draw(st.integers(0, 5))), "image/jpeg"
        if path == "/v1/explain":  # an unknown class is refused before a heat map is drawn
            case.query = {"class": "no such"}
        response = case.call_and_validate(checks=CHECKS, headers={**TOKEN, "Content-Type": "image/jpeg"}, timeout=90)
        assert response.status_code in (200, 422)

    holds()
