"""A picture from the web, without becoming the arm of somebody who wants to reach this machine's network.

A name is resolved once; every address that it has must be a public one, and the connection goes to the address that
was looked at, so that a name cannot mean another one a moment later. Redirects are followed by the same rule. No proxy
of the environment is used: it would resolve the name itself.
"""

import asyncio
import ipaddress
import socket
from typing import TYPE_CHECKING

from smolvlm_edge.errors import ImageError
from smolvlm_edge.server.problems import HttpError

if TYPE_CHECKING:
    import httpx2

REDIRECTS = 3
SECONDS = 20.0
TRANSLATED = [ipaddress.ip_network(net) for net in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")]
"""IPv6 networks whose addresses stand for IPv4 ones."""


def is_public(address: str) -> bool:
    """Whether an address is one of the internet at large: of no machine or network of somebody's own."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped:
            return is_public(str(ip.ipv4_mapped))
        if any(ip in network for network in TRANSLATED):
            return False
    return ip.is_global and not ip.is_multicast


async def resolve(host: str, port: int, param: str) -> str:
    """The first address of a name, all of whose addresses are public.

    Raises:
        HttpError: It has none, or another one.
    """
    try:
        infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise HttpError(f"{host[:80]} cannot be found", param=param) from None
    addresses = [str(info[4][0]) for info in infos]
    if not addresses or not all(map(is_public, addresses)):
        raise HttpError(f"{host[:80]} is not on the public internet: no picture is fetched from there", param=param)
    return addresses[0]


async def fetch(url: str, param: str, max_bytes: int, transport: "httpx2.AsyncBaseTransport | None" = None) -> bytes:
    """The bytes of a picture or video.

    Args:
        url: http: or https:.
        param: The place in the request, for errors.
        max_bytes: It may have so many.
        transport: What sends the requests; a test has its own.

    Raises:
        HttpError: The URL is none, or leads to where nothing is fetched from.
        ImageError: There is no picture there, a larger one, or none that arrives in time.
    """
    import httpx2  # noqa: PLC0415 - a client, for who allows it to be used

    try:
        async with (
            asyncio.timeout(SECONDS),
            httpx2.AsyncClient(trust_env=False, timeout=SECONDS, transport=transport) as client,
        ):
            for _ in range(REDIRECTS + 1):
                request = await _request(client, url, param)
                response = await client.send(request, stream=True)
                try:
                    if not response.is_redirect:
                        return await _body(response, max_bytes)
                    url = str(httpx2.URL(url).join(response.headers.get("location", "")))
                finally:
                    await response.aclose()
    except TimeoutError:
        raise ImageError(f"{url[:80]}: no picture arrived within {SECONDS:g} s") from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ImageError(f"{url[:80]} cannot be fetched: {error or type(error).__name__}") from None
    raise ImageError(f"{url[:80]} redirects more than {REDIRECTS} times")


async def _request(client: "httpx2.AsyncClient", url: str, param: str) -> "httpx2.Request":
    """A request to the address that was looked at, under the name that was asked for."""
    import httpx2  # noqa: PLC0415 - as above

    target = httpx2.URL(url)
    if target.scheme not in ("http", "https") or not target.host or target.userinfo:
        raise HttpError("the URL of a picture must be http: or https:, without a password", param=param)
    port = target.port or (443 if target.scheme == "https" else 80)
    address = await resolve(target.host, port, param)
    headers = {"Host": target.netloc.decode(), "Accept": "image/*, video/*", "Accept-Encoding": "identity"}
    extensions = {"sni_hostname": target.host}  # certificates are compared with it, too
    return client.build_request("GET", target.copy_with(host=address), headers=headers, extensions=extensions)


async def _body(response: "httpx2.Response", max_bytes: int) -> bytes:
    if response.status_code != 200:
        raise ImageError(f"the picture's server says {response.status_code}")
    kind = response.headers.get("content-type", "").partition("/")[0].strip().lower()
    if kind not in ("image", "video"):
        raise ImageError("the URL leads to no picture: its server says that it is something else")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise ImageError("the picture's server compresses it, though it was asked not to")
    data = bytearray()
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) > max_bytes:
            raise ImageError(f"the picture is larger than the {max_bytes >> 20} MB that it may take")
    return bytes(data)
