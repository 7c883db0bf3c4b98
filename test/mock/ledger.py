"""The ledger: every request the service has seen, what it accepted and billed.

A request passes the stages below in order.  It is accepted when its whole
body has been read and found valid and no rule prevents it, which is decided
before a byte of the answer is sent: a client that never hears of it is billed
all the same.  `left` is the stage of a request whose client went away first.
"""

import asyncio
import collections
import fnmatch
import hashlib
import json
import time

STAGES = ("received_headers", "received_body", "replied", "left")
SHOWN_HEADERS = ("accept", "content-length", "content-type", "expect", "host",
                 "idempotency-key", "transfer-encoding", "user-agent")
RATE_SECONDS = 60.0
CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False,
                             separators=(",", ":"))


def canonical(value):
    """Return one spelling for all equal JSON values."""
    return CANONICAL.encode(value)


def fingerprint(*values):
    """Return the sha256 of JSON values, in hexadecimal."""
    text = "\n".join(canonical(value) for value in values)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Entry:
    """One request."""

    __slots__ = ("seq", "time", "method", "path", "raw_path", "query",
                 "connection",
                 "nth_on_connection", "headers", "key_sha256", "fingerprint",
                 "question", "body", "stage", "accepted", "billed",
                 "task_id", "status", "reply_completed", "client_left",
                 "rule", "fault", "epoch")

    def __init__(self, seq, epoch, connection, request):
        self.seq = seq
        self.epoch = epoch
        self.time = time.monotonic()
        self.method = request.method
        self.path = request.path
        self.raw_path = request.rel_url.raw_path
        self.query = dict(request.query) if request.query_string else {}
        self.connection = connection.number
        self.nth_on_connection = connection.requests
        self.headers = {name: request.headers[name] for name in SHOWN_HEADERS
                        if name in request.headers}
        key = request.headers.get("x-api-key")
        self.key_sha256 = key and hashlib.sha256(key.encode()).hexdigest()
        self.fingerprint = self.question = self.body = None
        self.task_id = self.status = self.rule = self.fault = None
        self.client_left = None
        self.stage = STAGES[0]
        self.accepted = self.reply_completed = False
        self.billed = 0

    def reached(self, stage):
        """Tell whether the request has been at that stage."""
        if stage == "left":
            return self.client_left is not None
        if stage == "replied":
            return self.reply_completed
        return STAGES.index(self.stage) >= STAGES.index(stage)

    def as_json(self):
        """Return what the control side shows of the request."""
        return {name: getattr(self, name) for name in self.__slots__
                if name != "epoch"}


class Watch:
    """A test's wait for requests to reach a stage."""

    def __init__(self, count, stage, path, after):
        self.missing = count
        self.stage = stage
        self.path = path
        self.after = after
        self.done = asyncio.get_running_loop().create_future()

    def see(self, entry):
        """Count one request that has just reached the stage."""
        if entry.seq <= self.after or not fnmatch.fnmatchcase(entry.path,
                                                              self.path):
            return
        self.missing -= 1
        if self.missing <= 0 and not self.done.done():
            self.done.set_result(True)


class Ledger:
    """All requests since the last reset, with their totals."""

    def __init__(self, settings):
        self.settings = settings
        self.epoch = 0
        self.watches = []
        self.conditions = []
        self.in_flight = 0
        self.reset()

    def reset(self):
        """Forget all requests; one still under way is not counted again."""
        self.epoch += 1
        self.entries = collections.deque()
        self.seq = self.accepted = self.billed = self.replied = 0
        self.peak_in_flight = self.in_flight
        self.by_path = collections.Counter()
        self.statuses = collections.Counter()
        self.questions = collections.Counter()
        self.leads = collections.Counter()

    def open(self, connection, request):
        """Record a request whose headers have arrived."""
        self.seq += 1
        entry = Entry(self.seq, self.epoch, connection, request)
        self.entries.append(entry)
        while len(self.entries) > self.settings["keep_entries"]:
            self.entries.popleft()
        self.by_path[" ".join((entry.method, collective(entry.path)))] += 1
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        self.tell(entry, STAGES[0])
        return entry

    def received(self, entry, body):
        """Record that the whole body has arrived; body is None or JSON."""
        entry.stage = "received_body"
        if body is not None:
            entry.fingerprint = fingerprint(body)
            if self.settings["keep_bodies"]:
                entry.body = body
        self.tell(entry, "received_body")

    def accept(self, entry, cents, task_id, question, leads):
        """Record that the service took the request, at that price."""
        entry.accepted = True
        entry.task_id = task_id
        entry.question = question
        if entry.epoch != self.epoch:
            return
        self.accepted += 1
        self.charge(entry, cents)
        if question:
            self.questions[question] += 1
            self.leads.update(leads)

    def charge(self, entry, cents):
        """Bill an accepted request; negative cents give money back."""
        entry.billed += cents
        if entry.epoch == self.epoch:
            self.billed += cents

    def replied_to(self, entry, status, completed):
        """Record what was answered; completed when its last byte was sent."""
        entry.status = status
        entry.stage = "replied"
        entry.reply_completed = completed
        if entry.epoch == self.epoch:
            self.replied += completed
            self.statuses[status] += 1
        if completed:
            self.tell(entry, "replied")

    def client_left(self, entry):
        """Record that the client went before it had the whole answer."""
        entry.client_left = time.monotonic()
        self.tell(entry, "left")

    def close(self, entry):
        """Record that nothing more will happen to the request."""
        self.in_flight -= 1
        self.changed()

    def tell(self, entry, stage):
        """Tell the tests that wait for the stage."""
        if entry.epoch != self.epoch:
            return
        for watch in self.watches:
            if watch.stage == stage:
                watch.see(entry)

    def changed(self):
        """Look again at conditions that are not about one request."""
        for condition, done in self.conditions:
            if not done.done() and condition():
                done.set_result(True)

    async def wait_for(self, count, stage, path="*", after=0):
        """Wait until that many matching requests have reached the stage."""
        watch = Watch(count, stage, path, after)
        for entry in self.entries:
            if entry.reached(stage):
                watch.see(entry)
        if watch.missing <= 0:
            return
        self.watches.append(watch)
        try:
            await watch.done
        finally:
            self.watches.remove(watch)

    async def wait_until(self, condition):
        """Wait until the condition holds."""
        if condition():
            return
        waiting = (condition, asyncio.get_running_loop().create_future())
        self.conditions.append(waiting)
        try:
            await waiting[1]
        finally:
            self.conditions.remove(waiting)

    def select(self, criteria):
        """Return the requests whose fields equal the criteria's texts."""
        path = criteria.pop("path", "*")
        after = int(criteria.pop("after", 0))
        limit = int(criteria.pop("limit", 0))
        found = [entry.as_json() for entry in self.entries
                 if entry.seq > after
                 and fnmatch.fnmatchcase(entry.path, path)
                 and all(as_text(getattr(entry, name)) == wanted
                         for name, wanted in criteria.items())]
        return found[-limit:]

    def summary(self):
        """Return the totals since the last reset."""
        return {"requests": self.seq, "accepted": self.accepted,
                "billed_cents": self.billed, "replied": self.replied,
                "in_flight": self.in_flight,
                "peak_in_flight": self.peak_in_flight,
                "peak_per_minute": self.peak_per_minute(),
                "by_path": dict(self.by_path),
                "by_status": {str(status): count for status, count
                              in self.statuses.items()},
                "duplicates": repeated(self.questions),
                "duplicate_leads": repeated(self.leads)}

    def peak_per_minute(self):
        """Return the most recorded requests within any 60 seconds."""
        window = collections.deque()
        peak = 0
        for entry in self.entries:
            if entry.path.startswith("/files/"):
                continue
            window.append(entry.time)
            while window[0] <= entry.time - RATE_SECONDS:
                window.popleft()
            peak = max(peak, len(window))
        return peak


def collective(path):
    """Return the path with anything after its known start as `*`."""
    for start in ("/job-status/", "/search/status/", "/files/",
                  "/search/deep-search-status/"):
        if path.startswith(start):
            return start + "*"
    return path


def repeated(counter):
    """Return what a counter has seen more than once."""
    return {name: count for name, count in counter.items() if count > 1}


def as_text(value):
    """Return a field as a query string spells it."""
    if isinstance(value, bool):
        return str(int(value))
    return "" if value is None else str(value)
