"""Deep searches, and the signed addresses from which results are fetched."""

import hashlib
import hmac
import secrets
import time
from urllib.parse import quote, urlencode, urlsplit

import answers
import checks
from routes import Refused, Reply, Route, detail, fault_reply
from tasks import Task, iso

KIND = "deep_search"
EXPIRED = (b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied'
           b"</Code><Message>Request has expired</Message></Error>")


class Files:
    """Results behind signed addresses that expire."""

    def __init__(self, settings):
        self.settings = settings
        self.secret = secrets.token_bytes(16)
        self.makers = {}

    def routes(self):
        """Yield the route of the files."""
        yield Route("GET", "/files/{}", self.fetch, needs_key=False)

    def sign(self, name, expires):
        """Return the signature of a file's address."""
        return hmac.new(self.secret, f"{name}|{expires}".encode(),
                        hashlib.sha256).hexdigest()

    def address(self, origin, name, make_rows):
        """Return a signed address for a file of rows."""
        self.makers[name] = make_rows
        if self.settings["download_host"]:
            port = urlsplit(origin).port
            origin = (f"{urlsplit(origin).scheme}://"
                      f"{self.settings['download_host']}:{port}")
        expires = str(time.time() + self.settings["download_seconds"])
        query = urlencode({"expires": expires,
                           "signature": self.sign(name, expires)})
        return f"{origin}/files/{quote(name, safe='')}?{query}"

    def fetch(self, call):
        """Answer with a file's CSV."""
        name, expires = call.params[0], call.query.get("expires", "0")
        given = call.query.get("signature", "")
        good = hmac.compare_digest(given.encode(),
                                   self.sign(name, expires).encode())
        if not good or float(expires) < time.time():
            return Reply(403, EXPIRED, content_type="application/xml")
        if name not in self.makers:
            raise detail(404, "No such file")
        text = answers.write_csv(self.makers[name]())
        return Reply(200, text.encode(), content_type="text/csv")


class Searches:
    """Deep searches."""

    def __init__(self, settings, tasks, files):
        self.settings = settings
        self.tasks = tasks
        self.files = files

    def routes(self):
        """Yield all routes."""
        yield Route("POST", "/search/start-deep-search", self.start,
                    checks.START_SEARCH, True, "deep-search")
        yield Route("GET", "/search/deep-search-status/{}", self.status)
        yield Route("GET", "/search/status/{}", self.status)
        yield Route("GET", "/search/download", self.download)

    def start(self, call):
        """Start a search, or find the one with the same search_id."""
        search_id = call.body.get("search_id")
        for task in list(self.tasks.by_id.values()) if search_id else ():
            if task.kind == KIND and task.body.get("search_id") == search_id:
                return started(task, repeated=True)
        if self.tasks.running(KIND) >= self.settings["search_limit"]:
            raise Refused(429, fault_reply(
                429, "Maximum number of concurrent deep searches reached"))
        task = Task(KIND, call.body, lambda: self.rows(task),
                    charge=call.rule.get("charge", answers.SEARCH_CENTS),
                    facts={"rows": call.rule.get("result")},
                    **call.task_options())
        return started(self.tasks.start(task))

    def rows(self, task):
        """Return the rows that a search has found."""
        if task.facts["rows"] is not None:
            return task.facts["rows"]
        count = min(self.settings["search_rows"],
                    task.body.get("max_results", 1000))
        return answers.search_rows(task.body["query"],
                                   task.body.get("mode", "people"), count)

    def status(self, call):
        """Answer how far a search is."""
        task = self.tasks.find(call.params[0], KIND)
        if not task:
            raise detail(404, "Search task not found")
        found = len(self.rows(task)) if task.status == "completed" else None
        handle = None if found is None else "rh-" + task.id
        return Reply(200, {
            "task_id": task.id, "status": task.phase(),
            "start_time": iso(task.started),
            "close_time": task.closed and iso(task.closed),
            "current_phase": int(task.progress() * 4),
            "progress_message": "Done" if task.done else "Searching",
            "resource_handle_id": handle, "total_results": found,
            "exported_count": found, "error": task.error,
            "search_id": task.body.get("search_id"), "iterations": []},
            task_id=task.id)

    def download(self, call):
        """Answer with the signed address of a search's CSV."""
        handle = call.need("resource_handle_id")
        task = self.tasks.find(handle[len("rh-"):], KIND)
        if not handle.startswith("rh-") or not task or (
                task.status != "completed"):
            raise detail(404, "Resource not found")
        name = f"search-{task.id}.csv"
        url = self.files.address(call.origin, name, lambda: self.rows(task))
        return Reply(200, {"url": url, "bucket": "search-results",
                           "path": name})


def started(task, repeated=False):
    """Return the answer to a start."""
    return Reply(200, {"task_id": task.id, "status": task.phase(),
                       "message": "Deep search started"},
                 0 if repeated else task.charge, task.id, repeated)
