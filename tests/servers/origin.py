"""The reverse proxy in front of the services: one origin, the path table, several replicas of each service.

A replica that refuses the connection is passed over, as nginx and Caddy do; a request that has been sent is never sent
twice. It runs in a thread of its own.
"""

from itertools import count

from aiohttp import ClientSession, TCPConnector, web
from aiohttp.client_exceptions import ClientConnectorError, ClientError

from tests.servers.run import claim_port
from tests.servers.thread import ThreadedServer

PATHS = {
    "/api/content": "content",
    "/api/subscriptions": "subscriptions",
    "/api/distributor": "distributor",
    "/prenumerera": "subscriptions",
    "/prenumeration": "subscriptions",
    "/avregistrera": "subscriptions",
    "/intranat": "distributor",
    "/utskick": "distributor",
}
OTHERWISE = "content"
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade"}
BODY_LIMIT = 64 * 1024 * 1024


class Origin(ThreadedServer):
    """Answers at `url` for all services; `replicas` gives each service's ports and may be changed at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.port = claim_port()
        self.url = f"http://localhost:{self.port}"
        self.replicas: dict[str, list[int]] = {}
        self._turn = count()
        self._session: ClientSession | None = None
        self._runner: web.ServerRunner | None = None

    async def _open(self) -> None:
        # A connection per request: a kept one may be closed by its replica just when a request goes out on it.
        self._session = ClientSession(connector=TCPConnector(force_close=True), auto_decompress=False)
        self._runner = web.ServerRunner(web.Server(self._forward), handle_signals=False, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port, backlog=512).start()

    async def _close(self) -> None:
        assert self._runner is not None
        assert self._session is not None
        await self._session.close()
        await self._runner.cleanup()

    async def _forward(self, request: web.BaseRequest) -> web.StreamResponse:
        request._client_max_size = BODY_LIMIT
        body = await request.read()
        ports = self.replicas.get(_service(request.path), [])
        first = next(self._turn)
        for place in range(len(ports)):
            try:
                return await self._ask(ports[(first + place) % len(ports)], request, body)
            except ClientConnectorError:
                continue
            except (TimeoutError, ClientError):
                return web.Response(status=502, text="The service broke off.")
        return web.Response(status=503, text="No replica answers.")

    async def _ask(self, port: int, request: web.BaseRequest, body: bytes) -> web.Response:
        assert self._session is not None
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP]
        url = f"http://{self.host}:{port}{request.raw_path}"
        async with self._session.request(
            request.method, url, headers=headers, data=body, allow_redirects=False
        ) as answer:
            kept = [
                (name, value)
                for name, value in answer.headers.items()
                if name.lower() not in HOP_BY_HOP | {"content-length"}
            ]
            response = web.Response(status=answer.status, body=await answer.read())
            for name in {name for name, _ in kept}:
                response.headers.popall(name, None)
            for name, value in kept:
                response.headers.add(name, value)
            return response


def _service(path: str) -> str:
    for prefix, service in PATHS.items():
        if path == prefix or path.startswith(prefix + "/"):
            return service
    return OTHERWISE
