"""A photo from an address on the web, where the server is told to allow that; never from the server's own network.

A host is looked up once, all of its IP addresses have to be on the public internet, and the connection goes to the very
IP address that was checked, so a name that resolves to something else the second time gains nothing (DNS rebinding). A
redirect is checked like a first address. No proxy of the environment is used, since it may reach further than the
server itself.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from urllib.parse import urljoin, urlsplit

import httpx

import frostline
from frostline.photos.names import printable
from frostline.serving.limits import ApiError, Limits, too_large
from frostline.serving.uploads import Reservation

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_REDIRECTS = 3
_TRANSLATED = (
    ipaddress.ip_network("64:ff9b::/96"),
    ipaddress.ip_network("64:ff9b:1::/48"),
    ipaddress.ip_network("2002::/16"),
)
"""IPv6 addresses that stand for an IPv4 address, which may be a private one."""


def public(address: Address) -> bool:
    """Whether an IP address is on the public internet.

    Private, loopback, link-local, multicast and reserved ones are not, nor are IPv6 addresses that stand for one of
    them.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return public(address.ipv4_mapped)
        if any(address in network for network in _TRANSLATED):
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


async def fetch(
    url: str, limits: Limits, reservation: Reservation, allowed: Callable[[Address], bool] = public
) -> bytes:
    """The bytes at an address.

    Parameters
    ----------
    allowed
        Which hosts may be reached.

    Raises
    ------
    ApiError
        It may not be fetched, can't be, or is too large or too slow.
    """
    try:
        async with asyncio.timeout(limits.seconds):
            return await _follow(url, limits, reservation, allowed)
    except TimeoutError as error:
        raise _failed(url, f"no answer within {limits.seconds:g} s") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
        raise _failed(url, printable(str(error))[:200] or type(error).__name__) from error


async def _follow(url: str, limits: Limits, reservation: Reservation, allowed: Callable[[Address], bool]) -> bytes:
    async with httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=limits.seconds) as client:
        for _ in range(_REDIRECTS + 1):
            request = await _request(client, url, allowed)
            response = await client.send(request, stream=True)
            try:
                if not response.has_redirect_location:
                    return await _body(response, url, limits, reservation)
                url = urljoin(url, response.headers["location"])
            finally:
                await response.aclose()
    raise _failed(url, f"more than {_REDIRECTS} redirects")


async def _request(client: httpx.AsyncClient, url: str, allowed: Callable[[Address], bool]) -> httpx.Request:
    """A request to the IP address of a host, once that is checked."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise _refused(url, "it is not a valid address") from error
    if parts.scheme not in ("http", "https") or not host or parts.username is not None:
        raise _refused(url, "expected http://... or https://..., without a user name")
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port or (443 if parts.scheme == "https" else 80), type=socket.SOCK_STREAM
    )
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    if not addresses or not all(allowed(address) for address in addresses):
        raise _refused(url, "it is not on the public internet")
    target = httpx.URL(url).copy_with(host=str(addresses[0]))
    named = f"{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}"
    headers = {"Host": named, "User-Agent": f"frostline/{frostline.__version__}", "Accept": "image/*"}
    return client.build_request("GET", target, headers=headers, extensions={"sni_hostname": host})


async def _body(response: httpx.Response, url: str, limits: Limits, reservation: Reservation) -> bytes:
    if response.status_code != 200:
        raise _failed(url, f"it answered {response.status_code}")
    pieces, count = [], 0
    async for piece in response.aiter_bytes():  # decompressed, so that a small answer that grows is counted in full
        count += len(piece)
        if count > limits.bytes:
            raise too_large("the photo at this address", limits.bytes)
        reservation.take(len(piece))
        pieces.append(piece)
    return b"".join(pieces)


def _refused(url: str, why: str) -> ApiError:
    return ApiError(422, "url_refused", f"{printable(url)[:200]} is not fetched: {why}")


def _failed(url: str, why: str) -> ApiError:
    return ApiError(422, "url_failed", f"{printable(url)[:200]} can't be fetched: {why}")
