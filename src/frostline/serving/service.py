"""What all requests share: the model, the queue, the memory for uploads, the metrics."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request

from frostline.errors import ConfigError
from frostline.parallel import thread_count
from frostline.serving import schema, uploads, url_photos
from frostline.serving.batching import QueueFullError, WorkerPool
from frostline.serving.limits import ApiError, busy
from frostline.serving.metrics import Metrics
from frostline.serving.middleware import ServerStatus
from frostline.serving.models import Output, ReloadableModel, ServedModel
from frostline.serving.settings import Settings
from frostline.serving.uploads import Reservation, Upload, UploadMemory
from frostline.stats import thresholds


@dataclass(frozen=True)
class Classified:
    """Photos and the outputs of one model for them, in the same order."""

    model: ServedModel
    photos: list[Upload]
    outputs: list[Output | ApiError]


class Service:
    """What all requests share."""

    def __init__(self, models: ReloadableModel, settings: Settings) -> None:
        self.models, self.settings = models, settings
        self.limits = settings.limits
        self.status = ServerStatus()
        self.memory = UploadMemory(self.limits.waiting_bytes)
        self.pool: WorkerPool[ServedModel, Upload, Output | ApiError] = WorkerPool(
            lambda model, photos: model.classify(photos),
            lambda model: model.model.batch,
            threads=settings.threads or 2 * thread_count(),
            depth=self.limits.queue,
        )
        self.metrics = Metrics()
        self.metrics.gauge("photos_waiting", "Photos that wait or are being classified", lambda: self.pool.waiting)
        self.metrics.gauge("upload_bytes", "Bytes of requests that are not answered yet", lambda: self.memory.held)
        self.metrics.gauge("connections", "Open connections", lambda: self.status.connections)
        for outcome in models.reloads:
            count = functools.partial(models.reloads.__getitem__, outcome)
            self.metrics.gauge(f"reloads_{outcome}", f"Reloads, {outcome}", count)

    async def photos(self, request: Request, reservation: Reservation) -> list[Upload]:
        """The photos in a request, or at the addresses in it. Raises ApiError."""
        if not uploads.is_json(request):
            return await uploads.photos(request, self.limits, reservation)
        if not self.settings.allow_url:
            raise ApiError(403, "urls_off", "this server fetches no photos from addresses (serve --allow-url would)")
        urls = await uploads.addresses(request, self.limits, reservation)
        return list(await asyncio.gather(*(self._fetched(url, reservation) for url in urls)))

    async def _fetched(self, url: str, reservation: Reservation) -> Upload:
        try:
            return Upload(url, await url_photos.fetch(url, self.limits, reservation))
        except ApiError as error:
            return Upload(url, b"", error)

    async def classify(self, photos: list[Upload]) -> Classified:
        """Run the model in use on the photos. Raises ApiError where there is no room, or the only photo is refused."""
        model = self.models.current
        try:
            outputs = await self.pool.submit(model, photos)
        except QueueFullError as error:
            raise busy("too many photos are waiting: try again in a second") from error
        for output in outputs:
            self.metrics.photo(output.code if isinstance(output, ApiError) else "ok")
        if len(outputs) == 1 and isinstance(outputs[0], ApiError):
            raise outputs[0]
        return Classified(model, photos, outputs)


# ---- answers ---------------------------------------------------------------------------------------------------------


def model_name(model: ServedModel) -> schema.ModelName:
    """Which model answered."""
    return schema.ModelName(id=model.id, strategy=model.model.about.strategy)


def results(classified: Classified, top_k: int, threshold: float | None) -> list[schema.Result]:
    """The result of each photo, without its neighbours."""
    classes = classified.model.model.classes
    pairs = zip(classified.photos, classified.outputs, strict=True)
    return [_result(classes, photo.name, output, top_k, threshold) for photo, output in pairs]


def _result(
    classes: Sequence[str], name: str, output: Output | ApiError, top_k: int, threshold: float | None
) -> schema.Result:
    if isinstance(output, ApiError):
        return schema.Result(name=name, error=schema.Fault(code=output.code, message=output.message))
    p = output.probabilities
    order = (-p).argsort(kind="stable")[:top_k].tolist()
    top = [schema.Share(class_=classes[i], confidence=float(p[i])) for i in order]
    return schema.Result(
        name=name,
        predicted=top[0].class_,
        confidence=top[0].confidence,
        top=top,
        unsure=None if threshold is None else top[0].confidence < threshold,
    )


def add_neighbours(classified: Classified, results: Sequence[schema.Result], count: int) -> None:
    """Put the training photos that resemble each photo into its result."""
    kept, classes = classified.model.neighbours, classified.model.model.classes
    if kept is None:
        return
    for result, output in zip(results, classified.outputs, strict=True):
        if isinstance(output, Output):
            result.neighbours = [
                schema.Neighbour(class_=classes[near.label], path=near.path, similarity=round(near.similarity, 4))
                for near in kept.nearest(output.features, count)
            ]


def confidence_threshold(model: ServedModel, threshold: float | None, precision: float | None) -> float | None:
    """The confidence below which a photo is unsure; None where nobody asked. Raises ApiError."""
    if precision is None:
        return threshold
    if threshold is not None:
        raise ApiError(422, "invalid", "threshold and precision were both given: each sets the same threshold")
    try:
        return float(thresholds.for_precision(model.model.about.thresholds, precision)["threshold"])
    except ConfigError as error:
        raise ApiError(422, "no_threshold", str(error)) from error
