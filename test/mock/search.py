"""Deep searches and exports: tasks that end with a file of rows."""

import answers
import checks
from files import Rows, forced
from routes import Refused, Reply, Route, detail, fault_reply
from tasks import Task, iso

DEEP = "deep_search"
EXPORT = "search_export"
MAX_RESULTS = 1000


class Searches:
    """Deep searches, and the exports of filter searches."""

    def __init__(self, settings, tasks, files, filters):
        self.settings = settings
        self.tasks = tasks
        self.files = files
        self.filters = filters

    def routes(self):
        """Yield all routes."""
        yield Route("POST", "/search/start-deep-search", self.start,
                    checks.START_SEARCH, True, "deep-search")
        yield Route("POST", "/search/export", self.export,
                    checks.EXPORT, True, "export")
        yield Route("GET", "/search/deep-search-status/{}", self.status)
        yield Route("GET", "/search/status/{}", self.status)
        yield Route("GET", "/search/download", self.download,
                    parameters=checks.DOWNLOAD)

    def start(self, call):
        """Start a search, or find the one with the same search_id."""
        search_id = call.body.get("search_id")
        for task in list(self.tasks.by_id.values()) if search_id else ():
            if task.kind == DEEP and task.body.get("search_id") == search_id:
                return started(task, repeated=True)
        if self.tasks.running(DEEP) >= self.settings["search_limit"]:
            raise Refused(429, fault_reply(
                429, "Maximum number of concurrent deep searches reached"))
        mode = call.body.get("mode", "people")
        parsed = {"query": call.body["query"]}
        search = self.filters.remember(call, mode, parsed, search_id)
        return self.launch(call, DEEP, search, answers.SEARCH_CENTS)

    def export(self, call):
        """Start to write a known search's rows into a file."""
        search = self.filters.source(call, ("search_id", "parsed_query"))
        return self.launch(call, EXPORT, search, answers.EXPORT_CENTS)

    def launch(self, call, kind, search, cents):
        """Start a task that gives a search's rows."""
        options = call.task_options()
        task = Task(kind, call.body, lambda: self.result(task),
                    charge=call.rule.get("charge", cents),
                    facts={"forced": forced(call.rule), "search": search},
                    **options)
        return started(self.tasks.start(task))

    def table(self, task):
        """Return what a search has found."""
        if task.facts["forced"] is not None:
            return task.facts["forced"]
        most = task.body.get("max_results", MAX_RESULTS)
        return Rows(task.facts["search"].rows[:most])

    def handle(self, task):
        """Return the handle of a search's file, None where there is none."""
        if (task.status != "completed"
                or task.body.get("output_mode") == "query_only"):
            return None
        return "rh-" + task.id

    def result(self, task):
        """Return what job-status and webhooks tell of a search that ended."""
        return {"resource_handle_id": self.handle(task),
                "total_results": len(self.table(task)),
                "search_id": task.facts["search"].id}

    def status(self, call):
        """Answer how far a search or an export is."""
        task = self.tasks.find(call.params[0])
        if not task or task.kind not in (DEEP, EXPORT):
            raise detail(404, "Search task not found")
        handle = self.handle(task)
        found = None
        if task.status == "completed":
            found = len(self.table(task))
        return Reply(200, {
            "task_id": task.id, "status": task.phase(),
            "start_time": iso(task.started),
            "close_time": task.closed and iso(task.closed),
            "current_phase": int(task.progress() * 4),
            "progress_message": "Done" if task.done else "Searching",
            "resource_handle_id": handle, "total_results": found,
            "exported_count": found if handle else None, "error": task.error,
            "search_id": task.facts["search"].id, "iterations": []},
            task_id=task.id)

    def download(self, call):
        """Answer with the signed address of a search's CSV."""
        handle = call.query["resource_handle_id"]
        task = self.tasks.find(handle[len("rh-"):])
        if not task or task.kind not in (DEEP, EXPORT) or (
                handle != self.handle(task)):
            raise detail(404, "Resource not found")
        name = f"search-{task.id}.csv"
        url = self.files.address(call, name, lambda: self.table(task))
        return Reply(200, {"url": url, "bucket": "search-results",
                           "path": name})


def started(task, repeated=False):
    """Return the answer to a start."""
    word = "Deep search" if task.kind == DEEP else "Export"
    return Reply(200, {"task_id": task.id, "status": task.phase(),
                       "message": word + " started"},
                 0 if repeated else task.charge, task.id, repeated)
