"""The vocabulary of the service side: routes, calls, replies and refusals."""

import http
import json
import typing
from urllib.parse import unquote

COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class Reply(typing.NamedTuple):
    """What is answered; body is JSON, or bytes or a Stream of a type."""

    status: int
    body: object
    cents: int = 0
    task_id: typing.Optional[str] = None
    repeated: bool = False
    content_type: str = "application/json"
    headers: tuple = ()


class Stream:
    """A body that is made while it is sent; its length if it is known."""

    def __init__(self, pieces, length=None):
        self.pieces = pieces
        self.length = length


def encode(body):
    """Return a reply's body as bytes."""
    if isinstance(body, bytes):
        return body
    if isinstance(body, Stream):
        return b"".join(body.pieces)
    return COMPACT.encode(body).encode()


class Refused(Exception):
    """A request that the service does not take."""

    def __init__(self, status, body, headers=()):
        super().__init__(status)
        self.reply = Reply(status, body, headers=headers)


def phrase(status):
    """Return the words that go with a status."""
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def fault_reply(status, message):
    """Return the body of an error in the service's commonest shape."""
    return {"error": phrase(status), "message": message}


def detail(status, text):
    """Return a refusal in the shape {"detail": text}."""
    return Refused(status, {"detail": text})


def invalid(loc, message, place="body"):
    """Return a refusal in the shape of a failed validation."""
    return Refused(422, {"detail": [{"loc": [place, *loc], "msg": message,
                                     "type": "value_error"}]})


class Route(typing.NamedTuple):
    """One operation: where it is, what its body must be, who answers.

    `parameters` is the table of its query, as `table` is that of its body.
    """

    method: str
    template: str
    handler: typing.Callable
    table: typing.Optional[dict] = None
    body_required: bool = False
    billable: typing.Optional[str] = None
    style: str = "both"
    needs_key: bool = True
    parameters: dict = {}


class Call(typing.NamedTuple):
    """A request that has been found valid."""

    route: Route
    params: list
    query: dict
    body: dict
    key: str
    knobs: dict
    rule: dict
    entry: object
    origin: str
    idempotency_key: typing.Optional[str]

    def task_options(self):
        """Return what the rule and the settings say about a new task."""
        return {"seconds": self.knobs["task_seconds"],
                "outcome": self.rule.get("task_result"),
                "error": self.rule.get("error"), "entry": self.entry,
                "webhook_url": (self.body or {}).get("webhook_url")}


class Table:
    """All routes, found by method and path."""

    def __init__(self, settings, routes):
        self.settings = settings
        self.exact = {}
        self.patterns = []
        for route in routes:
            if "{}" in route.template:
                self.patterns.append((route, route.template.split("/")))
            else:
                self.exact.setdefault(route.template, []).append(route)

    def find(self, method, raw_path):
        """Return a route and its parameters; refuse if there is none."""
        known = False
        for route, params in self.candidates(raw_path):
            if self.settings["workflow_routes"] in ("both", route.style) or (
                    route.style == "both"):
                if route.method == method:
                    return route, params
                known = True
        if known:
            raise detail(405, "Method Not Allowed")
        raise detail(404, "Not Found")

    def candidates(self, raw_path):
        """Yield the routes of a path with their parameters."""
        for route in self.exact.get(raw_path, ()):
            yield route, []
        parts = raw_path.split("/")
        for route, pattern in self.patterns:
            if matches(pattern, parts):
                yield route, values(pattern, parts)


def matches(pattern, parts):
    """Tell whether a path's parts fit a template's."""
    return len(pattern) == len(parts) and all(
        mine in ("{}", other) and other
        for mine, other in zip(pattern[1:], parts[1:]))


def values(pattern, parts):
    """Return the parts that stand for a template's parameters."""
    return [unquote(part) for mine, part in zip(pattern, parts)
            if mine == "{}"]
