"""The tasks: asynchronous work from its acceptance to its end.

A task ends after its seconds, or when a test says so; its answer is made when
it is asked for.  Deep searches and runs of workflows are tasks too.
"""

import asyncio
import collections
import datetime
import time
import uuid

FAILURES = ("failed", "cancelled", "canceled", "terminated", "timed_out")


def iso(moment):
    """Return a time in seconds as the service writes it."""
    stamp = datetime.datetime.fromtimestamp(moment, datetime.timezone.utc)
    return stamp.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Task:
    """One piece of work."""

    __slots__ = ("id", "run_id", "kind", "body", "make_result", "seconds",
                 "outcome", "error", "charge", "webhook_url", "entry",
                 "status", "started", "closed", "timer", "facts")

    def __init__(self, kind, body, make_result, **options):
        self.kind = kind
        self.body = body
        self.make_result = make_result
        self.seconds = options.get("seconds")
        self.outcome = options.get("outcome") or "completed"
        self.error = options.get("error")
        self.charge = options.get("charge", 0)
        self.webhook_url = options.get("webhook_url")
        self.entry = options.get("entry")
        self.facts = options.get("facts")
        self.status = "running"
        self.started = time.time()
        self.closed = self.timer = None

    @property
    def done(self):
        """Tell whether the task has ended."""
        return self.closed is not None

    def progress(self):
        """Return how far the task is, from 0 to 1."""
        if self.done:
            return 1.0
        if not self.seconds:
            return 0.5
        return min((time.time() - self.started) / self.seconds, 0.99)

    def phase(self):
        """Return `queued` at first, then `running`, then how it ended."""
        if self.done or self.progress() >= 0.1:
            return self.status
        return "queued"

    def result(self):
        """Return the finished task's answer, None for a failed one."""
        return self.make_result() if self.status == "completed" else None


class Tasks:
    """All tasks by id."""

    def __init__(self, settings, ledger):
        self.settings = settings
        self.ledger = ledger
        self.when_done = None
        self.by_id = {}
        self.counts = collections.Counter()
        self.number = 0

    def start(self, task):
        """Give a task its id and let it run."""
        self.number += 1
        odd = self.settings["task_ids"] == "odd"
        task.id = f"job/{self.number}?a=%2F ü" if odd else str(uuid.uuid4())
        task.run_id = f"run-{self.number}"
        self.by_id[task.id] = task
        self.counts["running"] += 1
        self.trim()
        if task.seconds is not None:
            task.timer = asyncio.get_running_loop().call_later(
                task.seconds, self.finish, task)
        return task

    def trim(self):
        """Forget the oldest tasks beyond what is kept."""
        while len(self.by_id) > self.settings["keep_tasks"]:
            self.forget(next(iter(self.by_id.values())))

    def finish(self, task, status=None, error=None):
        """End a task; a failed one is not charged."""
        if task.done:
            return
        if task.timer:
            task.timer.cancel()
        task.closed = time.time()
        task.error = error or task.error
        self.counts["running"] -= 1
        task.status = status or task.outcome
        self.counts[task.status] += 1
        if task.status != "completed":
            task.error = task.error or f"The task ended as {task.status}."
            if task.entry and task.charge:
                self.ledger.charge(task.entry, -task.charge)
            task.charge = 0
        if self.when_done:
            self.when_done(task)
        self.ledger.changed()

    def forget(self, task):
        """Make the service know nothing of a task."""
        if task.timer:
            task.timer.cancel()
        if self.by_id.pop(task.id, None):
            self.counts[task.status] -= 1
        self.ledger.changed()

    def reset(self):
        """Forget all tasks."""
        for task in list(self.by_id.values()):
            self.forget(task)

    def done_count(self):
        """Return how many tasks have ended."""
        return sum(count for status, count in self.counts.items()
                   if status != "running")

    def running(self, kind):
        """Return how many tasks of a kind have not ended."""
        return sum(task.kind == kind and not task.done
                   for task in self.by_id.values())

    def find(self, task_id, kind=None):
        """Return a task, or None."""
        task = self.by_id.get(task_id)
        return task if task and kind in (None, task.kind) else None

    def accepted_word(self):
        """Return the status of a task that was just accepted."""
        return ("pending" if self.settings["status_style"] == "documented"
                else "RUNNING")

    def view(self, task):
        """Return what job-status tells about a task."""
        documented = self.settings["status_style"] == "documented"
        status = task.status
        if not task.done:
            status = "RUNNING"
            if documented:
                status = "pending" if task.progress() < 0.5 else "processing"
        view = {"task_id" if documented else "id": task.id}
        view["status"] = status
        view["task_type"] = task.kind
        if not documented:
            view.update(run_id=task.run_id, start_time=iso(task.started),
                        close_time=task.closed and iso(task.closed),
                        charge_amount=task.charge if task.done else None)
        view["result"] = task.result()
        if task.done and task.status != "completed":
            view["error"] = task.error
        return view
