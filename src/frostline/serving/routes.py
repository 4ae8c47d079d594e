"""The paths that the application answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

import frostline
from frostline.errors import FrostlineError, nearest
from frostline.serving import heat_map_process, schema
from frostline.serving.limits import INTERNAL_ERROR, ApiError
from frostline.serving.metrics import CONTENT_TYPE
from frostline.serving.models import Output
from frostline.serving.service import Service, add_neighbours, confidence_threshold, model_name, results

PAGES = Path(__file__).parent / "pages"

_PHOTO_STATUSES = (400, 401, 403, 408, 413, 415, 421, 422, 503)


def add_predict(router: APIRouter, service: Service) -> None:
    """``POST /v1/predict``."""

    @router.post(
        "/v1/predict",
        response_model=schema.Answers,
        responses=schema.refusals(*_PHOTO_STATUSES),
        openapi_extra=schema.photo_body(many=True, allow_url=service.settings.allow_url),
        summary="Classify one photo or many",
    )
    async def predict(
        request: Request,
        top_k: schema.TopK = 5,
        neighbours: schema.NeighbourCount = 0,
        threshold: schema.Threshold = None,
        precision: schema.Precision = None,
    ) -> Response:
        with service.memory.reserved() as reservation:
            photos = await service.photos(request, reservation)
            classified = await service.classify(photos)
        least = confidence_threshold(classified.model, threshold, precision)
        found = results(classified, top_k, least)
        if neighbours and classified.model.neighbours is not None:  # takes milliseconds where many are kept
            await asyncio.to_thread(add_neighbours, classified, found, neighbours)
        return schema.json_response(schema.Answers(model=model_name(classified.model), results=found))


def add_explain(router: APIRouter, service: Service) -> None:
    """``POST /v1/explain``."""

    @router.post(
        "/v1/explain",
        response_model=schema.Explanation,
        responses=schema.refusals(*_PHOTO_STATUSES, 501),
        openapi_extra=schema.photo_body(many=False, allow_url=service.settings.allow_url),
        summary="Heat map: which places of a photo raise the score of a class",
    )
    async def explain(request: Request, of: schema.ClassName = None) -> Response:
        with service.memory.reserved() as reservation:
            photos = await service.photos(request, reservation)
            if len(photos) != 1:
                raise ApiError(422, "one_photo", f"{len(photos)} photos were sent: expected one")
            classified = await service.classify(photos)
            model, (output,) = classified.model, classified.outputs
            if not isinstance(output, Output):
                raise output
            classes = model.model.classes
            if of is not None and of not in classes:
                raise ApiError(422, "unknown_class", f"unknown class '{of[:100]}'{nearest(of[:100], classes)}"[:1000])
            predicted = int(output.probabilities.argmax())
            shown = predicted if of is None else classes.index(of)
            heat_map = await model.heat_maps.draw(photos[0].data, shown)
        return schema.json_response(
            schema.Explanation(
                model=model_name(model),
                predicted=classes[predicted],
                confidence=float(output.probabilities[predicted]),
                class_=classes[shown],
                **heat_map,
            )
        )


def add_model(router: APIRouter, service: Service) -> None:
    """``GET /v1/model`` and ``POST /v1/reload``."""

    @router.get(
        "/v1/model",
        response_model=schema.About,
        responses=schema.refusals(401, 421, 503),
        summary="The model in use, its card and figures",
    )
    async def about() -> Response:
        return JSONResponse(_about(service).model_dump())

    @router.post(
        "/v1/reload",
        response_model=schema.Reloaded,
        responses=schema.refusals(401, 403, 409, 421, 503),
        summary="Load what is in the bundle's folder now",
    )
    async def reload() -> Response:
        if not service.settings.token:
            message = "reloading over HTTP needs a server with a token; SIGHUP and --watch work without"
            raise ApiError(403, "no_token", message)
        try:
            model = await service.models.reload()
        except FrostlineError as error:
            raise ApiError(409, "bad_bundle", f"the model in use stays: {error}") from error
        return schema.json_response(schema.Reloaded(model=model_name(model)))


def _about(service: Service) -> schema.About:
    model, limits = service.models.current, service.limits
    about = model.model.about
    return schema.About(
        id=model.id,
        strategy=about.strategy,
        backbone=about.backbone,
        classes=about.classes,
        line=about.line,
        layers=about.layers,
        image_size=model.model.transform.size,
        figures=dict(about.figures),
        card=model.card,
        thresholds=[dict(row) for row in about.thresholds],
        neighbours=len(model.neighbours.paths) if model.neighbours else 0,
        explanations=heat_map_process.available(),
        limits={"bytes": limits.bytes, "pixels": limits.pixels, "files": limits.files, "seconds": limits.seconds},
        frostline=frostline.__version__,
    )


def add_metrics(router: APIRouter, service: Service) -> None:
    """``GET /metrics``."""

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, **schema.refusals(401, 421, 503)},
        summary="Metrics for Prometheus",
    )
    async def metrics() -> Response:
        name = model_name(service.models.current)
        service.metrics.model(name.id, name.strategy)
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


def add_health(router: APIRouter, service: Service) -> None:
    """``GET /healthz`` and ``GET /readyz``."""

    @router.get(
        "/healthz", response_model=schema.State, responses=schema.refusals(421), summary="Whether the process runs"
    )
    async def healthz() -> Response:
        return JSONResponse({"status": "ok"})

    @router.get(
        "/readyz",
        response_model=schema.State,
        responses=schema.refusals(421, 503),
        summary="Whether requests should be sent here",
    )
    async def readyz() -> Response:
        if service.status.leaving:
            raise ApiError(503, "leaving", "this server is shutting down: send requests elsewhere")
        return JSONResponse({"status": "ready"})


def add_pages(router: APIRouter) -> None:
    """The page and the files that it loads; each is read from disk once."""
    for path, name, kind in (
        ("/", "serve.html", "text/html"),
        ("/serve.js", "serve.js", "text/javascript"),
        ("/serve.css", "serve.css", "text/css"),
    ):
        endpoint = _file((PAGES / name).read_bytes(), f"{kind}; charset=utf-8")
        router.add_api_route(path, endpoint, methods=["GET"], include_in_schema=False)


def _file(content: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    async def file() -> Response:
        return Response(content, headers={"Content-Type": kind, "Cache-Control": "no-cache"})

    return file


def add_error_handlers(app: FastAPI) -> None:
    """Every refusal has one shape; see `ApiError`."""

    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> JSONResponse:
        return JSONResponse(error.to_dict(), error.status, headers=dict(error.headers))

    @app.exception_handler(Exception)
    async def failed(_: Request, __: Exception) -> JSONResponse:  # raised again afterwards; the middleware logs it
        return JSONResponse(INTERNAL_ERROR.to_dict(), INTERNAL_ERROR.status)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        found = [f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors()]
        return JSONResponse(ApiError(422, "invalid", "; ".join(found)[:500]).to_dict(), 422)

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "wrong_method"}.get(error.status_code, "refused")
        refusal = ApiError(error.status_code, code, str(error.detail))
        return JSONResponse(refusal.to_dict(), error.status_code, headers=error.headers)
