"""A bundle behind HTTP: a page to drop photos on, and a REST interface with OpenAPI.

    request -> middleware (token, host) -> upload (limits) -> queue -> decode + network in a thread -> answer

`make_app` makes the application, `serve` runs it. Every refusal is JSON: ``{"error": {"code", "message"}}``. Photos are
kept in memory until they are answered, never on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from fastapi import APIRouter, FastAPI, Security
from fastapi.security import HTTPBearer

import frostline
from frostline.serving import models, routes, server
from frostline.serving.middleware import AccessRules, ServerMiddleware
from frostline.serving.models import ReloadableModel, ServedModel
from frostline.serving.service import Service, model_name
from frostline.serving.settings import Settings


def make_app(service: Service) -> ServerMiddleware:
    """The ASGI application."""
    app = FastAPI(
        title="frostline",
        version=frostline.__version__,
        description="Classify photos with a bundle. Every refusal has the form {'error': {'code', 'message'}}.",
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lambda _: _lifespan(service),
    )
    settings = service.settings
    # The middleware checks the token; the dependency is for the OpenAPI document.
    token = [Security(HTTPBearer(auto_error=False, scheme_name="token"))] if settings.token else []
    guarded, public = APIRouter(dependencies=token), APIRouter()
    routes.add_predict(guarded, service)
    routes.add_explain(guarded, service)
    routes.add_model(guarded, service)
    routes.add_metrics(guarded, service)
    routes.add_health(public, service)
    routes.add_pages(public)
    routes.add_error_handlers(app)
    app.include_router(guarded)
    app.include_router(public)
    rules = AccessRules(settings.token, settings.own_names, settings.limits.connections)
    every_route = [*app.routes, *guarded.routes, *public.routes]
    paths = [path for route in every_route if (path := getattr(route, "path", None))]
    return ServerMiddleware(app, rules, service.status, service.metrics, paths)


@contextlib.asynccontextmanager
async def _lifespan(service: Service) -> AsyncIterator[None]:
    """Reload on SIGHUP, and when the folder is watched and changes, from the first request to the last."""
    loop = asyncio.get_running_loop()
    name = model_name(service.models.current)
    service.metrics.model(name.id, name.strategy)
    tasks: set[asyncio.Task[None]] = set()

    def on_hangup() -> None:
        task = loop.create_task(service.models.reload_quietly())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    if hasattr(signal, "SIGHUP"):
        with contextlib.suppress(RuntimeError, ValueError, NotImplementedError):  # not in the main thread
            loop.add_signal_handler(signal.SIGHUP, on_hangup)
    if service.settings.watch:
        tasks.add(loop.create_task(service.models.watch()))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.to_thread(service.pool.stop)
        service.models.current.heat_maps.stop()


def serve(
    folder: Path, settings: Settings, *, ready: Callable[[str, ServedModel], None], say: Callable[[str], None]
) -> None:
    """Answer requests until SIGTERM or Ctrl-C; every request that was begun is answered before this returns.

    Parameters
    ----------
    ready
        Called with the address and the model once requests are accepted.
    say
        Called with a line of text for each reload.

    Raises
    ------
    BundleError
        The bundle can't be used.
    ConfigError
        The server can't listen on the address.
    """
    with server.bound(settings.host, settings.port) as listener:
        first = models.load(folder, settings.engine, settings.limits.pixels)
        service = Service(ReloadableModel(folder, first, settings.engine, say), settings)
        running = server.server(make_app(service), settings.limits, service.status, drain=settings.drain)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        ready(f"http://{host}:{listener.getsockname()[1]}/", first)
        running.run(sockets=[listener])
