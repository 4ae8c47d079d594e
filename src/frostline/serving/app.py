"""A bundle behind HTTP: a page to drop photos on, and a REST interface with OpenAPI.

    request -> guard (token, host) -> upload (limits) -> queue -> decode + network in a thread -> answer

`site` makes the application, `serve` runs it. Every refusal is JSON: ``{"error": {"code", "message"}}``. Photos are kept in memory while
they are looked at, never on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

import frostline
from frostline.config import EngineKind
from frostline.errors import ConfigError, FrostlineError, nearest
from frostline.parallel import thread_count
from frostline.serving import heat_map_process, models, schema, server, uploads, url_photos
from frostline.serving.batching import Crew, NoRoomError
from frostline.serving.limits import ApiError, Limits, busy
from frostline.serving.metrics import TYPE, Metrics
from frostline.serving.middleware import MISTAKE, Door, Guard
from frostline.serving.models import Models, Served, Verdict
from frostline.serving.uploads import Budget, Share, Upload
from frostline.stats import thresholds

PAGES = Path(__file__).parent / "pages"


@dataclass(frozen=True)
class Settings:
    """How a server runs. Raises ConfigError for what can't be, or should not be by mistake."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0: any that is free."""
    token: str = ""
    open_to_all: bool = False
    """Whether a host that others can reach may do without a token."""
    limits: Limits = field(default_factory=Limits)
    engine: EngineKind = "auto"
    threads: int = 0
    """That decode and run photos; 0: two a core."""
    allow_url: bool = False
    """Whether photos are fetched from addresses on the web."""
    watch: bool = False
    """Whether a new bundle in the folder is taken up by itself."""
    drain: float = 0.5
    """Seconds between the first word that the server leaves and its closed door."""

    def __post_init__(self) -> None:
        if not self.local and not self.token and not self.open_to_all:
            raise ConfigError(
                f"--host {self.host} can be reached by others: set a token (FROSTLINE_TOKEN or --token), or say --no-token"
            )
        if self.token and (not self.token.isascii() or not self.token.isprintable() or " " in self.token):
            raise ConfigError("the token has characters that can't stand in a header: use letters and digits")
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port {self.port}: expected 0 to 65535")
        if self.threads < 0 or not 0 <= self.drain <= 3600:
            raise ConfigError(f"--threads {self.threads}, --drain {self.drain:g}: expected 0 or more")

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class Site:
    """All that the requests share."""

    def __init__(self, models: Models, settings: Settings) -> None:
        self.models, self.settings = models, settings
        self.limits = settings.limits
        self.budget = Budget(self.limits.waiting_bytes)
        self.crew: Crew[Served, Upload, Verdict | ApiError] = Crew(
            lambda model, photos: model.answer(photos),
            lambda model: model.model.batch,
            threads=settings.threads or 2 * thread_count(),
            depth=self.limits.queue,
        )
        hosts = {"localhost", "127.0.0.1", "[::1]", settings.host, f"[{settings.host}]"} if settings.local else set()
        self.door = Door(settings.token, frozenset(hosts), most_connections=self.limits.connections)
        self.metrics = Metrics()
        self.metrics.watch("photos_waiting", "Photos that wait or are under way", lambda: self.crew.waiting)
        self.metrics.watch("upload_bytes", "Bytes of requests that are not answered yet", lambda: self.budget.held)
        self.metrics.watch("connections", "Open connections", lambda: self.door.connections())
        for outcome in models.reloads:
            self.metrics.watch(f"reloads_{outcome}", f"Reloads, {outcome}", lambda o=outcome: models.reloads[o])  # type: ignore[misc]

    async def classify(self, photos: Sequence[Upload]) -> tuple[Served, list[Verdict | ApiError]]:
        """The model in use, and what it makes of each photo. Raises ApiError when there is no room."""
        model = self.models.current
        try:
            verdicts = await self.crew.ask(model, photos)
        except NoRoomError as error:
            raise busy("too many photos are waiting: try again in a second") from error
        for verdict in verdicts:
            self.metrics.photo(verdict.code if isinstance(verdict, ApiError) else "ok")
        return model, verdicts

    async def uploaded(self, request: Request, share: Share) -> list[Upload]:
        """The photos that a request brings, or names. Raises ApiError."""
        if not uploads.is_json(request):
            return await uploads.photos(request, self.limits, share)
        if not self.settings.allow_url:
            raise ApiError(403, "urls_off", "this server fetches no photos from addresses (serve --allow-url would)")
        urls = await uploads.addresses(request, self.limits, share)
        return list(await asyncio.gather(*(self._fetched(url, share) for url in urls)))

    async def _fetched(self, url: str, share: Share) -> Upload:
        try:
            return Upload(url, await url_photos.fetch(url, self.limits, share))
        except ApiError as error:
            return Upload(url, b"", error)

    def retire(self) -> None:
        """Begin the way out: not ready any more."""
        self.door.leaving = True


# ---- answers ---------------------------------------------------------------------------------------------------------


def _named(model: Served) -> dict[str, str]:
    return {"id": model.id, "strategy": model.model.about.strategy}


def _result(
    model: Served, upload: Upload, verdict: Verdict | ApiError, top_k: int, threshold: float | None
) -> dict[str, Any]:
    """A photo's part of the answer."""
    if isinstance(verdict, ApiError):
        return {"name": upload.name, **verdict.to_dict()}
    classes, p = model.model.classes, verdict.probabilities
    order = (-p).argsort(kind="stable")[:top_k].tolist()
    top = [{"class": classes[i], "confidence": float(p[i])} for i in order]
    result = {"name": upload.name, "predicted": top[0]["class"], "confidence": top[0]["confidence"], "top": top}
    if threshold is not None:
        result["unsure"] = float(p[order[0]]) < threshold
    return result


def _add_neighbours(
    model: Served, results: Sequence[dict[str, Any]], verdicts: Sequence[Verdict | ApiError], count: int
) -> None:
    """Put the training photos that resemble each photo into its result."""
    for result, verdict in zip(results, verdicts, strict=True):
        if model.neighbours is not None and isinstance(verdict, Verdict):
            result["neighbours"] = [
                {"class": model.model.classes[n.label], "path": n.path, "similarity": round(n.similarity, 4)}
                for n in model.neighbours.nearest(verdict.features, count)
            ]


def _about(site: Site) -> dict[str, Any]:
    model = site.models.current
    about, limits = model.model.about, site.limits
    return {
        **_named(model),
        "backbone": about.backbone,
        "classes": about.classes,
        "line": about.line,
        "layers": about.layers,
        "image_size": model.model.transform.size,
        "figures": about.figures,
        "card": model.card,
        "thresholds": about.thresholds,
        "neighbours": len(model.neighbours.paths) if model.neighbours else 0,
        "explanations": heat_map_process.available(),
        "limits": {"bytes": limits.bytes, "pixels": limits.pixels, "files": limits.files, "seconds": limits.seconds},
        "frostline": frostline.__version__,
    }


def _least(model: Served, threshold: float | None, precision: float | None) -> float | None:
    """The confidence below which a photo is unsure; None where nobody asked. Raises ApiError."""
    if precision is None:
        return threshold
    if threshold is not None:
        raise ApiError(422, "invalid", "threshold and precision were both given: one says what the other would")
    try:
        return float(thresholds.for_precision(model.model.about.thresholds, precision)["threshold"])
    except ConfigError as error:
        raise ApiError(422, "no_threshold", str(error)) from error


_PHOTO = {"schema": {"type": "string", "format": "binary"}}
_FILES = {
    "type": "object",
    "required": ["file"],
    "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}},
}
_ONE_FILE = {"type": "object", "required": ["file"], "properties": {"file": {"type": "string", "format": "binary"}}}
_URLS = {
    "type": "object",
    "required": ["urls"],
    "properties": {"urls": {"type": "array", "items": {"type": "string"}, "minItems": 1}},
}


def _body(form: dict[str, Any], allow_url: bool) -> dict[str, Any]:
    content: dict[str, Any] = {"image/jpeg": _PHOTO, "image/*": _PHOTO, "application/octet-stream": _PHOTO}
    content["multipart/form-data"] = {"schema": form}
    if allow_url:
        content["application/json"] = {"schema": _URLS}
    return {"requestBody": {"required": True, "content": content}}


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": schema.Refusal} for status in statuses}


_ANY = (400, 401, 403, 408, 413, 415, 422, 421, 503)

TopK = Annotated[int, Query(ge=1, le=1000, description="How many classes are told.")]
Near = Annotated[int, Query(ge=0, le=50, description="How many training photos that resemble it are told.")]
Threshold = Annotated[
    float | None, Query(ge=0, le=1, description="Below this confidence a photo is marked unsure; default: none is.")
]
Precision = Annotated[
    float | None,
    Query(gt=0, lt=1, description="The same by the share that is to be right: 0.95; see thresholds in /v1/model."),
]


def site(models: Models, settings: Settings) -> tuple[Guard, Site]:
    """The ASGI application, and what its requests share."""
    shared = Site(models, settings)
    app = FastAPI(
        title="frostline",
        version=frostline.__version__,
        description="Classify photos with a bundle. Every refusal has the form {'error': {'code', 'message'}}.",
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lambda _: _life(shared),
    )
    _errors(app)
    _predict_route(app, shared)
    _explain_route(app, shared)
    _bundle_routes(app, shared)
    _state_routes(app, shared)
    _page_routes(app)
    if settings.token:
        _require_token(app)
    paths = [path for route in app.routes if (path := getattr(route, "path", None))]
    return Guard(app, shared.door, shared.metrics, paths), shared


@contextlib.asynccontextmanager
async def _life(shared: Site) -> AsyncIterator[None]:
    """Signals and watching, from the first request to the last."""
    loop = asyncio.get_running_loop()
    shared.metrics.model(*_named(shared.models.current).values())
    tasks: set[asyncio.Task[None]] = set()

    def hang_up() -> None:
        task = loop.create_task(shared.models.reload_quietly())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    if hasattr(signal, "SIGHUP"):
        with contextlib.suppress(RuntimeError, ValueError, NotImplementedError):  # not in the main thread
            loop.add_signal_handler(signal.SIGHUP, hang_up)
    if shared.settings.watch:
        tasks.add(loop.create_task(shared.models.watch()))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.to_thread(shared.crew.stop)
        shared.models.current.explainer.stop()


def _errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> JSONResponse:
        return JSONResponse(error.to_dict(), error.status, headers=dict(error.headers))

    @app.exception_handler(Exception)
    async def mistake(
        _: Request, __: Exception
    ) -> JSONResponse:  # it is raised again afterwards, and logged by the guard
        return JSONResponse(MISTAKE.to_dict(), MISTAKE.status)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        found = [f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors()]
        return JSONResponse(ApiError(422, "invalid", "; ".join(found)[:500]).to_dict(), 422)

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "wrong_method"}.get(error.status_code, "refused")
        return JSONResponse(
            ApiError(error.status_code, code, str(error.detail)).to_dict(), error.status_code, headers=error.headers
        )


def _predict_route(app: FastAPI, shared: Site) -> None:
    @app.post(
        "/v1/predict",
        response_model=schema.Answers,
        responses=_refusals(*_ANY),
        openapi_extra=_body(_FILES, shared.settings.allow_url),
        summary="Classify one photo or many",
    )
    async def predict(
        request: Request,
        top_k: TopK = 5,
        neighbours: Near = 0,
        threshold: Threshold = None,
        precision: Precision = None,
    ) -> Response:
        with shared.budget.request() as share:
            photos = await shared.uploaded(request, share)
            model, verdicts = await shared.classify(photos)
        if len(verdicts) == 1 and isinstance(verdicts[0], ApiError):
            raise verdicts[0]
        least = _least(model, threshold, precision)
        results = [_result(model, p, v, top_k, least) for p, v in zip(photos, verdicts, strict=True)]
        if neighbours and model.neighbours is not None:  # some milliseconds where many are kept
            await asyncio.to_thread(_add_neighbours, model, results, verdicts, neighbours)
        return JSONResponse({"model": _named(model), "results": results})


def _explain_route(app: FastAPI, shared: Site) -> None:
    @app.post(
        "/v1/explain",
        response_model=schema.Explanation,
        responses=_refusals(*_ANY, 501),
        openapi_extra=_body(_ONE_FILE, shared.settings.allow_url),
        summary="Where in a photo the evidence for a class stands",
    )
    async def explain(
        request: Request,
        of: Annotated[str | None, Query(alias="class", description="Default: the predicted class.")] = None,
    ) -> Response:
        with shared.budget.request() as share:
            photos = await shared.uploaded(request, share)
            if len(photos) != 1:
                raise ApiError(422, "one_photo", f"{len(photos)} photos came: one is explained at a time")
            model, (verdict,) = await shared.classify(photos)
            if isinstance(verdict, ApiError):
                raise verdict
            classes = model.model.classes
            if of is not None and of not in classes:
                raise ApiError(422, "unknown_class", f"unknown class '{of[:100]}'{nearest(of[:100], classes)}"[:1000])
            top = int(verdict.probabilities.argmax())
            place = top if of is None else classes.index(of)
            drawn = await model.explainer.explain(photos[0].data, place)
        said = {"predicted": classes[top], "confidence": float(verdict.probabilities[top]), "class": classes[place]}
        return JSONResponse({"model": _named(model), **said, **drawn})


def _bundle_routes(app: FastAPI, shared: Site) -> None:
    @app.get(
        "/v1/model",
        response_model=schema.About,
        responses=_refusals(401, 421, 503),
        summary="The model in use, its card and figures",
    )
    async def about() -> Response:
        return JSONResponse(_about(shared))

    @app.post(
        "/v1/reload",
        response_model=schema.Reloaded,
        responses=_refusals(401, 403, 409, 421, 503),
        summary="Answer with what is in the bundle's folder now",
    )
    async def reload() -> Response:
        if not shared.settings.token:
            raise ApiError(
                403, "no_token", "reloading over HTTP needs a server with a token; SIGHUP or --watch do without"
            )
        try:
            model = await shared.models.reload()
        except FrostlineError as error:
            raise ApiError(409, "bad_bundle", f"the model in use stays: {error}") from error
        return JSONResponse({"model": _named(model)})


def _state_routes(app: FastAPI, shared: Site) -> None:
    @app.get("/healthz", response_model=schema.State, responses=_refusals(421), summary="Whether the process lives")
    async def healthz() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get(
        "/readyz",
        response_model=schema.State,
        responses=_refusals(421, 503),
        summary="Whether requests should be sent here",
    )
    async def readyz() -> Response:
        if shared.door.leaving:
            raise ApiError(503, "leaving", "this server is on its way out: send requests elsewhere")
        return JSONResponse({"status": "ready"})

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, **_refusals(401, 421, 503)},
        summary="Counts for Prometheus",
    )
    async def metrics() -> Response:
        shared.metrics.model(*_named(shared.models.current).values())
        return Response(shared.metrics.text(), headers={"Content-Type": TYPE})


def _page_routes(app: FastAPI) -> None:
    """The page and what it loads; read once."""
    for path, name, kind in (
        ("/", "serve.html", "text/html"),
        ("/serve.js", "serve.js", "text/javascript"),
        ("/serve.css", "serve.css", "text/css"),
    ):
        response = _file((PAGES / name).read_bytes(), f"{kind}; charset=utf-8")
        app.add_api_route(path, response, methods=["GET"], include_in_schema=False)


def _file(content: bytes, kind: str) -> Callable[[], Any]:
    async def page() -> Response:
        return Response(content, headers={"Content-Type": kind, "Cache-Control": "no-cache"})

    return page


def _require_token(app: FastAPI) -> None:
    """Say in the OpenAPI document that a token is wanted."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        document.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, item in document["paths"].items():
            for operation in item.values():
                operation["security"] = [] if path in ("/healthz", "/readyz") else [{"token": []}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]


# ---- running ---------------------------------------------------------------------------------------------------------


def serve(
    folder: Path, settings: Settings, *, ready: Callable[[str, Served], None], say: Callable[[str], None]
) -> None:
    """Answer requests until SIGTERM or Ctrl-C; every request that was begun is answered before this returns.

    Parameters
    ----------
    ready
        Called with the address and the model once requests are taken.
    say
        Told of reloads.

    Raises
    ------
    BundleError
        The bundle can't be used.
    ConfigError
        The address can't be listened on.
    """
    with server.bound(settings.host, settings.port) as listener:
        first = models.load(folder, settings.engine, settings.limits.pixels)
        app, shared = site(Models(folder, first, settings.engine, say), settings)
        running = server.server(app, listener, settings.limits, drain=settings.drain, leaving=shared.retire)
        shared.door.connections = lambda: len(running.server_state.connections)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        ready(f"http://{host}:{listener.getsockname()[1]}/", first)
        running.run(sockets=[listener])
