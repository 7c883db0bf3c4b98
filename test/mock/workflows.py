"""Workflows: their definitions, runs and results.

The specification's paths and the action paths of the live service both exist;
the setting workflow_routes says which of them answer.
"""

import time
import uuid

import answers
import checks
from ledger import fingerprint
from routes import Refused, Reply, Route, detail, fault_reply
from tasks import Task, iso

KIND = "workflow"


class Workflows:
    """The organisation's workflows."""

    def __init__(self, settings, tasks, files):
        self.settings = settings
        self.tasks = tasks
        self.files = files
        self.reset()

    def reset(self):
        """Forget all workflows."""
        self.by_id = {}
        self.run_of_key = {}

    def routes(self):
        """Yield all routes."""
        yield Route("GET", "/workflows", self.list)
        yield Route("GET", "/workflows/runs", self.list_runs)
        yield Route("POST", "/workflows/run", self.run, checks.RUN_WORKFLOW,
                    False, "workflow")
        yield Route("POST", "/workflows/cancel", self.cancel)
        yield Route("GET", "/workflows/{}", self.get)
        yield Route("GET", "/workflows/runs/{}/live_status", self.live_status)
        yield Route("GET", "/workflows/runs/{}/results/download-links",
                    self.download_links)
        yield Route("POST", "/workflows", self.create,
                    checks.CREATE_WORKFLOW, True, style="rest")
        yield Route("PATCH", "/workflows/{}", self.update,
                    checks.UPDATE_WORKFLOW, True, style="rest")
        yield Route("DELETE", "/workflows/{}", self.delete, style="rest")
        yield Route("POST", "/workflows/create_workflow", self.create,
                    checks.CREATE_WORKFLOW_LIVE, True, style="live")
        yield Route("POST", "/workflows/update_workflow", self.update,
                    checks.UPDATE_WORKFLOW, True, style="live")
        yield Route("POST", "/workflows/delete_workflow", self.delete,
                    style="live")

    def find(self, call):
        """Return the workflow that a path or a query names."""
        name = (call.params or [None])[0] or call.need("workflow_id")
        if name not in self.by_id:
            raise detail(404, "Workflow not found")
        return self.by_id[name]

    def list(self, _call):
        """Answer with all workflows, without their definitions."""
        return Reply(200, [{**flow, "workflow_definition": None}
                           for flow in self.by_id.values()])

    def get(self, call):
        """Answer with one workflow."""
        return Reply(200, self.find(call))

    def create(self, call):
        """Create a workflow; one with a known id is the known one."""
        body = call.body
        flow_id = body.get("id") or str(uuid.uuid4())
        now = iso(time.time())
        flow = self.by_id.setdefault(flow_id, {
            "id": flow_id, "name": body["workflow_name"],
            "description": body.get("workflow_description", ""),
            "status": "active", "step": "ready", "created_at": now,
            "updated_at": now, "last_run_date": None,
            "workflow_definition": body["workflow_definition"]})
        return Reply(200, flow)

    def update(self, call):
        """Change what the body names."""
        flow = self.find(call)
        for field in ("name", "description", "definition"):
            value = call.body.get("workflow_" + field)
            if value is not None:
                flow["workflow_definition" if field == "definition"
                     else field] = value
        flow["updated_at"] = iso(time.time())
        return Reply(200, flow)

    def delete(self, call):
        """Delete a workflow; its runs stay."""
        flow = self.find(call)
        del self.by_id[flow["id"]]
        return Reply(204, b"") if call.params else Reply(200, flow)

    def run(self, call):
        """Start a run; the same Idempotency-Key finds the first one."""
        flow = self.find(call)
        body = call.body or {}
        known = self.known_run(call, fingerprint(flow["id"], body))
        if known:
            return started(known, True)
        blocks = sorted(flow["workflow_definition"]["blocks"],
                        key=lambda block: block["sequence_number"])
        if not blocks or blocks[0]["block_name"] == "read_csv":
            raise detail(400, "This workflow cannot be started by the API")
        payload = body.get("webhook_payload") or []
        payload = payload if isinstance(payload, list) else [payload]
        cents = answers.WORKFLOW_ROW_CENTS * len(payload)
        task = self.tasks.start(Task(
            KIND, body, lambda: None,
            charge=call.rule.get("charge", cents),
            facts={"flow": flow["id"], "name": flow["name"],
                   "blocks": blocks, "rows": payload,
                   "forced": call.rule.get("result")},
            **call.task_options()))
        if call.idempotency_key:
            self.run_of_key[call.key, call.idempotency_key] = (
                task, fingerprint(flow["id"], body))
        flow["last_run_date"] = iso(task.started)
        return started(task, False)

    def known_run(self, call, asked):
        """Return the run that the same Idempotency-Key has started."""
        task, first = self.run_of_key.get((call.key, call.idempotency_key),
                                          (None, None))
        if task and first != asked:
            raise Refused(409, fault_reply(
                409, "Idempotency-Key was used for another request"))
        return task

    def find_run(self, call, name=None):
        """Return the run that a path or a query names."""
        task = self.tasks.find(name or call.params[0], KIND)
        if not task:
            raise detail(404, "Run not found")
        return task

    def cancel(self, call):
        """Cancel a run."""
        task = self.find_run(call, call.need("job_id"))
        if task.done:
            raise detail(400, f"The run is {task.status} already")
        self.tasks.finish(task, "cancelled")
        return Reply(200, {"job_id": task.id, "status": "canceled"})

    def list_runs(self, call):
        """Answer with runs, latest first."""
        wanted = call.query.get("status")
        states = ("queued", "running") if wanted == "active" else (wanted,)
        runs = [run_json(task) for task in self.tasks.by_id.values()
                if task.kind == KIND
                and (not wanted or task.phase() in states)
                and call.query.get("workflow_id", task.facts["flow"])
                == task.facts["flow"]]
        return Reply(200, runs[::-1][:int(call.query.get("limit", 100))])

    def live_status(self, call):
        """Answer how far a run is, block by block."""
        task = self.find_run(call)
        facts = task.facts
        total = len(facts["blocks"])
        ended = total if task.status == "completed" else int(
            task.progress() * total)
        blocks = [block_json(task, number, block, ended)
                  for number, block in enumerate(facts["blocks"])]
        return Reply(200, {
            "run_id": task.id, "workflow_id": facts["flow"],
            "overall_status": task.phase(), "total_blocks": total,
            "completed_blocks": ended, "started_at": iso(task.started),
            "completed_at": task.closed and iso(task.closed),
            "last_updated": iso(time.time()), "blocks": blocks,
            "overall_progress_percentage": round(100 * task.progress(), 1)},
            task_id=task.id)

    def download_links(self, call):
        """Answer with the results of each block of a completed run."""
        task = self.find_run(call)
        if task.status != "completed":
            return Reply(200, [])
        return Reply(200, [self.link(call, task, number) for number
                           in range(len(task.facts["blocks"]))])

    def link(self, call, task, number):
        """Return the entry for the results of one block."""
        rows = block_rows(task, number)
        name = f"result_{task.id}_block_{number + 1}.csv"
        inline = self.settings["inline_results"]
        url = None if inline else self.files.address(call.origin, name,
                                                     lambda: rows)
        return {"filename": name, "storage_bucket": "workflow-results",
                "row_count": len(rows), "block_number": number + 1,
                "created_at": iso(task.closed), "message": None,
                "content_type": "text/csv", "download_url": url,
                "download_expires_in_seconds": int(
                    self.settings["download_seconds"]),
                "results": rows if inline else None}


def started(task, already):
    """Return the answer to a start."""
    return Reply(200, {"status": task.phase(), "job_id": task.id,
                       "workflow_id": task.facts["flow"],
                       "cache_config": None, "already_started": already},
                 0 if already else task.charge, task.id, already)


def block_rows(task, number):
    """Return the rows after one block of a run."""
    facts = task.facts
    if facts["forced"] is not None and number == len(facts["blocks"]) - 1:
        return facts["forced"]
    return answers.workflow_rows(facts["rows"], facts["blocks"], number)


def block_json(task, number, block, ended):
    """Return how far one block of a run is."""
    rows = len(task.facts["rows"])
    status = "completed" if number < ended else "pending"
    if number == ended:
        status = task.phase()
    done = rows if number < ended else 0
    return {"block_id": block.get("block_id"), "status": status,
            "block_name": block["block_name"], "error_message": None,
            "sequence_number": block["sequence_number"],
            "progress_percentage": 100.0 if number < ended else 0.0,
            "processed_count": done, "total_count": rows,
            "last_updated": iso(time.time()),
            "metrics": {"row_count": done, "dataframe_type": "lead"}}


def run_json(task):
    """Return one line of the list of runs."""
    return {"job_id": task.id, "workflow_id": task.facts["flow"],
            "workflow_name": task.facts["name"], "status": task.phase(),
            "created_at": iso(task.started), "started_at": iso(task.started),
            "completed_at": task.closed and iso(task.closed),
            "error_message": task.error,
            "blocks_count": len(task.facts["blocks"])}
