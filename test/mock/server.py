"""The way of a request through the mock, from its headers to its reply."""

import asyncio
import json
import sys
import time

from aiohttp import web

import checks
import faults
from account import Account
from connections import Server
from control import Control
from files import Files
from filters import Filters
from ledger import Ledger
from orgchart import OrgCharts
from pages import Pages
from routes import (Call, Refused, Reply, Stream, Table, detail,
                    fault_reply)
from rules import UNANSWERED, Rules
from search import Searches
from service import Enrichments, questions
from tasks import Tasks
from webhooks import Webhooks
from workflows import Workflows

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
NO_RULE = {}


class Sent:
    """What aiohttp is given for a reply that has been written already."""

    def __init__(self, keep_alive):
        self.keep_alive = keep_alive

    async def prepare(self, _request):
        """Do nothing: the headers are sent."""

    async def write_eof(self):
        """Do nothing: the body is sent."""


class Mock:
    """The service, what it remembers, and its control side."""

    def __init__(self, settings, keys=(), verbose=False):
        self.settings = settings
        self.keys = frozenset(keys)
        self.verbose = verbose
        self.ledger = Ledger(settings)
        self.rules = Rules()
        self.tasks = Tasks(settings, self.ledger)
        self.webhooks = Webhooks(settings, self.ledger)
        self.tasks.when_done = self.webhooks.announce
        files = Files(settings)
        self.workflows = Workflows(settings, self.tasks, files)
        self.pages = Pages()
        self.filters = Filters(settings, files, self.pages)
        parts = (Enrichments(self.tasks), files, self.workflows,
                 self.filters, self.webhooks, OrgCharts(self.pages),
                 Account(self.ledger),
                 Searches(settings, self.tasks, files, self.filters))
        self.table = Table(settings, (route for part in parts
                                      for route in part.routes()))
        self.windows = {}
        self.held = set()
        self.control = Control(self)
        self.server = Server(self.handle, self.ledger, access_log=None,
                             keepalive_timeout=3600, auto_decompress=False,
                             max_line_size=65536, max_field_size=65536)

    async def handle(self, request):
        """Answer one request of either side."""
        connection = self.server.by_protocol[request.protocol]
        if request.path.startswith("/_mock/"):
            self.server.mark_control(connection)
            return await self.control.handle(request)
        connection.requests += 1
        connection.writer = request.writer
        entry = connection.entry = self.ledger.open(connection, request)
        try:
            return await self.serve(request, connection, entry)
        finally:
            connection.entry = None
            self.ledger.close(entry)
            if self.verbose:
                print(entry.seq, entry.method, entry.path, entry.status,
                      entry.fault or "", file=sys.stderr, flush=True)

    async def serve(self, request, connection, entry):
        """Take a request through its stages."""
        rule = self.rules.pick(entry)
        if rule is not None:
            await faults.before_body(rule, connection)
            raise asyncio.CancelledError
        raw = await self.read(request, connection)
        rule = self.rules.pick(entry, raw)
        reply, rule = self.decide(request, entry, raw, rule or NO_RULE)
        await self.pause(connection, rule)
        if rule.get("fault") in UNANSWERED:
            await faults.instead_of_answer(rule, connection)
            raise asyncio.CancelledError
        if rule.get("fault") in faults.WIRES:
            await self.send_badly(rule, connection, entry, reply)
        if isinstance(reply.body, Stream):
            return await self.send_stream(request, connection, entry, reply)
        return self.send(request, connection, entry, reply)

    async def read(self, request, connection):
        """Return the request's body."""
        if request.headers.get("Expect", "").lower() == "100-continue":
            connection.transport.write(CONTINUE)
        try:
            return await request.content.read()
        except (OSError, web.RequestPayloadError):
            raise asyncio.CancelledError from None

    def decide(self, request, entry, raw, rule):
        """Accept or refuse a request; return the reply and its rule.

        A request that is refused for its own faults loses its rule.
        """
        body, fault = parse(request, raw)
        self.ledger.received(entry, body)
        key = request.headers.get("x-api-key", "")
        if rule and not rule.accepts:
            return faults.edit(rule, Reply(200, {}), key), rule
        try:
            call = self.check(request, entry, body, fault, rule)
            reply = call.route.handler(call)
        except Refused as refused:
            return self.with_limits(refused.reply, key), NO_RULE
        self.accept(entry, call, reply)
        return self.with_limits(faults.edit(rule, reply, key), key), rule

    def accept(self, entry, call, reply):
        """Write an accepted request into the ledger."""
        whole, leads = None, ()
        if call.route.billable and not reply.repeated:
            asked = {**call.body, **call.query} if call.body else call.query
            whole, leads = questions(call.route.billable, asked)
        self.ledger.accept(entry, reply.cents, reply.task_id, whole, leads)

    def check(self, request, entry, body, fault, rule):
        """Return the call that a request is; refuse what is none."""
        route, params = self.table.find(request.method,
                                        request.rel_url.raw_path)
        key = request.headers.get("x-api-key", "")
        if route.needs_key:
            self.check_key(key)
            self.check_rate(key)
        if fault:
            raise detail(400, fault)
        errors = checks.refusal(route.parameters, entry.query, "query")
        if errors:
            raise Refused(422, errors)
        if route.body_required and body is None:
            raise detail(400, "A JSON body is required")
        if route.table is not None and body is not None:
            errors = checks.refusal(route.table, body)
            if errors:
                raise Refused(422, errors)
        return Call(route, params, entry.query, body, key,
                    self.settings.knobs(rule), rule, entry,
                    f"{request.scheme}://{request.host}",
                    request.headers.get("Idempotency-Key"))

    def check_key(self, key):
        """Refuse a key that is missing or not one of the known."""
        if not key or (self.keys and key not in self.keys):
            message = "Invalid API key" if key else "Missing API key"
            raise Refused(401, fault_reply(401, message))

    def check_rate(self, key):
        """Refuse what is too much for the last minute."""
        limit = self.settings["rate_limit"]
        if not limit:
            return
        window = self.window(key)
        if len(window) >= limit:
            headers = ()
            if self.settings["retry_after"] is not None:
                headers = (("Retry-After",
                            str(self.settings["retry_after"])),)
            raise Refused(429, fault_reply(429, "Rate limit exceeded"),
                          headers)
        window.append(time.monotonic())

    def window(self, key):
        """Return the times of a key's requests within the rate's window."""
        since = time.monotonic() - self.settings["rate_window"]
        times = [moment for moment in self.windows.get(key, ())
                 if moment > since]
        self.windows[key] = times
        return times

    def with_limits(self, reply, key):
        """Add the headers that tell of the rate limit."""
        limit = self.settings["rate_limit"]
        if not limit:
            return reply
        left = max(limit - len(self.window(key)), 0)
        return reply._replace(headers=reply.headers + (
            ("X-RateLimit-Limit", str(limit)),
            ("X-RateLimit-Remaining", str(left))))

    async def pause(self, connection, rule):
        """Wait as long as asked for; end the request if the client goes."""
        seconds = self.settings["latency"] / 1000 + rule.get("delay", 0)
        if seconds:
            await asyncio.wait([connection.lost], timeout=seconds)
        if rule.get("hold"):
            released = asyncio.get_running_loop().create_future()
            self.held.add(released)
            self.ledger.changed()
            await asyncio.wait([connection.lost, released],
                               return_when=asyncio.FIRST_COMPLETED)
            self.held.discard(released)
        if connection.gone:
            raise asyncio.CancelledError

    def release(self):
        """Let all held replies go."""
        count = len(self.held)
        for released in self.held:
            released.set_result(True)
        self.held.clear()
        return count

    def send(self, request, connection, entry, reply):
        """Send a reply in good order, at once."""
        keep_alive = (request.keep_alive
                      and ("Connection", "close") not in reply.headers)
        if connection.gone:
            self.ledger.replied_to(entry, reply.status, False)
            raise asyncio.CancelledError
        head, body = faults.spell(reply), faults.encode(reply.body)
        if reply.status == 204:
            connection.transport.write(head + b"\r\n")
        else:
            faults.write_sized(connection, head, len(body), body)
        self.ledger.replied_to(entry, reply.status, True)
        return Sent(keep_alive)

    async def send_stream(self, request, connection, entry, reply):
        """Send a reply whose body is made on the way."""
        length = reply.body.length
        connection.transport.write(faults.spell(reply) + (
            b"Transfer-Encoding: chunked\r\n\r\n" if length is None
            else b"Content-Length: %d\r\n\r\n" % length))
        whole = await faults.pour(connection, reply.body)
        self.ledger.replied_to(entry, reply.status, whole)
        if not whole:
            raise asyncio.CancelledError
        return Sent(request.keep_alive
                    and ("Connection", "close") not in reply.headers)

    async def send_badly(self, rule, connection, entry, reply):
        """Send a reply as a fault wants it and end the connection."""
        head, body = faults.spell(reply), reply.body
        if rule["fault"] != "cut":
            body = faults.encode(body)
        await faults.WIRES[rule["fault"]](rule, connection, head, body)
        whole = rule["fault"] in faults.WHOLE and not connection.gone
        self.ledger.replied_to(entry, reply.status, whole)
        connection.close()
        raise asyncio.CancelledError

    def reset(self):
        """Forget everything, as if newly started."""
        self.settings.reset()
        self.rules.clear()
        self.tasks.reset()
        self.workflows.reset()
        self.webhooks.reset()
        self.filters.reset()
        self.pages.reset()
        self.windows.clear()
        self.release()
        self.reset_ledger()

    def reset_ledger(self):
        """Forget the requests and begin the counts anew."""
        self.ledger.reset()
        self.server.opened = self.server.open_count()


def parse(request, raw):
    """Return (body, None), or (None, what is wrong with it)."""
    if not raw:
        return None, None
    content_type = request.headers.get("Content-Type", "").partition(";")[0]
    if content_type.strip().lower() != "application/json":
        return None, "Content-Type must be application/json"
    try:
        body = json.loads(raw.decode(), parse_constant=refuse,
                          object_pairs_hook=no_duplicates)
        if b"\\ud" in raw.lower():
            json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        return None, f"The body is not JSON: {error}"
    if not isinstance(body, dict):
        return None, "The body must be a JSON object"
    return body, None


def refuse(constant):
    """Refuse NaN and the infinities."""
    raise ValueError(f"{constant} is not JSON")


def no_duplicates(pairs):
    """Return an object; refuse one that names a member twice."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("duplicate member")
    return value
