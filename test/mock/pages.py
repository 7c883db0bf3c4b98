"""Pages of results, and the opaque cursors that lead from one to the next.

A cursor belongs to one search and one path, and expires.  It may be sent
again: the same cursor gives the same page, unless page_trouble says otherwise.
"""

import secrets
import time
import typing

from routes import Refused, fault_reply

GONE = -1


class Cursor(typing.NamedTuple):
    """Where a cursor leads, and how long."""

    path: str
    search: object
    offset: int
    size: int
    most: int
    expires: float


class Page(typing.NamedTuple):
    """One page: its rows, their place, and the way to the next."""

    search: object
    rows: list
    start: int
    end: int
    size: int
    most: int
    more: bool
    cursor: typing.Optional[str]


class Pages:
    """All cursors that were given out."""

    def __init__(self):
        self.cursors = {}

    def reset(self):
        """Forget all cursors."""
        self.cursors.clear()

    def first(self, call, search, offset, size, most):
        """Return the page of a search that begins at the offset."""
        return self.cut(call, Cursor(call.route.template, search, offset,
                                     size, most, 0), None)

    def following(self, call):
        """Return the page that the body's cursor leads to."""
        token = call.body["cursor"]
        cursor = self.cursors.get(token)
        if not cursor or cursor.path != call.route.template:
            raise refused(call, "Unknown cursor")
        if cursor.expires < time.time():
            raise refused(call, "The cursor has expired")
        size = call.body.get("page_size") or cursor.size
        most = call.body.get("max_results") or cursor.most
        return self.cut(call, cursor._replace(size=size, most=most), token)

    def cut(self, call, at, token):
        """Return the page at a place, with the trouble that was asked for."""
        trouble = call.knobs["page_trouble"]
        bound = min(len(at.search.rows), at.most)
        start = min(at.offset, bound)
        end = start if trouble == "empty" else min(start + at.size, bound)
        more = end < bound or trouble in ("same_cursor", "no_cursor")
        following = None
        if trouble == "same_cursor" and token:
            following = token
        elif more and trouble != "no_cursor":
            life = (GONE if trouble == "expired_cursor"
                    else call.knobs["cursor_seconds"])
            following = secrets.token_urlsafe(24)
            self.cursors[following] = at._replace(
                path=call.route.template, offset=end,
                expires=time.time() + life)
        return Page(at.search, at.search.rows[start:end], start, end, at.size,
                    at.most, more, following)


def refused(call, message):
    """Return the refusal of a cursor."""
    status = call.knobs["cursor_status"]
    return Refused(status, fault_reply(status, message))
