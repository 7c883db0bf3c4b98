"""Workflows: their definitions, runs and results.

The specification's paths and the action paths of the live service both exist;
the setting workflow_routes says which of them answer.
"""

import time
import uuid

import answers
import checks
from files import TYPES, Rows, forced
from ledger import fingerprint
from routes import Refused, Reply, Route, detail, fault_reply
from tasks import Task, iso

KIND = "workflow"
# The kinds of blocks, and what their specs may hold.
BLOCKS = {"webhook": (), "read_csv": ("resource_handle_id",),
          "enrich_company": ("struct", "lead_struct", "people_focus_prompt"),
          "enrich_lead": ("struct", "research_plan"),
          "find_email": ("mode",), "find_phone": (),
          "qa_agent": ("qualification_criteria", "struct")}


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
        yield Route("GET", "/workflows/blocks", self.list_blocks)
        yield Route("GET", "/workflows/runs", self.list_runs,
                    parameters=checks.LIST_RUNS)
        yield Route("POST", "/workflows/run", self.run, checks.RUN_WORKFLOW,
                    False, "workflow", parameters=checks.RUN_QUERY)
        yield Route("POST", "/workflows/cancel", self.cancel,
                    parameters=checks.CANCEL_QUERY)
        yield Route("GET", "/workflows/{}", self.get)
        yield Route("GET", "/workflows/runs/{}/live_status", self.live_status)
        yield Route("GET", "/workflows/runs/{}/results/download-links",
                    self.download_links, parameters=checks.LINKS_QUERY)
        yield Route("POST", "/workflows", self.create,
                    checks.CREATE_WORKFLOW, True, style="rest")
        yield Route("PATCH", "/workflows/{}", self.update,
                    checks.UPDATE_WORKFLOW, True, style="rest")
        yield Route("DELETE", "/workflows/{}", self.delete, style="rest")
        yield Route("POST", "/workflows/create_workflow", self.create,
                    checks.CREATE_WORKFLOW_LIVE, True, style="live")
        yield Route("POST", "/workflows/update_workflow", self.update,
                    checks.UPDATE_WORKFLOW, True, style="live",
                    parameters=checks.NAMED_WORKFLOW)
        yield Route("POST", "/workflows/delete_workflow", self.delete,
                    style="live", parameters=checks.NAMED_WORKFLOW)

    def find(self, call):
        """Return the workflow that a path or a query names."""
        name = call.params[0] if call.params else call.query["workflow_id"]
        if name not in self.by_id:
            raise detail(404, "Workflow not found")
        return self.by_id[name]

    def list(self, _call):
        """Answer with all workflows, without their definitions."""
        return Reply(200, [{**flow, "workflow_definition": None}
                           for flow in self.by_id.values()])

    def list_blocks(self, _call):
        """Answer with the kinds of blocks there are."""
        return Reply(200, [{"block_name": name, "specs_schema": {
            "type": "object", "additionalProperties": True,
            "properties": {field: {"type": "object"} for field in fields}}}
            for name, fields in BLOCKS.items()])

    def get(self, call):
        """Answer with one workflow."""
        return Reply(200, self.find(call))

    def create(self, call):
        """Create a workflow; one with a known id is the known one."""
        body = call.body
        flow_id = body.get("id") or str(uuid.uuid4())
        now = iso(time.time())
        flow = self.by_id.setdefault(flow_id, {
            "id": flow_id, "user_uuid": None, "org_id": "org_1",
            "name": body["workflow_name"],
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
        if body.get("specs_override"):
            blocks[0] = {**blocks[0], "specs": {**blocks[0]["specs"],
                                                **body["specs_override"]}}
        payload = body.get("webhook_payload") or []
        payload = payload if isinstance(payload, list) else [payload]
        cents = answers.WORKFLOW_ROW_CENTS * len(payload)
        task = self.tasks.start(Task(
            KIND, body, lambda: None,
            charge=call.rule.get("charge", cents),
            facts={"flow": flow["id"], "name": flow["name"],
                   "blocks": blocks, "rows": payload,
                   "edges": flow["workflow_definition"]["edges"],
                   "json": is_true(call.query.get("save_json")),
                   "forced": forced(call.rule)},
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
        task = self.find_run(call, call.query["job_id"])
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
        total, ended = len(facts["blocks"]), blocks_ended(task)
        now = facts["blocks"][ended] if ended < total else {}
        share = task.progress() if not task.done else ended / total
        blocks = [block_json(task, number, block, ended)
                  for number, block in enumerate(facts["blocks"])]
        return Reply(200, {
            "run_id": task.id, "workflow_id": facts["flow"],
            "overall_status": task.phase(), "total_blocks": total,
            "current_block": now.get("block_name"),
            "current_block_sequence": now.get("sequence_number"),
            "estimation_blocked_by": None,
            "completed_blocks": ended, "started_at": iso(task.started),
            "completed_at": task.closed and iso(task.closed),
            "last_updated": iso(time.time()), "blocks": blocks,
            "overall_progress_percentage": round(100 * share, 1)},
            task_id=task.id)

    def download_links(self, call):
        """Answer with the results of each block of a completed run."""
        task = self.find_run(call)
        if call.query.get("format") == "json" and not task.facts["json"]:
            raise detail(400, "The run was not started with save_json=true")
        if task.status != "completed":
            return Reply(200, [])
        return Reply(200, [self.link(call, task, number) for number
                           in range(len(task.facts["blocks"]))])

    def link(self, call, task, number):
        """Return the entry for the results of one block."""
        blocks, table = task.facts["blocks"], block_table(task, number)
        kind = call.query.get("format", "csv")
        sequence = blocks[number]["sequence_number"]
        name = f"result_{task.id}_block_{sequence}.{kind}"
        where = "inline" if call.knobs["inline_results"] else "file"
        if number == len(blocks) - 1 and call.knobs["last_result"] != "file":
            where = call.knobs["last_result"]
        url = None
        if where == "file":
            url = self.files.address(call, name, lambda: table, kind)
        return {"filename": name, "storage_bucket": "workflow-results",
                "row_count": len(table), "block_number": sequence,
                "created_at": iso(task.closed), "message": None,
                "content_type": TYPES[kind], "download_url": url,
                "download_expires_in_seconds": int(
                    call.knobs["download_seconds"]),
                "results": list(table) if where == "inline" else None}


def started(task, already):
    """Return the answer to a start."""
    return Reply(200, {"status": task.phase(), "job_id": task.id,
                       "workflow_id": task.facts["flow"],
                       "cache_config": None, "already_started": already},
                 0 if already else task.charge, task.id, already)


def is_true(text):
    """Read a boolean query parameter."""
    return text is not None and text.lower() in ("true", "1")


def blocks_ended(task):
    """Return how many blocks of a run have ended well."""
    total = len(task.facts["blocks"])
    if task.status == "completed":
        return total
    if task.done and task.status == "failed":
        return total - 1
    if task.done and task.seconds:
        share = (task.closed - task.started) / task.seconds
    else:
        share = 0.5 if task.done else task.progress()
    return min(int(share * total), total - 1)


def block_table(task, number):
    """Return the rows after one block of a run."""
    facts = task.facts
    if facts["forced"] is not None and number == len(facts["blocks"]) - 1:
        return facts["forced"]
    return Rows(answers.workflow_rows(facts["rows"], facts["blocks"], number))


def block_json(task, number, block, ended):
    """Return how far one block of a run is."""
    rows = len(task.facts["rows"])
    before, now = number < ended, number == ended
    status = "completed" if before else task.phase() if now else "pending"
    done = rows if before else 0
    error = task.error if now and task.status == "failed" else None
    sources = [edge["from_block_id"] for edge in task.facts["edges"]
               if edge["to_block_id"] == block.get("block_id")]
    began = before or (now and status != "queued")
    return {"block_id": block.get("block_id"), "status": status,
            "block_name": block["block_name"], "error_message": error,
            "sequence_number": block["sequence_number"],
            "previous_block_ids": sources,
            "started_at": iso(task.started) if began else None,
            "completed_at": iso(task.closed or time.time()) if before
            else None,
            "current_step": "Working" if status == "running" else None,
            "progress_percentage": 100.0 if before else 0.0,
            "processed_count": done, "total_count": rows,
            "estimated_total_count": None, "last_updated": iso(time.time()),
            "metrics": {"row_count": done, "dataframe_type": "LEAD",
                        "processed_count": done, "total_count": rows}}


def run_json(task):
    """Return one line of the list of runs."""
    lasted = (task.closed or time.time()) - task.started
    return {"job_id": task.id, "workflow_id": task.facts["flow"],
            "workflow_name": task.facts["name"], "status": task.phase(),
            "step": None, "user_id": None, "created_at": iso(task.started),
            "updated_at": iso(task.closed or task.started),
            "queued_at": iso(task.started), "started_at": iso(task.started),
            "completed_at": task.closed and iso(task.closed),
            "duration_ms": int(lasted * 1000) if task.done else None,
            "status_reason": None, "error_message": task.error,
            "metrics": None, "blocks": None,
            "blocks_count": len(task.facts["blocks"])}
