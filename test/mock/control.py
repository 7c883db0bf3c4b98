"""The control side under /_mock/: rules, settings, the ledger, and waits."""

import asyncio
import json
from urllib.parse import unquote

from aiohttp import web

from files import Rows
from ledger import STAGES
from tasks import FAILURES

WAIT_SECONDS = 30


class Control:
    """Answers the requests of tests."""

    def __init__(self, mock):
        self.mock = mock
        self.routes = {
            ("GET", "ledger"): self.get_ledger,
            ("DELETE", "ledger"): self.delete_ledger,
            ("GET", "summary"): self.get_summary,
            ("GET", "wait"): self.wait,
            ("GET", "rules"): self.get_rules,
            ("POST", "rules"): self.post_rule,
            ("DELETE", "rules"): self.delete_rules,
            ("GET", "settings"): self.get_settings,
            ("POST", "settings"): self.post_settings,
            ("GET", "tasks"): self.get_tasks,
            ("POST", "tasks"): self.post_task,
            ("DELETE", "tasks"): self.delete_tasks,
            ("GET", "webhooks"): self.get_webhooks,
            ("POST", "release"): self.release,
            ("DELETE", "connections"): self.delete_connections,
            ("POST", "reset"): self.reset,
        }

    async def handle(self, request):
        """Answer one request; what is wrong with it is a 400."""
        _, _, name, *rest = request.rel_url.raw_path.split("/")
        handler = self.routes.get((request.method, name))
        if not handler:
            return web.json_response({"error": "no such control"}, status=404)
        try:
            text = await request.text()
            body = json.loads(text) if text else {}
            answer = handler(body, dict(request.query), *rest)
            if asyncio.iscoroutine(answer):
                answer = await answer
        except asyncio.TimeoutError:
            return web.json_response({"error": "timed out",
                                      "summary": self.summary()}, status=408)
        except LookupError as error:
            return web.json_response({"error": f"not found: {error}"},
                                     status=404)
        except (ValueError, TypeError, AttributeError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response(answer)

    def summary(self):
        """Return the totals."""
        mock = self.mock
        return {**mock.ledger.summary(), "connections": mock.server.opened,
                "open_connections": mock.server.open_count(),
                "held": len(mock.held),
                "tasks": {status: count for status, count
                          in mock.tasks.counts.items() if count}}

    def get_summary(self, _body, _query):
        return self.summary()

    def get_ledger(self, _body, query):
        return self.mock.ledger.select(query)

    def delete_ledger(self, _body, _query):
        self.mock.reset_ledger()
        return {}

    def reset(self, _body, _query):
        self.mock.reset()
        return {}

    def get_rules(self, _body, _query):
        return [rule.as_json() for rule in self.mock.rules.rules]

    def post_rule(self, body, _query):
        """Append one rule, or each of an array of rules."""
        given = body if isinstance(body, list) else [body]
        added = [self.mock.rules.append(rule).number for rule in given]
        return {"id": added[-1]}

    def delete_rules(self, _body, _query):
        self.mock.rules.clear()
        return {}

    def get_settings(self, _body, _query):
        return dict(self.mock.settings)

    def post_settings(self, body, _query):
        self.mock.settings.change(body)
        return dict(self.mock.settings)

    def get_tasks(self, _body, _query):
        tasks = self.mock.tasks
        return [tasks.view(task) for task in tasks.by_id.values()]

    def delete_tasks(self, _body, _query):
        self.mock.tasks.reset()
        return {}

    def post_task(self, body, _query, *path):
        """Finish, fail or forget one task, or all that are running."""
        tasks = self.mock.tasks
        task_id = unquote("/".join(path))
        if task_id == "all":
            chosen = [task for task in tasks.by_id.values() if not task.done]
        else:
            chosen = [tasks.by_id[task_id]]
        act = {"finish": self.finish, "fail": self.fail,
               "forget": self.forget}[body.get("action", "finish")]
        for task in chosen:
            act(task, body)
        return {"tasks": len(chosen)}

    def finish(self, task, body):
        """End a task well, with the given result if there is one."""
        if "result" in body:
            task.make_result = lambda: body["result"]
            if task.facts and isinstance(body["result"], list):
                task.facts["forced"] = Rows(body["result"])
        self.mock.tasks.finish(task, "completed")

    def fail(self, task, body):
        """End a task badly."""
        status = body.get("status", FAILURES[0])
        if status not in FAILURES:
            raise ValueError(f"no failure is called {status!r}")
        self.mock.tasks.finish(task, status, body.get("error"))

    def forget(self, task, _body):
        self.mock.tasks.forget(task)

    def get_webhooks(self, _body, _query):
        return self.mock.webhooks.deliveries

    def release(self, _body, _query):
        return {"released": self.mock.release()}

    def delete_connections(self, _body, query):
        """End the idle connections, or all of them."""
        return {"ended": self.mock.server.end(query.get("all") != "1")}

    async def wait(self, _body, query):
        """Wait for requests to reach a stage, or for another event."""
        timeout = float(query.pop("timeout", WAIT_SECONDS))
        await asyncio.wait_for(self.waiting_for(query), timeout)
        return self.summary()

    def waiting_for(self, query):
        """Return the awaitable that a wait's query describes."""
        mock = self.mock
        if "count" in query:
            stage = query.get("stage", "received_headers")
            if stage not in STAGES:
                raise ValueError(f"no stage is called {stage!r}")
            return mock.ledger.wait_for(int(query["count"]), stage,
                                        query.get("path", "*"),
                                        int(query.get("after", 0)))
        meters = {"tasks_done": mock.tasks.done_count,
                  "webhooks": lambda: len(mock.webhooks.deliveries),
                  "held": lambda: len(mock.held),
                  "open_connections": mock.server.open_count}
        for name, meter in meters.items():
            if name in query:
                wanted = int(query[name])
                return mock.ledger.wait_until(lambda: meter() >= wanted)
            if name + "_at_most" in query:
                wanted = int(query[name + "_at_most"])
                return mock.ledger.wait_until(lambda: meter() <= wanted)
        raise ValueError("wait for what?")
