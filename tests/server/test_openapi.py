"""Responses conform to the OpenAPI description for generated requests, valid and invalid."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from sklearn.datasets import load_digits
from starlette.testclient import TestClient

from likely import Classifier
from likely.server.http.app import application
from likely.server.http.model_registry import ModelRegistry
from likely.server.http.settings import Settings
from likely.server.store import Scope, Store

EXAMPLES = 8  # of each operation, valid and invalid
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "digits"
    digits = load_digits()
    Classifier("gaussian").fit(digits.images[:600] / 16, digits.target[:600].astype(str)).save(folder)
    store = Store.open(tmp_path_factory.mktemp("service") / "store")
    app = application(ModelRegistry([folder]), store, Settings(rate_limit=1e9, login_rate_limit=1e9))
    with TestClient(app, raise_server_exceptions=False):
        yield app


@pytest.fixture(scope="module")
def secret(service):
    return service.state.likely.service.store.keys.add("all", [Scope.ADMIN])[1]


def test_responses_conform_to_the_openapi_description(service, secret):
    headers = {"Authorization": f"Bearer {secret}"}
    schema = schemathesis.openapi.from_asgi("/openapi.json", service)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 25
    for operation in operations:

        @given(operation.as_strategy() | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        def holds(case):
            case.call_and_validate(headers=headers, checks=CHECKS)

        holds()


def test_too_large_requests_get_the_documented_413(service, secret):
    client = TestClient(service)
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json", "Content-Length": str(10**9)}
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        if "post" in operations:
            documented = operations["post"]["responses"]
            response = client.post(path, content=b"{}", headers=headers)
            assert response.status_code == 413, path
            assert "413" in documented, path
