"""HTTP service: predictions, explanations, classes, stored predictions, authorization and limits."""

import asyncio
import base64
import json
import shutil
import time
import zipfile
from io import BytesIO
from itertools import product

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from starlette.testclient import TestClient

from likely import Classifier
from likely.checkpoint import TrustPolicy, encrypt, encryption, signing
from likely.classifier import load
from likely.classifier.class_incremental import extend
from likely.classifier.explanation import explain
from likely.data.preprocessing import ImageOptions, read_image
from likely.experiment import TrainConfig, start_run
from likely.server.http.app import application
from likely.server.http.auth import CredentialCache
from likely.server.http.middleware import RequestMiddleware
from likely.server.http.model_registry import ModelRegistry
from likely.server.http.settings import Settings
from likely.server.store import PredictionFilter, Scope, Store

SETTINGS = Settings(
    max_images=8, max_megabytes=0.5, max_queue=16, batch_timeout=0, rate_limit=1000, login_rate_limit=1e6
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    digits = load_digits()
    folder = tmp_path_factory.mktemp("models") / "digits"
    Classifier("gaussian").fit(digits.images[:1200] / 16, digits.target[:1200].astype(str)).save(folder)
    return folder


@pytest.fixture(scope="module")
def service(folder, tmp_path_factory):
    store = Store.open(tmp_path_factory.mktemp("service") / "store")
    app = application(ModelRegistry([folder]), store, SETTINGS)
    with TestClient(app) as client:
        yield client


@pytest.fixture(scope="module")
def store(service):
    return service.app.state.likely.service.store


@pytest.fixture
def client(service, store):
    """Client with all scopes."""
    return client_with(service, store, Scope.ADMIN)


def client_with(service, store, *scopes, **how):
    _, secret = store.keys.add("test", scopes, **how)
    client = TestClient(service.app, headers={"Authorization": f"Bearer {secret}"})
    client.secret = secret
    return client


def digit_png(i):
    file = BytesIO()
    Image.fromarray((load_digits().images[i] * 255 / 16).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def noise_png(seed=0):
    file = BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8), np.uint8)).save(file, "PNG")
    return file.getvalue()


def classify(client, *contents, **query):
    files = [("image", (f"{i}.png", content, "image/png")) for i, content in enumerate(contents)]
    response = client.post("/v1/classify", files=files, params=query)
    assert response.status_code == 200, response.text
    return response.json()["predictions"]


# ---- predictions


def test_prediction_equals_that_of_python_and_is_stored(client, folder, store):
    contents = [digit_png(1300), digit_png(1301), noise_png()]
    found = classify(client, *contents)
    expected = Classifier.load(folder).classify(contents, names=["0.png", "1.png", "2.png"])
    for one, other in zip(found, expected, strict=True):
        assert one["label"] == other.label
        assert one["status"] == other.status.value
        assert one["probability"] == pytest.approx(other.probability, rel=1e-4)
        assert one["p_value"] == pytest.approx(other.p_value, abs=1e-6)
        record = store.prediction(one["id"])
        assert record.prediction.label == other.label
    assert found[2]["status"] == "unknown"
    assert store.image(record.image).content == contents[2]


def test_predictions_of_oblong_color_images_equal_those_of_python(tmp_path):
    gray = load_digits().images[:400, 1:7, :, None]
    pixels = (gray * np.array([15, 9, 4])).astype(np.uint8)
    Classifier("gaussian").fit(pixels[:300], load_digits().target[:300].astype(str)).save(tmp_path / "color")
    store = Store.open(tmp_path / "store")
    contents = []
    for image in pixels[300:310]:
        file = BytesIO()
        Image.fromarray(image).save(file, "PNG")
        contents.append(file.getvalue())
    with TestClient(application(ModelRegistry([tmp_path / "color"]), store, SETTINGS)) as service:
        client = client_with(service, store, Scope.CLASSIFY)
        found = [classify(client, content)[0] for content in contents]
    expected = Classifier.load(tmp_path / "color").classify(contents)
    assert [each["label"] for each in found] == [each.label for each in expected]
    assert [each["p_value"] for each in found] == pytest.approx([each.p_value for each in expected], abs=1e-6)


def test_explanation_and_new_class_agree_with_python(tmp_path):
    images = ImageOptions(size=4, resize="crop", center_crop_ratio=2)
    start_run(
        TrainConfig(data="digits", model="gaussian", images=images, label_check_folds=0), tmp_path / "digits"
    ).run()
    store, content = Store.open(tmp_path / "store"), digit_png(1305)
    predictor = load(tmp_path / "digits")
    with TestClient(application(ModelRegistry([tmp_path / "digits"]), store, SETTINGS)) as service:
        client = client_with(service, store, Scope.ADMIN)
        explained = client.post("/v1/explain", files={"image": content}).json()
        files = [("image", (f"{i}.png", noise_png(i), "image/png")) for i in range(6)]
        assert client.post("/v1/models/digits/classes?label=noise", files=files).status_code == 201
        extended = service.app.state.likely.service.registry["digits"].predictor
    shown = np.asarray(Image.open(BytesIO(base64.b64decode(explained["image"]))))
    assert np.array_equal(shown, read_image(content, predictor.format)[0])
    expected = explain(predictor, content)
    assert explained["log_odds"] == pytest.approx(expected.log_odds, rel=1e-6)
    larger = extend(predictor, "noise", [noise_png(i) for i in range(6)])
    assert np.array_equal(extended.hashes, larger.hashes)


def test_form_bytes_and_json_give_the_same_prediction(client):
    content = digit_png(1302)
    whole = classify(client, content)[0]["classes"]
    raw = client.post("/v1/classify?name=a.png", content=content, headers={"Content-Type": "image/png"}).json()
    images = [{"data": base64.b64encode(content).decode(), "name": "a.png"}]
    from_json = client.post("/v1/classify", json={"images": images}).json()
    assert raw["predictions"][0]["classes"] == from_json["predictions"][0]["classes"] == whole
    assert raw["predictions"][0]["input"] == from_json["predictions"][0]["input"] == "a.png"


def test_unreadable_image_gives_an_error_beside_other_predictions(client):
    good, bad = classify(client, digit_png(1303), b"no image")
    assert good["status"] != "error"
    assert (bad["status"], bad["id"], bad["input"]) == ("error", None, "1.png")
    assert bad["error"]


def test_empty_file_gives_an_error_beside_other_predictions(client):
    files = [
        ("image", (name, content, "image/png"))
        for name, content in (("a", digit_png(1)), ("b", b""), ("c", digit_png(2)))
    ]
    answers = client.post("/v1/classify", files=files).json()["predictions"]
    assert [each["status"] == "error" for each in answers] == [False, True, False]
    assert answers[1]["input"] == "b"


def test_base64_accepts_line_breaks_and_data_urls(client):
    content = digit_png(1500)
    plain = base64.b64encode(content).decode()
    written = [plain, base64.encodebytes(content).decode(), f"data:image/png;base64,{plain}", "!!!"]
    images = [{"name": f"{i}.png", "data": each} for i, each in enumerate(written)]
    answers = client.post("/v1/classify", json={"images": images}).json()["predictions"]
    assert [each["label"] for each in answers[:3]] == [answers[0]["label"]] * 3
    assert (answers[3]["status"], answers[3]["input"]) == ("error", "3.png")
    assert client.post("/v1/classify", json={"images": images[3:]}).status_code == 422


def test_guarantee_applies(client):
    for guarantee in ("overall", "class"):
        (found,) = classify(client, digit_png(1304), guarantee=guarantee)
        assert found["guarantee"] == guarantee
    assert found["p_value"] == max(each["p_value"] for each in found["classes"])


def test_top_k_and_alpha_apply(client):
    (found,) = classify(client, digit_png(1304), top_k=2, alpha=0.3)
    assert len(found["classes"]) == 2


def test_explanation_contains_images_and_refuses_unknown_classes(client):
    response = client.post("/v1/explain", files={"image": digit_png(1305)})
    explained = response.json()
    assert response.status_code == 200, explained
    assert explained["label"] != explained["against"]
    assert Image.open(BytesIO(base64.b64decode(explained["attribution"]))).size == (8, 8)
    refused = client.post("/v1/explain", files={"image": digit_png(1305)}, params={"against": "eleven"})
    assert refused.status_code == 422


def test_generated_images_have_the_size_of_the_model(client):
    generated = client.post("/v1/generate", json={"label": "3", "n": 2}).json()
    assert [Image.open(BytesIO(base64.b64decode(each))).size for each in generated["images"]] == [(8, 8)] * 2
    picture = client.get("/v1/models/digits/classes/3/sample?seed=1")
    assert picture.headers["content-type"] == "image/png"
    assert client.get("/v1/models/digits/classes/99/sample").status_code == 404
    assert client.post("/v1/generate", json={"label": "eleven"}).status_code == 422


def test_map_contains_all_classes_and_predictions_have_coordinates(client, folder, store):
    projection = client.get("/v1/models/digits/map").json()
    assert [each["label"] for each in projection["classes"]] == [str(i) for i in range(10)]
    (answer,) = classify(client, digit_png(1306))
    x, y = store.prediction(answer["id"]).embedding_2d
    nearest = min(projection["classes"], key=lambda each: (each["x"] - x) ** 2 + (each["y"] - y) ** 2)
    assert np.isfinite([x, y]).all()
    assert nearest["label"] in [each["label"] for each in answer["classes"]]


def test_drift_is_measured_on_the_p_values_of_images_whatever_guarantee_clients_ask_for(client, store):
    pictures = [digit_png(1297 + i) for i in range(4)]
    p_values = {}
    for guarantee in ("overall", "class"):
        answers = classify(client, *pictures, guarantee=guarantee)
        p_values[guarantee] = [each["p_value"] for each in answers]
    assert p_values["class"] != p_values["overall"]
    recent = store.latest_p_values(answers[0]["model"], 8)
    assert sorted(recent) == sorted(p_values["overall"] * 2)


def test_drift_is_detected_from_enough_images(trained, tmp_path):
    store = Store.open(tmp_path / "store")
    with TestClient(
        application(ModelRegistry([trained]), store, SETTINGS.model_copy(update={"rate_limit": 1e6}))
    ) as service:
        client = client_with(service, store, Scope.ADMIN)
        assert client.get("/v1/models/digits/drift").json()["drifted"] is None
        for start in range(0, 64, 8):
            classify(client, *(noise_png(start + i) for i in range(8)))
            if not start:
                drift = client.get("/v1/models/digits/drift").json()
                assert drift["n"] == 8
                assert drift["drifted"] is None
                assert "likely_drift_detected{" not in client.get("/metrics").text
        drift = client.get("/v1/models/digits/drift").json()
        assert drift["drifted"] is True
        assert drift["n"] == 64
        assert "likely_drift_detected{" in client.get("/metrics").text


def test_added_class_is_predicted_and_survives_a_restart(trained, tmp_path):
    store = Store.open(tmp_path / "store")
    images = [("image", (f"{i}.png", noise_png(i), "image/png")) for i in range(6)]
    with TestClient(application(ModelRegistry([trained]), store, SETTINGS)) as service:
        client = client_with(service, store, Scope.ADMIN)
        added = client.post("/v1/models/digits/classes?label=noise", files=images)
        assert added.status_code == 201, added.text
        assert added.json()["labels"][-1] == "noise"
        assert len(added.json()["versions"]) == 2
        (answer,) = classify(client, noise_png(7))
        assert answer["label"] == "noise"
        (before,) = classify(client, noise_png(7), model="digits@" + added.json()["versions"][0])
        assert before["label"] != "noise"
        assert client.post("/v1/models/digits/classes?label=noise", files=images).status_code == 422  # it exists
        assert client.post("/v1/models/digits/classes?label=few", files=images[:4]).status_code == 422  # 5 are needed
    reopened = Store.open(tmp_path / "store")
    with TestClient(application(ModelRegistry([trained]), reopened, SETTINGS)) as service:
        (model,) = client_with(service, reopened, Scope.READ).get("/v1/models").json()["models"]
        assert model["labels"][-1] == "noise"


def test_rolled_back_class_stays_away_after_a_restart(trained, tmp_path):
    images = [("image", (f"{i}.png", noise_png(i), "image/png")) for i in range(6)]
    for adds in (True, False):
        store = Store.open(tmp_path / "store")
        with TestClient(application(ModelRegistry([trained]), store, SETTINGS)) as service:
            client = client_with(service, store, Scope.ADMIN)
            if adds:
                assert client.post("/v1/models/digits/classes?label=noise", files=images).status_code == 201
                assert client.post("/v1/models/digits/rollback").status_code == 200
            assert "noise" not in client.get("/v1/models").json()["models"][0]["labels"]
    assert len(list((tmp_path / "store" / "models.rolled-back").glob("*/digits"))) == 1


def test_reload_keeps_added_classes_and_rollback_removes_the_last(trained, tmp_path):
    images = [("image", (f"{i}.png", noise_png(i), "image/png")) for i in range(6)]
    store = Store.open(tmp_path / "store")
    with TestClient(application(ModelRegistry([trained]), store, SETTINGS)) as service:
        client = client_with(service, store, Scope.ADMIN)
        assert client.post("/v1/models/digits/rollback").status_code == 422  # no class was added yet
        for label in ("noise", "more noise"):
            assert client.post(f"/v1/models/digits/classes?label={label}", files=images).status_code == 201
        assert client.post("/v1/models/digits/reload").json()["labels"][-2:] == ["noise", "more noise"]
        assert client.post("/v1/models/digits/rollback").json()["labels"][-1] == "noise"
        assert client.post("/v1/models/digits/rollback").json()["labels"][-1] == "9"


@pytest.mark.parametrize("error", [ValueError("shapes do not match"), KeyError("x"), ZeroDivisionError()])
def test_internal_error_gives_status_500_without_its_message(client, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("likely.server.http.service.explain", fail)
    response = client.post("/v1/explain", files={"image": digit_png(1)})
    assert response.status_code == 500
    assert not str(error) or str(error) not in response.json()["detail"]


def test_required_signature_refuses_new_classes_and_changed_cards(trained, tmp_path):
    out, key = tmp_path / "digits", tmp_path / "key"
    shutil.copytree(trained, out)
    public = signing.new_key(key)
    signing.sign(out, key)
    store = Store.open(tmp_path / "store")
    images = [("image", (f"{i}.png", noise_png(i), "image/png")) for i in range(6)]
    with TestClient(application(ModelRegistry([out], trust=TrustPolicy(public)), store, SETTINGS)) as service:
        client = client_with(service, store, Scope.ADMIN)
        assert client.post("/v1/models/digits/classes?label=noise", files=images).status_code == 422
        assert client.get("/v1/models").json()["models"][0]["labels"][-1] == "9"
        assert "# digits" in client.get("/v1/models/digits/card").text
        (out / "README.md").write_text("changed since")
        assert client.get("/v1/models/digits/card").status_code == 422


def test_added_class_of_an_encrypted_model_is_encrypted(trained, tmp_path, monkeypatch):
    out, key = tmp_path / "digits", tmp_path / "key"
    shutil.copytree(trained, out)
    encryption.new_key(key)
    monkeypatch.setenv("LIKELY_MODEL_KEY", str(key))
    encrypt(out, TrustPolicy().keys)
    store = Store.open(tmp_path / "store")
    images = [("image", (f"{i}.png", noise_png(i), "image/png")) for i in range(6)]
    with TestClient(application(ModelRegistry([out]), store, SETTINGS)) as service:
        client = client_with(service, store, Scope.ADMIN)
        assert client.post("/v1/models/digits/classes?label=noise", files=images).status_code == 201
        (answer,) = classify(client, noise_png(7))
        assert answer["label"] == "noise"
    written = list((tmp_path / "store" / "models").glob("*/digits/*"))
    assert written
    assert all(path.name.endswith(encryption.SUFFIX) for path in written)


def test_retrained_model_replaces_added_classes(trained, tmp_path, caplog):
    out, images = tmp_path / "digits", [("image", (f"{i}.png", noise_png(i), "image/png")) for i in range(6)]
    shutil.copytree(trained, out)
    store = Store.open(tmp_path / "store")
    with TestClient(application(ModelRegistry([out]), store, SETTINGS)) as service:
        client = client_with(service, store, Scope.ADMIN)
        assert client.post("/v1/models/digits/classes?label=noise", files=images).status_code == 201
    shutil.rmtree(out)
    digits = load_digits()
    Classifier("gaussian").fit(digits.images[:300] / 16, digits.target[:300]).save(out)
    again = Store.open(tmp_path / "store")
    with TestClient(application(ModelRegistry([out]), again, SETTINGS)) as service:
        (model,) = client_with(service, again, Scope.READ).get("/v1/models").json()["models"]
        assert "noise" not in model["labels"]
    assert [record.levelname for record in caplog.records if record.name == "likely.service"] == ["WARNING"]


def test_version_that_cannot_be_registered_is_not_served(trained, tmp_path, monkeypatch):
    out, digits = tmp_path / "digits", load_digits()
    shutil.copytree(trained, out)
    store = Store.open(tmp_path / "store")
    with TestClient(application(ModelRegistry([out]), store, SETTINGS)) as service:
        client = client_with(service, store, Scope.ADMIN)
        Classifier("gaussian").fit(digits.images[:300] / 16, digits.target[:300]).save(out)
        monkeypatch.setattr(store, "register_model", lambda model: (_ for _ in ()).throw(OSError("gone")))
        assert client.post("/v1/models/digits/reload").status_code == 503
        assert classify(client, digit_png(1))[0]["status"] != "error"


def test_failed_write_of_a_new_class_leaves_the_model_unchanged(trained, tmp_path, monkeypatch):
    def fail(predictor, counts, parent, out, **options):
        out.mkdir(parents=True)
        (out / "model.json").write_text("{")
        raise OSError(28, "No space left on device")

    store = Store.open(tmp_path / "store")
    images = [("image", (f"{i}.png", noise_png(i), "image/png")) for i in range(6)]
    with TestClient(application(ModelRegistry([trained]), store, SETTINGS)) as service:
        monkeypatch.setattr("likely.server.http.service.save_extended", fail)
        added = client_with(service, store, Scope.ADMIN).post("/v1/models/digits/classes?label=noise", files=images)
        assert added.status_code == 503
    again = Store.open(tmp_path / "store")
    with TestClient(application(ModelRegistry([trained]), again, SETTINGS)) as service:
        (model,) = client_with(service, again, Scope.READ).get("/v1/models").json()["models"]
        assert "noise" not in model["labels"]


def test_classes_list_training_images_and_reviewed_predictions(trained, tmp_path):
    store = Store.open(tmp_path / "store")
    with TestClient(application(ModelRegistry([trained]), store, SETTINGS)) as service:
        client = client_with(service, store, Scope.ADMIN)
        (answer,) = classify(client, digit_png(1307))
        store.label([answer["id"]], answer["label"], None)
        listed = client.get("/v1/models/digits/classes").json()["classes"]
    found = {each["label"]: each for each in listed}
    assert list(found) == [str(i) for i in range(10)]
    assert sum(each["n_known"] + each["n_ambiguous"] + each["n_unknown"] for each in listed) == 1
    assert found[answer["label"]]["n_right"] == (answer["status"] == "known")
    assert all(each["n_training"] > 10 for each in listed)


def test_reload_serves_the_new_version_beside_the_previous_one(tmp_path):
    digits, out, store = load_digits(), tmp_path / "digits", Store.open(tmp_path / "store")
    Classifier("gaussian").fit(digits.images[:300] / 16, digits.target[:300]).save(out)
    with TestClient(application(ModelRegistry([out]), store, SETTINGS)) as service:
        client = client_with(service, store, Scope.ADMIN)
        (before,) = client.get("/v1/models").json()["models"]
        Classifier("gaussian").fit(digits.images[:900] / 16, digits.target[:900]).save(out)
        now = client.post("/v1/models/digits/reload").json()
        assert now["versions"] == [before["version"], now["version"]]
        assert len(set(now["versions"])) == 2
        for version in now["versions"]:
            (answer,) = classify(client, digit_png(1), model=f"digits@{version}")
            assert answer["model"] == f"digits@{version}"
        (answer,) = classify(client, digit_png(1))
        assert answer["model"] == f"digits@{now['version']}"


def test_large_body_without_images_is_refused(service):
    response = service.post("/v1/generate", content=b" " * 1_000_001, headers={"Content-Type": "application/json"})
    assert response.status_code == 413


def test_models_list_labels_and_size(client, folder):
    (model,) = client.get("/v1/models").json()["models"]
    assert (model["name"], model["labels"], model["size"]) == ("digits", [str(i) for i in range(10)], [8, 8])


def test_kserve_predictions_equal_those_of_python(client, service, folder):
    metadata = client.get("/v2/models/digits").json()
    labels = metadata["outputs"][-1]["parameters"]["labels"]
    pixels = (load_digits().images[1315:1317] * 255 / 16).astype(np.uint8)
    tensor = {"name": "image", "datatype": "UINT8", "shape": [2, 8, 8, 1], "data": pixels.ravel().tolist()}
    files = {"name": "image", "datatype": "BYTES", "shape": [2]}
    files["data"] = [base64.b64encode(digit_png(i)).decode() for i in (1315, 1316)]
    found = [
        client.post(f"/v2/models/digits{version}/infer", json={"id": "mine", "inputs": [one]})
        for one, version in ((tensor, ""), (files, f"/versions/{metadata['versions'][0]}"))
    ]
    outputs = []
    for response in found:
        assert response.status_code == 200, response.text
        assert response.json()["id"] == "mine"
        outputs.append({each["name"]: each for each in response.json()["outputs"]})
    assert outputs[0]["probability"] == outputs[1]["probability"]
    p = np.array(outputs[0]["probability"]["data"]).reshape(2, 10)
    np.testing.assert_allclose(p, Classifier.load(folder).predict_proba(pixels), atol=1e-5)
    assert [labels[c] for c in p.argmax(1)] == outputs[0]["label"]["data"]
    assert service.get("/v2").json()["name"] == "likely"
    assert service.get("/v2/health/live").status_code == service.get("/v2/health/ready").status_code == 200
    assert client.get("/v2/models/digits/ready").json()["ready"] is True
    assert client.get(f"/v2/models/digits/versions/{metadata['versions'][0]}/ready").json()["ready"] is True
    assert client.get("/v2/models/digits/versions/0000").status_code == 404


@pytest.mark.parametrize(
    "wrong",
    [
        {"datatype": "UINT8", "shape": [1, 8, 8], "data": [0] * 64},
        {"datatype": "UINT8", "shape": [1, 8, 8, 1], "data": [0] * 63},
        {"datatype": "UINT8", "shape": [1, 8, 8, 1], "data": [256] * 64},
        {"datatype": "UINT8", "shape": [1, 2, 2, 1], "data": [[1, 2], [3]]},
        {"datatype": "UINT8", "shape": [1, 1, 1, 1], "data": ["a"]},
        {"datatype": "BYTES", "shape": [2], "data": ["YQ=="]},
        {"datatype": "BYTES", "shape": [1], "data": ["§"]},
        {"datatype": "BYTES", "shape": [1], "data": ["bm8gaW1hZ2U="]},
        {"datatype": "FP32", "shape": [1], "data": [0]},
    ],
)
def test_kserve_refuses_invalid_tensors(client, wrong):
    response = client.post("/v2/models/digits/infer", json={"inputs": [{"name": "image", **wrong}]})
    assert response.status_code == 422
    assert response.json()["detail"]


# ---- invalid requests


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"content": b"x", "headers": {"Content-Type": "text/plain"}}, 415),
        ({"content": b"", "headers": {"Content-Type": "image/png"}}, 422),
        ({"json": {"pictures": []}}, 422),
        ({"json": {"images": [{"data": "§"}]}}, 422),
        ({"content": b"[" * 100_000, "headers": {"Content-Type": "application/json"}}, 422),
        ({"files": [("image", b"x")] * 9}, 413),
        ({"files": {"image": b"x"}, "params": {"model": "digit"}}, 404),
        ({"files": {"image": b"x"}, "params": {"model": "digits@0"}}, 404),
        ({"files": {"image": b"x"}, "params": {"alpha": "7"}}, 422),
        ({"files": {"image": b"x"}, "params": {"alfa": "0.1"}}, 422),
        ({"content": b"--x", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 422),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400),
    ],
)
def test_invalid_request_gives_its_status(client, request_, status):
    response = client.post("/v1/classify", **request_)
    assert response.status_code == status, response.text
    assert response.json()["detail"]


def test_request_and_image_beyond_the_size_limit_are_refused(client):
    response = client.post("/v1/classify", files={"image": bytes(8_000_000)})
    assert response.status_code == 413
    (found,) = classify(client, bytes(600_000))
    assert (found["status"], found["id"]) == ("error", None)


@pytest.mark.parametrize("name", ["\ud800", "a\0b", "", "x" * 1000, "\u202egnp.exe"])
def test_unprintable_name_is_cleaned(client, store, name):
    images = [
        {"data": base64.b64encode(digit_png(1400 + i)).decode(), "name": each} for i, each in enumerate((name, "b.png"))
    ]
    body = json.dumps({"images": images})
    response = client.post("/v1/classify", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 200, response.text
    first, second = response.json()["predictions"]
    assert second["input"] == "b.png"
    assert first["input"].isprintable()
    assert store.prediction(first["id"]).prediction.input == first["input"]


@pytest.mark.parametrize("label", ["\ud800", "a\0b"])
def test_unprintable_label_is_refused(client, label):
    (answer,) = classify(client, digit_png(1402))
    body = json.dumps({"label": label})
    path, kind = f"/v1/predictions/{answer['id']}/label", {"Content-Type": "application/json"}
    assert client.post(path, content=body, headers=kind).status_code == 422


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/predictions/a%00", None),
        ("GET", "/v1/predictions?before=a%00", None),
        ("DELETE", "/v1/keys/a%00", None),
        ("POST", "/v1/predictions/a%00/label", {"label": "7"}),
        ("POST", "/v1/predictions/label", {"ids": ["a\0"], "label": "7"}),
    ],
)
def test_unprintable_id_is_refused(client, method, path, body):
    """PostgreSQL raises an error for some ids that SQLite accepts."""
    assert client.request(method, path, json=body).status_code == 422


def test_requests_beyond_the_total_size_limit_get_503(client, service):
    gate = service.app.middleware_stack
    while not isinstance(gate, RequestMiddleware):
        gate = gate.app
    gate.inside.n, before = gate.inside.most, gate.inside.n
    try:
        response = client.post("/v1/classify", files={"image": digit_png(1)})
    finally:
        gate.inside.n = before
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert gate.inside.n == 0
    assert classify(client, digit_png(1))


def test_unknown_methods_have_one_metric_label(client, service):
    for method in ("BREW", "WHEN"):
        service.request(method, "/v1/models")
    text = client.get("/metrics").text
    assert 'method="other"' in text
    assert "BREW" not in text


def test_full_queue_of_slow_requests_does_not_block_predictions(client, monkeypatch):
    monkeypatch.setattr("likely.server.http.service.MAX_SLOW_REQUESTS", 0)
    assert client.get("/v1/models/digits/classes/3/sample").status_code == 503
    assert classify(client, digit_png(1))


def test_full_queue_gives_503_with_retry_after(client, service):
    inside = service.app.state.likely.service
    inside.n_inflight = SETTINGS.max_queue
    try:
        response = client.post("/v1/classify", files={"image": digit_png(1)})
    finally:
        inside.n_inflight = 0
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) >= 1


def test_failed_store_gives_503_and_no_prediction(client, store, monkeypatch):
    def broken(predictions):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "add", broken)
    response = client.post("/v1/classify", files={"image": digit_png(1)})
    assert response.status_code == 503
    assert "Retry-After" in response.headers
    monkeypatch.undo()
    assert classify(client, digit_png(1))


def test_rate_limit_gives_429_with_retry_after(service, store, folder, tmp_path):
    slow = application(ModelRegistry([folder]), Store.open(tmp_path / "slow"), Settings(rate_limit=0.1))
    with TestClient(slow) as client:
        _, secret = slow.state.likely.service.store.keys.add("one", [Scope.CLASSIFY])
        ask = {"headers": {"Authorization": f"Bearer {secret}"}, "files": {"image": digit_png(2)}}
        assert client.post("/v1/classify", **ask).status_code == 200
        refused = client.post("/v1/classify", **ask)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 10


# ---- stored predictions


def test_predictions_can_be_listed_labeled_and_exported(client, store):
    answers = classify(client, digit_png(1310), digit_png(1311), digit_png(1312))
    ids = [answer["id"] for answer in answers]
    assert client.post("/v1/predictions/label", json={"ids": ids[:2], "label": "a/b"}).json()["ids"] == ids[:2]
    assert client.post(f"/v1/predictions/{ids[2]}/label", json={"label": "../c"}).status_code == 200
    page = client.get("/v1/predictions", params={"is_labeled": True, "limit": 2}).json()
    assert [each["id"] for each in page["predictions"]] == [ids[2], ids[1]]
    rest = client.get("/v1/predictions", params={"is_labeled": True, "before": page["before"]}).json()
    assert rest["predictions"][0]["id"] == ids[0]
    archive = zipfile.ZipFile(BytesIO(client.get("/v1/predictions/folder").content))
    assert sorted({name.rpartition("/")[0] for name in archive.namelist()}) == ["_/c", "a/b"]
    lines = client.get("/v1/predictions/export", params={"true_label": "a/b"}).text.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ids[1::-1]
    assert client.get(f"/v1/images/{page['predictions'][0]['image']}").content == digit_png(1312)
    assert client.post(f"/v1/predictions/{ids[2]}/label", json={"label": None}).status_code == 200
    assert store.prediction(ids[2]).true_label is None
    assert client.get("/v1/predictions/nobody").status_code == 404
    assert client.post("/v1/predictions/nobody/label", json={"label": "x"}).status_code == 404
    assert client.get("/v1/images/nothing").status_code == 404


# ---- authorization


ROUTES = [
    ("GET", "/v1/models", Scope.READ),
    ("POST", "/v1/classify", Scope.CLASSIFY),
    ("POST", "/v1/explain", Scope.CLASSIFY),
    ("POST", "/v1/generate", Scope.CLASSIFY),
    ("GET", "/v1/models/digits/report", Scope.READ),
    ("GET", "/v1/models/digits/card", Scope.READ),
    ("GET", "/v1/models/digits/classes", Scope.READ),
    ("GET", "/v1/models/digits/map", Scope.READ),
    ("GET", "/v1/models/digits/drift", Scope.READ),
    ("POST", "/v1/models/digits/classes", Scope.ADMIN),
    ("POST", "/v1/models/digits/reload", Scope.ADMIN),
    ("POST", "/v1/models/digits/rollback", Scope.ADMIN),
    ("GET", "/v1/models/digits/classes/0/sample", Scope.READ),
    ("GET", "/v1/predictions", Scope.READ),
    ("GET", "/v1/predictions/export", Scope.READ),
    ("GET", "/v1/predictions/folder", Scope.READ),
    ("GET", "/v1/predictions/x", Scope.READ),
    ("POST", "/v1/predictions/label", Scope.LABEL),
    ("POST", "/v1/predictions/x/label", Scope.LABEL),
    ("GET", "/v1/images/x", Scope.READ),
    ("GET", "/v1/session", Scope.READ),
    ("DELETE", "/v1/session", Scope.READ),
    ("GET", "/v1/keys", Scope.ADMIN),
    ("POST", "/v1/keys", Scope.ADMIN),
    ("DELETE", "/v1/keys/x", Scope.ADMIN),
    ("GET", "/metrics", Scope.READ),
    ("GET", "/v2/models/digits", Scope.READ),
    ("GET", "/v2/models/digits/ready", Scope.READ),
    ("GET", "/v2/models/digits/versions/v", Scope.READ),
    ("GET", "/v2/models/digits/versions/v/ready", Scope.READ),
    ("POST", "/v2/models/digits/infer", Scope.CLASSIFY),
    ("POST", "/v2/models/digits/versions/v/infer", Scope.CLASSIFY),
]
OPEN = {("GET", path) for path in ("/health/live", "/health/ready", "/v2", "/v2/health/live", "/v2/health/ready")}
OPEN.add(("POST", "/v1/session"))


def test_all_routes_are_in_the_authorization_table(service):
    paths = service.get("/openapi.json").json()["paths"]
    found = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    pattern = {"x": ("{id}", "{sha256}"), "digits": ("{model}",), "0": ("{index}",), "v": ("{version}",)}

    def templates(path):
        segments = [(*pattern.get(segment, ()), segment) for segment in path.split("/")[1:]]
        return {"".join(f"/{each}" for each in choice) for choice in product(*segments)}

    tried = {(method, template) for method, path, _ in ROUTES for template in templates(path)}
    assert found - OPEN <= tried


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_route_requires_a_valid_key_with_its_scope(service, store, method, path, scope):
    assert service.request(method, path).status_code == 401
    for headers in ({"Authorization": "Bearer lk_nobody"}, {"X-API-Key": "lk_nobody"}, {"Cookie": "likely_session=x"}):
        assert service.request(method, path, headers=headers).status_code == 401, headers
    others = [each for each in Scope if each not in (scope, Scope.ADMIN)]
    assert client_with(service, store, *others).request(method, path).status_code == 403
    assert client_with(service, store, scope, days=1e-9).request(method, path).status_code == 401  # expired
    revoked = client_with(service, store, scope)
    store.keys.revoke(store.keys.find(revoked.secret).id)
    assert revoked.request(method, path).status_code == 401
    assert client_with(service, store, scope).request(method, path).status_code not in (401, 403)


def test_browser_session_requires_the_csrf_token_for_changes(service, store):
    _, secret = store.keys.add("person", [Scope.ADMIN])
    browser = TestClient(service.app)
    assert browser.post("/v1/session", json={"key": secret + "x"}).status_code == 401
    entered = browser.post("/v1/session", json={"key": secret})
    cookie = entered.headers["set-cookie"].lower()
    assert all(word in cookie for word in ("httponly", "samesite=strict"))
    assert secret not in cookie
    assert browser.get("/v1/predictions").status_code == 200
    assert browser.post("/v1/generate", json={"label": "1"}).status_code == 403
    wrong = {"X-CSRF-Token": "é".encode()}
    assert browser.post("/v1/generate", json={"label": "1"}, headers=wrong).status_code == 403
    token = {"X-CSRF-Token": entered.json()["csrf"]}
    assert browser.post("/v1/generate", json={"label": "1"}, headers=token).status_code == 200
    assert browser.delete("/v1/session", headers=token).status_code == 204
    assert browser.get("/v1/predictions").status_code == 401


def test_sessions_and_keys_are_not_interchangeable(service, store):
    _, secret = store.keys.add("person", [Scope.ADMIN])
    browser, script, other = (TestClient(service.app) for _ in range(3))
    browser.post("/v1/session", json={"key": secret})
    assert browser.get("/v1/predictions").status_code == 200
    session = {"Authorization": f"Bearer {browser.cookies['likely_session']}"}
    assert script.get("/v1/predictions", headers=session).status_code == 401
    assert script.get("/v1/predictions", headers={"Authorization": f"Bearer {secret}"}).status_code == 200
    other.cookies.set("likely_session", secret)
    assert other.get("/v1/predictions").status_code == 401


def test_key_revoked_during_a_look_up_is_not_cached(store, monkeypatch):
    key, secret = store.keys.add("person", [Scope.READ])
    known, ask = CredentialCache(store), store.keys.find

    def revoked_meanwhile(secret):
        found = ask(secret)
        store.keys.revoke(key.id)
        known.forget()
        return found

    monkeypatch.setattr(store.keys, "find", revoked_meanwhile)
    assert asyncio.run(known.find_key(secret)).revoked is None  # the query preceded the revocation
    monkeypatch.undo()
    assert asyncio.run(known.find_key(secret)).revoked is not None


def test_concurrent_look_ups_need_one_query(store, monkeypatch):
    _, secret = store.keys.add("person", [Scope.READ])
    known, ask, asked = CredentialCache(store), store.keys.find, []

    async def many(secret):
        return await asyncio.gather(*(known.find_key(secret) for _ in range(20)), return_exceptions=True)

    monkeypatch.setattr(store.keys, "find", lambda secret: asked.append(secret) or ask(secret))
    assert len(set(asyncio.run(many(secret)))) == 1
    assert asked == [secret]

    def gone(secret):
        raise OSError("the database is gone")

    known.forget()
    monkeypatch.setattr(store.keys, "find", gone)
    assert {type(each) for each in asyncio.run(many(secret))} == {OSError}
    monkeypatch.undo()
    assert asyncio.run(known.find_key(secret)).name == "person"


def test_login_rate_limit_gives_429(folder, tmp_path):
    app = application(ModelRegistry([folder]), Store.open(tmp_path / "store"), Settings(login_rate_limit=0.2))
    with TestClient(app) as browser:
        codes = [browser.post("/v1/session", json={"key": f"lk_{i}"}).status_code for i in range(4)]
    assert codes == [401, 401, 429, 429]


def test_keys_can_be_created_listed_and_revoked(client, service):
    made = client.post("/v1/keys", json={"name": "till", "scopes": ["classify"], "days": 30}).json()
    till = TestClient(service.app, headers={"X-API-Key": made["secret"]})
    assert till.post("/v1/classify", files={"image": digit_png(3)}).status_code == 200
    listed = client.get("/v1/keys").json()
    assert made["id"] in [key["id"] for key in listed]
    assert "secret" not in listed[0]
    assert client.delete(f"/v1/keys/{made['id']}").status_code == 204
    assert till.post("/v1/classify", files={"image": digit_png(3)}).status_code == 401


# ---- middleware and operations


def test_responses_have_security_headers_and_request_ids(client):
    for response in (client.get("/"), client.get("/nowhere"), client.get("/v1/models", headers={"Authorization": ""})):
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["X-Request-ID"]
    assert client.get("/health/live", headers={"X-Request-ID": "mine-1"}).headers["X-Request-ID"] == "mine-1"
    assert client.get("/health/live", headers={"X-Request-ID": "a b\tc"}).headers["X-Request-ID"] != "a b\tc"


def test_access_log_has_a_line_per_request_without_secrets(client, caplog):
    with caplog.at_level("INFO", logger="likely"):
        client.get("/v1/predictions", params={"label": client.secret})
        client.get("/v1/nowhere/" + client.secret)
    assert [record.fields["status"] for record in caplog.records] == [200, 404]
    assert not any(client.secret in json.dumps(record.fields) for record in caplog.records)


def test_metrics_count_predictions_and_batches(client):
    classify(client, digit_png(4))
    text = client.get("/metrics").text
    assert 'likely_predictions_total{model="digits@' in text
    assert "likely_batch_images_bucket" in text


def test_health_needs_no_key(service, store, monkeypatch):
    assert service.get("/health/live").json() == {"status": "alive"}
    assert service.get("/health/ready").status_code == 200

    def gone():
        raise OSError("gone")

    monkeypatch.setattr(store, "ping", gone)
    assert service.get("/health/ready").status_code == 503
    assert service.get("/health/live").status_code == 200


def test_web_pages_load_nothing_from_other_hosts(service):
    for path in ("/", "/docs", "/pages/main.js", "/pages/style.css"):
        response = service.get(path)
        assert response.status_code == 200
        assert "http://" not in response.text.replace("http://www.w3.org", "")
        assert "https://" not in response.text


def test_old_predictions_are_pruned_automatically(folder, tmp_path):
    store = Store.open(tmp_path / "store")
    with TestClient(application(ModelRegistry([folder]), store, SETTINGS)) as service:
        client = client_with(service, store, Scope.ADMIN)
        old, labeled = (answer["id"] for answer in classify(client, digit_png(6), digit_png(7)))
    again = Store.open(tmp_path / "store")
    again.label([labeled], "7", None)
    time.sleep(0.01)
    with TestClient(application(ModelRegistry([folder]), again, SETTINGS.model_copy(update={"retention_days": 1e-9}))):
        for _ in range(200):
            if again.prediction(old) is None:
                break
            time.sleep(0.05)
        assert [each.id for each in again.iterate(PredictionFilter())] == [labeled]


def test_shutdown_completes_queued_requests(folder, tmp_path):
    app = application(ModelRegistry([folder]), Store.open(tmp_path / "store"), Settings(batch_timeout=0.5))
    with TestClient(app) as client:
        _, secret = app.state.likely.service.store.keys.add("one", [Scope.ADMIN])
        ask = {"headers": {"Authorization": f"Bearer {secret}"}, "files": {"image": digit_png(5)}}
        assert client.post("/v1/classify", **ask).status_code == 200
    again = Store.open(tmp_path / "store")
    assert len(again.predictions(PredictionFilter())) == 1
    again.close()
