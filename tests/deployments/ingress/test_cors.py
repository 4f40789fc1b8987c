"""Cross-origin requests, with settings that change while the app runs."""

import httpx
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from deployments.config import CorsSettings
from deployments.ingress.cors import Cors

ORIGIN = "https://chat.example.com"


async def hello(request: object) -> Response:
    return Response("hello")


async def test_a_change_of_origins_takes_effect_at_once() -> None:
    settings: list[CorsSettings | None] = [None]
    app = Cors(Starlette(routes=[Route("/", hello)]), lambda: settings[0])
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://ingress") as client:

        async def allowed() -> str | None:
            response = await client.get("/", headers={"origin": ORIGIN})
            return response.headers.get("access-control-allow-origin")

        assert await allowed() is None
        settings[0] = CorsSettings(origins=[ORIGIN])
        assert await allowed() == ORIGIN
        settings[0] = CorsSettings(origins=["https://other.example.com"])
        assert await allowed() is None
