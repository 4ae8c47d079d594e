"""The command that serves a bundle over HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frostline.cli.options import Engine, Quiet

if TYPE_CHECKING:
    from frostline.serving.models import ServedModel


def serve(
    bundle: Annotated[str, typer.Argument(help="Bundle folder.")],
    host: Annotated[str, typer.Option(help="Address to listen on; others can reach 0.0.0.0.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free.")] = 8000,
    token: Annotated[
        str, typer.Option(envvar="FROSTLINE_TOKEN", show_envvar=True, help="What callers have to send as bearer token.")
    ] = "",
    no_token: Annotated[bool, typer.Option("--no-token", help="Let everybody in, on any host.")] = False,
    max_bytes: Annotated[int, typer.Option(help="Of one photo's file.")] = 20 * 1024**2,
    max_pixels: Annotated[int, typer.Option(help="Of one photo.")] = 50_000_000,
    max_files: Annotated[int, typer.Option(help="Photos in one request.")] = 32,
    timeout: Annotated[float, typer.Option(help="Seconds in which a request has to have arrived.")] = 30.0,
    queue: Annotated[int, typer.Option(help="Photos that may wait; more are turned away with 503.")] = 256,
    threads: Annotated[int, typer.Option(help="Threads that decode and run photos; 0: two a core.")] = 0,
    drain: Annotated[float, typer.Option(help="Seconds for a balancer to notice, before the door is closed.")] = 0.5,
    allow_url: Annotated[bool, typer.Option("--allow-url", help="Fetch photos from public web addresses.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Take a new bundle in the folder up by itself.")] = False,
    engine: Engine = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Address and model as one line of JSON on stdout.")] = False,
    quiet: Quiet = False,
) -> None:
    """Serve a bundle: a page to drop photos on, and a REST interface (OpenAPI at /openapi.json)."""
    from frostline.serving.app import serve as run
    from frostline.serving.limits import Limits
    from frostline.serving.settings import Settings

    limits = Limits(bytes=max_bytes, pixels=max_pixels, files=max_files, seconds=timeout, queue=queue)
    settings = Settings(
        host=host,
        port=port,
        token=token,
        open_to_all=no_token,
        limits=limits,
        engine=engine,
        threads=threads,
        allow_url=allow_url,
        watch=watch,
        drain=drain,
    )

    def say(text: str) -> None:
        if not quiet:
            typer.echo(text, err=True)

    def ready(address: str, model: ServedModel) -> None:
        if as_json:
            typer.echo(json.dumps({"url": address, "model": model.id, "strategy": model.model.about.strategy}))
        say(f"Serving {model.model.about.strategy} (model {model.id}) at {address}  Ctrl-C ends it")

    run(Path(bundle), settings, ready=ready, say=say)
