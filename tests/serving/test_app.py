"""The served bundle, asked in this process: the same answers as `predict`, and a clear refusal of everything else."""

from __future__ import annotations

import base64
import io
import json
import socket
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient

import frostline
from frostline.errors import ConfigError
from frostline.serving.limits import Limits
from frostline.serving.settings import Settings
from frostline.stats.predictions import Prediction
from support.commands import call
from support.photos import BROKEN, FORMATS, photo
from support.runs import Run
from support.serving import JPEG, asked


@pytest.fixture(scope="module")
def bundle(run: Run) -> Path:
    return run.out / "fine-tuned" / "bundle"


@pytest.fixture(scope="module")
def client(bundle: Path) -> Any:
    with asked(bundle, limits=Limits(bytes=300_000, pixels=200_000, files=4)) as made:
        yield made


def refusal(response: Any, status: int, code: str) -> str:
    """The message of a refusal, which has to be this one."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    assert list(document) == ["error"]
    assert document["error"]["code"] == code, document
    message: str = document["error"]["message"]
    assert message
    assert "Traceback" not in message
    return message


# ---- answers ---------------------------------------------------------------------------------------------------------


def test_answers_are_those_of_predict(client: TestClient, bundle: Path, run: Run) -> None:
    paths = sorted((run.data / "class 10").iterdir())[:4]
    files = [("file", (path.name, path.read_bytes(), "image/jpeg")) for path in paths]
    document = client.post("/v1/predict?top_k=3", files=files).json()
    expected = list(frostline.predict(bundle, paths))
    assert [r["name"] for r in document["results"]] == [path.name for path in paths]
    for result, wanted, path in zip(document["results"], expected, paths, strict=True):
        assert isinstance(wanted, Prediction)
        assert result["predicted"] == wanted.predicted
        assert result["confidence"] == wanted.confidence  # to the last digit
        assert {t["class"]: t["confidence"] for t in result["top"]} == wanted.probabilities
        assert [t["confidence"] for t in result["top"]] == sorted(wanted.probabilities.values(), reverse=True)
        raw = client.post("/v1/predict?top_k=1", content=path.read_bytes(), headers=JPEG).json()["results"]
        assert [(r["predicted"], r["confidence"], len(r["top"])) for r in raw] == [
            (wanted.predicted, wanted.confidence, 1)
        ]


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_taken_whatever_it_is_called(client: TestClient, kind: str) -> None:
    response = client.post("/v1/predict", content=photo(4, kind), headers={"Content-Type": "image/anything"})
    assert response.status_code == 200
    assert response.json()["results"][0]["confidence"] > 0


def test_training_photos_that_resemble_it(client: TestClient, run: Run) -> None:
    path = next(p for p in sorted((run.data / "Tulpe ü").iterdir()) if "1." in p.name)
    (result,) = client.post("/v1/predict?neighbours=5", content=path.read_bytes(), headers=JPEG).json()["results"]
    assert len(result["neighbours"]) == 5
    assert all(n["class"] in ("class 2", "class 10", "Tulpe ü") for n in result["neighbours"])
    assert result["neighbours"][0]["similarity"] >= result["neighbours"][4]["similarity"]


def test_below_the_threshold_it_is_unsure(client: TestClient) -> None:
    def unsure(threshold: float) -> Any:
        return client.post(f"/v1/predict?threshold={threshold}", content=photo(), headers=JPEG).json()["results"][0]

    assert unsure(0)["unsure"] is False
    assert unsure(1)["unsure"] is (unsure(1)["confidence"] < 1)
    thresholds = client.get("/v1/model").json()["thresholds"]
    answer = client.post("/v1/predict?precision=0.9", content=photo(), headers=JPEG)
    if any(row["precision"] >= 0.9 for row in thresholds):
        assert isinstance(answer.json()["results"][0]["unsure"], bool)
    else:
        refusal(answer, 422, "no_threshold")
    both = client.post("/v1/predict?precision=0.9&threshold=0.5", content=photo(), headers=JPEG)
    assert "both" in refusal(both, 422, "invalid")
    assert refusal(client.post("/v1/predict?threshold=2", content=photo(), headers=JPEG), 422, "invalid")


def test_the_model_and_its_card_are_described(client: TestClient, bundle: Path) -> None:
    answer = client.get("/v1/model").json()
    document = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    assert answer["classes"] == document["classes"]
    assert answer["figures"] == document["figures"]
    assert document["sha256"].startswith(answer["id"])
    assert answer["card"] == (bundle / "README.md").read_text(encoding="utf-8")
    assert answer["neighbours"] == document["neighbours"]["photos"]
    counts = [answer["limits"][name] for name in ("bytes", "pixels", "files")]
    assert counts == [300_000, 200_000, 4]
    assert all(isinstance(count, int) for count in counts)


def test_counts_for_prometheus(bundle: Path) -> None:
    with asked(bundle) as client:
        client.post("/v1/predict", content=photo(), headers=JPEG)
        client.post("/v1/predict", content=b"no photo", headers=JPEG)
        client.get("/somewhere/else")
        text = client.get("/metrics").text
    assert 'frostline_photos_total{outcome="ok"} 1.0' in text
    assert 'frostline_photos_total{outcome="not_a_photo"} 1.0' in text
    assert 'frostline_requests_total{path="/v1/predict",status="415"} 1.0' in text
    assert 'frostline_requests_total{path="other",status="404"} 1.0' in text
    assert "frostline_photos_waiting 0.0" in text


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_photo_is_refused(client: TestClient, kind: str) -> None:
    data, _ = BROKEN[kind]
    alone = client.post("/v1/predict", content=data, headers=JPEG)
    assert alone.status_code in (413, 415, 422)
    message = refusal(alone, alone.status_code, alone.json()["error"]["code"])
    together = client.post("/v1/predict", files=[("file", ("good.jpg", photo())), ("file", ("bad.jpg", data))])
    good, bad = together.json()["results"]
    assert good["predicted"]
    if data:
        assert bad == {"name": "bad.jpg", "error": alone.json()["error"]}
        assert message in bad["error"]["message"]


def test_bombs_and_too_many_pixels_are_refused_by_their_header(client: TestClient) -> None:
    assert "60000x60000" in refusal(
        client.post("/v1/predict", content=BROKEN["jpeg bomb"][0], headers=JPEG), 413, "too_many_pixels"
    )
    buffer = io.BytesIO()
    Image.new("L", (500, 401)).save(buffer, "PNG")
    message = refusal(client.post("/v1/predict", content=buffer.getvalue(), headers=JPEG), 413, "too_many_pixels")
    assert message == "this file can't be used: too many pixels: 500x401, at most 200,000"


def test_limits_on_bytes_and_files(client: TestClient) -> None:
    large = bytes(300_001)
    assert "at most 300,000 bytes" in refusal(client.post("/v1/predict", content=large, headers=JPEG), 413, "too_large")
    pieces = (large[i : i + 50_000] for i in range(0, len(large), 50_000))  # without a length said first
    refusal(client.post("/v1/predict", content=pieces, headers=JPEG), 413, "too_large")
    mixed = client.post("/v1/predict", files=[("file", ("big", large)), ("file", ("good", photo()))]).json()["results"]
    assert mixed[0]["error"]["code"] == "too_large"
    assert mixed[1]["predicted"]
    many = [("file", (f"{i}.jpg", photo(i))) for i in range(5)]
    assert "at most 4 photos" in refusal(client.post("/v1/predict", files=many), 413, "too_many_files")


FORM = "multipart/form-data; boundary="
NOTE = b'--b\r\nContent-Disposition: form-data; name="note"\r\n\r\nx\r\n'
UNNAMED_FILE = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n'
CUT_FILE = b"--b\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\nxyz"


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"", "image/jpeg", 422, "empty"),
        (b"x", "", 415, "wrong_type"),
        (b"x", "text/plain", 415, "wrong_type"),
        (b"x", "multipart/form-data", 400, "bad_form"),
        (b"x", f"{FORM}b", 400, "bad_form"),
        (CUT_FILE, f"{FORM}b", 400, "bad_form"),
        (b"--b\r\nContent-Type: image/jpeg\r\n\r\nx\r\n--b--\r\n", f"{FORM}b", 400, "bad_form"),
        (NOTE + b"--b--\r\n", f"{FORM}b", 422, "no_photo"),
        (UNNAMED_FILE + b"--b--\r\n", f"{FORM}b", 422, "no_photo"),
        (b"--b--\r\n", f"{FORM}b", 422, "no_photo"),
        (NOTE * 65 + b"--b--\r\n", f"{FORM}b", 413, "too_many_files"),
        (b'{"urls": ["http://127.0.0.1/"]}', "application/json", 403, "urls_off"),
    ],
)
def test_bodies_of_no_use(client: TestClient, body: bytes, kind: str, status: int, code: str) -> None:
    refusal(client.post("/v1/predict", content=body, headers={"Content-Type": kind}), status, code)


def test_unknown_paths_methods_and_options(client: TestClient) -> None:
    refusal(client.get("/v2/predict"), 404, "not_found")
    refusal(client.get("/v1/predict"), 405, "wrong_method")
    for options in ("top_k=0", "top_k=x", "neighbours=51", "threshold=x"):
        assert options.partition("=")[0] in refusal(
            client.post(f"/v1/predict?{options}", content=photo(), headers=JPEG), 422, "invalid"
        )
    assert "did you mean 'class 10'" in refusal(
        client.post("/v1/explain?class=class10", content=photo(), headers=JPEG), 422, "unknown_class"
    )
    two = [("file", ("a", photo())), ("file", ("b", photo(1)))]
    refusal(client.post("/v1/explain", files=two), 422, "one_photo")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_fuzzed_uploads_get_an_answer_or_a_reason(client: TestClient, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(FORMATS))
    body = bytearray(photo(data.draw(st.integers(0, 3)), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    del body[data.draw(st.integers(1, len(body))) :]
    response = client.post("/v1/predict", content=bytes(body), headers=JPEG)
    assert response.status_code in (200, 413, 415, 422), response.text
    assert ("results" in response.json()) is (response.status_code == 200)


PIECES = [b"--b", b"\r\n", b"--", b'Content-Disposition: form-data; name="file"; filename="x"', b":", b"x"]
KINDS = [f"{FORM}b", FORM, "application/json", "image/jpeg", ";;", 'a/b; c="']


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=300) | st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join),
    kind=st.sampled_from(KINDS),
)
def test_fuzzed_bodies_get_a_reason(client: TestClient, body: bytes, kind: str) -> None:
    response = client.post("/v1/predict", content=body, headers={"Content-Type": kind})
    assert 400 <= response.status_code < 500, response.text
    assert response.json()["error"]["message"]


def test_a_form_is_read_in_memory_and_never_written_to_disk(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a photo was written to disk")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", refuse)
    large = photo() + bytes(3 * 2**20)
    with asked(bundle) as client:
        (result,) = client.post("/v1/predict", files={"file": large}).json()["results"]
        assert result["predicted"]


def test_what_all_may_hold_together_is_given_back(bundle: Path) -> None:
    with asked(bundle, limits=Limits(waiting_bytes=2 * len(photo()) - 1)) as client:
        form = [("file", ("a", photo())), ("file", ("b", photo()))]
        for _ in range(3):
            refusal(client.post("/v1/predict", files=form), 413, "too_large")  # half of it is the most that one may
            assert client.post("/v1/predict", content=photo(), headers=JPEG).status_code == 200
        assert "frostline_upload_bytes 0.0" in client.get("/metrics").text


# ---- who is let in ---------------------------------------------------------------------------------------------------


def test_a_token_opens_all_but_the_page_and_health(bundle: Path) -> None:
    with asked(bundle, host="0.0.0.0", token="secret-7") as client:  # noqa: S104, S106
        for path in ("/", "/serve.js", "/serve.css", "/healthz", "/readyz", "/openapi.json"):
            assert client.get(path).status_code == 200
        for path in ("/v1/model", "/metrics", "/nowhere"):
            assert client.get(path).headers.get("www-authenticate") == "Bearer"
            refusal(client.get(path), 401, "no_token")
        for wrong in ("secret-7", "Bearer secret", "Basic secret-7", "Bearer secret-7x"):
            refusal(client.post("/v1/predict", content=photo(), headers={"Authorization": wrong}), 401, "no_token")
        right = {"Authorization": "Bearer secret-7"}
        assert client.post("/v1/predict", content=photo(), headers={**JPEG, **right}).status_code == 200
        assert client.get("/v1/model", headers=right).status_code == 200
        assert client.post("/v1/reload", headers=right).status_code == 200


def test_a_local_server_answers_to_its_own_name_and_pages_alone(client: TestClient) -> None:
    refusal(client.get("/v1/model", headers={"Host": "evil.example:8000"}), 421, "wrong_host")
    for host in ("localhost:8000", "127.0.0.1", "[::1]:1", "LOCALHOST"):
        assert client.get("/v1/model", headers={"Host": host}).status_code == 200
    foreign = {**JPEG, "Origin": "https://evil.example"}
    refusal(client.post("/v1/predict", content=photo(), headers=foreign), 403, "wrong_origin")
    own = {**JPEG, "Origin": "http://127.0.0.1:8000"}
    assert client.post("/v1/predict", content=photo(), headers=own).status_code == 200
    refusal(client.post("/v1/reload"), 403, "no_token")


def test_settings_that_can_not_be_meant(bundle: Path) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):  # noqa: S104
        with pytest.raises(ConfigError, match="set a token"):
            Settings(host=host)
        assert Settings(host=host, open_to_all=True).host == host
    assert "set a token" in call("serve", bundle, "--host", "0.0.0.0").error  # noqa: S104
    assert "--max-bytes 0: expected more than 0" in call("serve", bundle, "--max-bytes", "0").error
    assert "raise --queue" in call("serve", bundle, "--max-files", "9", "--queue", "8").error
    assert "is not a bundle" in call("serve", bundle.parent, "--port", "0").error
    assert "did you mean 'onnx'" in call("serve", bundle, "--engine", "onx").error
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"can't listen on 127.0.0.1:{port}" in call("serve", bundle, "--port", port).error


def test_every_answer_forbids_what_is_not_its_own(client: TestClient) -> None:
    for response in (client.get("/"), client.get("/v1/model"), client.get("/nowhere"), client.post("/v1/predict")):
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
    page = client.get("/").text
    assert "http:" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "<script>" not in page
    assert " style=" not in page


# ---- explanations ----------------------------------------------------------------------------------------------------


def test_where_the_evidence_stands(bundle: Path) -> None:
    with asked(bundle) as client:
        answer = client.post("/v1/explain?class=class%202", content=photo(7, "PNG", 90, 30), headers=JPEG).json()
        assert answer["class"] == "class 2"
        plain = client.post("/v1/explain", files={"file": photo(7, "PNG", 90, 30)}).json()
        assert plain["class"] == plain["predicted"]
        refusal(client.post("/v1/explain", content=b"nothing", headers=JPEG), 415, "not_a_photo")
    grid = np.array(answer["map"])
    assert grid.ndim == 2
    assert 0 <= grid.min() <= grid.max() <= 255
    kind, _, data = answer["overlay"].partition(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (90, 30)  # the photo's own shape
