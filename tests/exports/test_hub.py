"""frostline bench and frostline push, the latter against a hub of the tests' own."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

import pytest
from huggingface_hub import ModelCard

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
