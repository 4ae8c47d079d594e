"""frostline bench and frostline push, the latter against a hub of the tests' own."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

import pytest
from huggingface_hub import ModelCard

from frostline.bundles.about import licences_of, read_about
from support.commands import SMALL, call, must
from support.photos import write_folder
from support.servers import LocalServer

CLASSES = ["class 2", "class 10"]
TOKEN = "hf_" + "x" * 30


class Hub(BaseHTTPRequestHandler):
    """As much of a hub as an upload asks for; keeps what it is given."""

    kept: ClassVar[dict[str, bytes]] = {}
    private: ClassVar[list[Any]] = []

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path.startswith("/api/") and "/me/flowers" not in self.path:
            return self._answer(
                404 if TOKEN in self.headers.get("Authorization", "") else 401, {"error": "Repository not found"}
            )
        return self._answer(200, {"id": "me/flowers", "sha": "0" * 40, "private": False, "siblings": []})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if TOKEN not in self.headers.get("Authorization", ""):
            return self._answer(401, {"error": "Invalid username or password."})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            if asked.get("organization") == "theirs":
                return self._answer(403, {"error": "You don't have the rights to create a model under theirs"})
            if asked.get("organization") == "nobody":
                return self._answer(404, {"error": "no such owner"})
            self.private.append(asked.get("private") or asked.get("visibility"))
            return self._answer(200, {"url": f"{self.server_url}/me/flowers", "id": "me/flowers", "name": "me/flowers"})
        if "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            return self._answer(200, {"files": files})
        if "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.kept[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"{self.server_url}/me/flowers/commit/{'1' * 40}"
            return self._answer(200, {"success": True, "commitOid": "1" * 40, "commitUrl": url})
        return self._answer(200, {"errors": [], "warnings": []})

    @property
    def server_url(self) -> str:
        return f"http://{self.headers['Host']}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Hub]]:
    server = LocalServer(Hub)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    Hub.kept.clear()
    Hub.private.clear()
    yield Hub
    server.close()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network from random weights, in its run folder, with an export beside it."""
    folder = tmp_path_factory.mktemp("hub")
    data = write_folder(folder / "photos", CLASSES, 16)
    options = ("--strategy", "baseline", "--preset", "fast", "--epochs", "1", *SMALL, "--quiet")
    must("fit", data, "--out", folder / "run", *options)
    made = folder / "run" / "baseline" / "bundle"
    must("export", made, "--quiet")
    return made


def test_a_pushed_bundle_can_be_used(bundle: Path, hub: type[Hub], tmp_path: Path) -> None:
    run = bundle.parents[1]
    study = json.loads((run / "study.json").read_text(encoding="utf-8"))
    causes = [{"cause": "blur", "title": "Blur", "accuracy": [0.9, 0.8, 0.7, 0.6, 0.5]}]
    study["strategies"][0]["robustness"] = {"photos": 9, "clean": 0.95, "causes": causes}
    copied = shutil.copytree(run, tmp_path / "run")
    (copied / "study.json").write_text(json.dumps(study), encoding="utf-8")
    said = must("push", copied / "baseline" / "bundle", "flowers", "--private", "--token", TOKEN, "--json", "--quiet")
    assert json.loads(said.out)["files"] == ["README.md", "bundle.json", "model.safetensors"]
    assert json.loads(said.out)["url"].endswith("/me/flowers")
    assert hub.private in ([True], ["private"])
    for name, data in hub.kept.items():
        (tmp_path / "loaded").mkdir(exist_ok=True)
        (tmp_path / "loaded" / name).write_bytes(data)
    must("predict", tmp_path / "loaded", bundle.parents[2] / "photos", "--quiet")
    card = ModelCard(hub.kept["README.md"].decode())
    assert card.data.pipeline_tag == "image-classification"
    metrics = {result.metric_type: result.metric_value for result in card.data.eval_results or []}
    assert metrics["accuracy"] == pytest.approx(study["strategies"][0]["accuracy"], abs=1e-4)
    assert all(
        title in card.text for title in ("## Robustness", "| Blur | 90.0 %", "## Artefact", "## Limits", "## Licence")
    )


def test_refusals_of_a_hub_are_one_line(bundle: Path, hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "give --token" in call("push", bundle, "flowers", "--token", "hf_other", "--quiet").error
    assert "may not write to theirs/it" in call("push", bundle, "theirs/it", "--token", TOKEN, "--quiet").error
    assert "no repository or owner" in call("push", bundle, "nobody/it", "--token", TOKEN, "--quiet").error
    assert "no name for a repository" in call("push", bundle, "a/b/c d", "--token", TOKEN, "--quiet").error
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "does not answer" in call("push", bundle, "flowers", "--token", TOKEN, "--quiet").error
    assert "is not a bundle" in call("push", bundle.parent, "flowers", "--token", TOKEN, "--quiet").error


def from_weights_under(bundle: Path, folder: Path, licence: str | None, backbone: str = "small_cnn") -> Path:
    """The same bundle, as if it had started from published weights under that licence; None: an older bundle."""
    copied = shutil.copytree(bundle, folder)
    about = json.loads((copied / "bundle.json").read_text(encoding="utf-8")) | {"weights": "pretrained"}
    about |= {"backbone": backbone}
    origin = {"network": "a_network", "source": "a/b", "revision": "", "sha256": "0" * 64, "licence": licence}
    about["pretrained_weights"] = [] if licence is None else [origin]
    (copied / "bundle.json").write_text(json.dumps(about), encoding="utf-8")
    return copied


@pytest.mark.parametrize(
    ("licence", "says"),
    [
        (
            "dinov3-license",
            "DINOv3 License (pass it on under the same agreement, with a copy of it; https://ai.meta.com",
        ),
        ("cc-by-nc-4.0", "CC-BY-NC-4.0 (no commercial use; https://creativecommons.org/licenses/by-nc/4.0)"),
        ("some-house-license", "some-house-license (terms of its own: read them)"),
    ],
)
def test_a_licence_with_conditions_is_told_before_anything_is_sent(
    bundle: Path, hub: type[Hub], tmp_path: Path, licence: str, says: str
) -> None:
    copied = from_weights_under(bundle, tmp_path / "bundle", licence)
    line = call("push", copied, "flowers", "--token", TOKEN, "--quiet").error
    assert f"holds the weights of a_network, whose licence is the {says}" in line
    assert line.endswith("read it, then push with --accept-licence")
    assert hub.kept == {}
    pushed = must("push", copied, "flowers", "--token", TOKEN, "--accept-licence")
    assert "pushed under your acceptance of the" in pushed.err
    assert json.loads(hub.kept["bundle.json"])["pretrained_weights"][0]["licence"] == licence


@pytest.mark.parametrize(("licence", "says"), [("apache-2.0", ""), ("", "is not known here: look it up")])
def test_a_licence_that_asks_for_nothing_more_is_no_hindrance(
    bundle: Path, hub: type[Hub], tmp_path: Path, licence: str, says: str
) -> None:
    pushed = must("push", from_weights_under(bundle, tmp_path / "bundle", licence), "flowers", "--token", TOKEN)
    assert says in pushed.err
    assert "bundle.json" in hub.kept


def test_a_bundle_of_an_older_version_is_told_by_its_networks_name(bundle: Path, tmp_path: Path) -> None:
    name = "mobilenet_v2+convnext_tiny.dinov3_lvd1689m"
    about, _ = read_about(from_weights_under(bundle, tmp_path / "bundle", None, name))
    assert licences_of(about) == {"mobilenet_v2": "bsd-3-clause", "convnext_tiny.dinov3_lvd1689m": "dinov3-license"}
    assert licences_of(replace(about, weights="random")) == {}


def test_bench_measures_the_bundle_and_what_stands_beside_it(bundle: Path, tmp_path: Path) -> None:
    said = must("bench", bundle, "--out", tmp_path / "bench", "--json", "--quiet")
    document = json.loads(said.out)
    assert document == json.loads((tmp_path / "bench" / "bench.json").read_text(encoding="utf-8"))
    assert [row["name"].split()[0] for row in document["rows"]] == ["bundle", "onnx"]
    for row in document["rows"]:
        assert 0 < row["latency_ms"] <= row["latency_p95_ms"]
        assert row["throughput"] > 0
    drawn = "".join(ElementTree.parse(tmp_path / "bench" / "bench.svg").getroot().itertext())  # noqa: S314
    assert "photos/s" in drawn
    assert "onnx" in drawn
    assert "holds no export.json" in call("bench", bundle, tmp_path, "--quiet").error
