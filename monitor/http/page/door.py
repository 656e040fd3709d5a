"""The page's door: a port on which a browser finds the page, its files, and the methods that it calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from monitor.http.calls import Exchange
from monitor.http.door import HttpDoor, app_of
from monitor.http.page.alerts import PageAlerts
from monitor.http.page.chat import PageChat
from monitor.http.page.features import PageFeatures
from monitor.http.page.gate import PageGate, routes_of
from monitor.http.page.policies import PagePolicies
from monitor.http.page.resources import PageResources
from monitor.http.page.transcripts import PageTranscripts
from monitor.rpc.access.roles import METHODS as ROLES
from monitor.rpc.server import DoorParts
from monitor.settings import Settings

METHODS = tuple(name for name in ROLES if name.startswith("Page"))
"""Names of the page's methods in metrics, decision log and roles."""
STATIC = Path(__file__).parent / "static"

_Served = Callable[[Exchange], Awaitable[None]]


class PageDoor(HttpDoor):
    """The page's port. Call `start` and `stop` once each."""

    setting = "page"

    def _application(self) -> ASGIApp:
        self._parts.metrics.methods(METHODS, self._parts.codes)
        return page_application(self._settings, self._parts)


def page_application(settings: Settings, parts: DoorParts) -> ASGIApp:
    """The ASGI application of the page. Raises ConfigurationError where the overlay cannot be used."""
    resources, gate = PageResources(settings, parts), PageGate()
    routes: list[BaseRoute] = [
        Route("/", _index, methods=["GET"]),
        *(Route(path, app, methods=[verb]) for path, (verb, app) in routes_of(gate, resources.calls).items()),
        *(
            Route(path, resources.calls.endpoint(name, method), methods=[verb])
            for path, verb, name, method in methods_of(resources)
        ),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    return gate.around(app_of(routes, settings, parts, settings.page))


def methods_of(resources: PageResources) -> list[tuple[str, str, str, _Served]]:
    """Every method: path, verb, name and what runs."""
    chat, transcripts, features = PageChat(resources), PageTranscripts(resources), PageFeatures(resources)
    alerts, policies = PageAlerts(resources), PagePolicies(resources)
    return [
        ("/api/about", "GET", "PageAbout", policies.about),
        ("/api/chat", "POST", "PageChat", chat.stream),
        ("/api/transcript", "POST", "PageTranscript", transcripts.read),
        ("/api/features", "GET", "PageFeatures", features.find),
        ("/api/features/brief", "GET", "PageFeatures", features.briefs),
        ("/api/features/examples", "POST", "PageFeatures", features.examples),
        ("/api/features/{feature}", "GET", "PageFeatures", features.card),
        ("/api/features/{feature}/map", "GET", "PageFeatures", features.neighbours),
        ("/api/features/{feature}/label", "POST", "PageSave", features.rename),
        ("/api/alerts", "GET", "PageAlerts", alerts.feed),
        ("/api/alerts/activity", "GET", "PageAlerts", alerts.activity),
        ("/api/alerts/{record}", "GET", "PageAlerts", alerts.decision),
        ("/api/alerts/{record}/replay", "POST", "PageAlerts", alerts.replay),
        ("/api/alerts/{record}/mark", "POST", "PageSave", alerts.mark),
        ("/api/policies/{name}", "GET", "PagePolicies", policies.one),
        ("/api/drafts", "GET", "PagePolicies", policies.drafts),
        ("/api/drafts/check", "POST", "PageDraft", policies.check),
        ("/api/drafts/try", "POST", "PageDraft", policies.attempt),
        ("/api/drafts/save", "POST", "PageSave", policies.save),
    ]


async def _index(_: Request) -> Response:
    return FileResponse(STATIC / "index.html")
