"""How a server runs: its address, token, limits and engine."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from frostline.config import EngineKind
from frostline.errors import ConfigError
from frostline.serving.limits import Limits


@dataclass(frozen=True)
class Settings:
    """How a server runs. Raises ConfigError for what can't work, and for an open server that nobody asked for."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0: any free port."""
    token: str = ""
    """Bearer token that clients have to send; empty: none."""
    open_to_all: bool = False
    """Whether a host that other machines can reach may run without a token."""
    limits: Limits = field(default_factory=Limits)
    engine: EngineKind = "auto"
    threads: int = 0
    """Threads that decode and classify photos; 0: two per core."""
    allow_url: bool = False
    """Whether photos are fetched from addresses on the web."""
    watch: bool = False
    """Whether a new bundle in the folder is loaded without being asked."""
    drain: float = 0.5
    """Seconds between the signal to stop and the closing of the listening socket."""

    def __post_init__(self) -> None:
        if not self.local and not self.token and not self.open_to_all:
            raise ConfigError(
                f"--host {self.host} can be reached by other machines: set a token (FROSTLINE_TOKEN or --token), "
                "or say --no-token"
            )
        if self.token and (not self.token.isascii() or not self.token.isprintable() or " " in self.token):
            raise ConfigError("the token has characters that can't stand in a header: use letters and digits")
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port {self.port}: expected 0 to 65535")
        if self.threads < 0 or not 0 <= self.drain <= 3600:
            raise ConfigError(f"--threads {self.threads}, --drain {self.drain:g}: expected 0 or more")

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def own_names(self) -> frozenset[str]:
        """The values of a Host header, without port, that a local server answers to; empty (any) for other hosts."""
        if not self.local:
            return frozenset()
        return frozenset({"localhost", "127.0.0.1", "[::1]", self.host, f"[{self.host}]"})
