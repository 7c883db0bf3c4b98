"""The enrichment operations, each at once, as a task, and in bulk."""

import typing

import answers
import checks
from ledger import fingerprint
from routes import Reply, Route, detail
from tasks import Task


class Operation(typing.NamedTuple):
    """One enrichment: what it takes, answers and costs."""

    table: dict
    answer: typing.Callable
    price: typing.Callable
    bulk_table: typing.Optional[dict] = None
    answer_lead: typing.Optional[typing.Callable] = None


def research_price(body):
    """Return the cents of an enrichment at its tier."""
    return answers.ENRICH_CENTS[body.get("tier") or "medium"]


def each_lead(price):
    """Return a price function for bodies with one lead or many."""
    def total(body):
        leads = body["leads"] if "leads" in body else [body["lead"]]
        return sum(price(lead, body) for lead in leads)
    return total


OPERATIONS = {
    "enrich-lead": Operation(checks.ENRICH_LEAD, answers.enrich_lead,
                             research_price),
    "enrich-company": Operation(checks.ENRICH_COMPANY,
                                answers.enrich_company, research_price),
    "qa-agent": Operation(checks.QA_AGENT, answers.qa_agent,
                          lambda body: answers.QA_CENTS),
    "find-email": Operation(
        checks.FIND_EMAIL,
        lambda body, knobs: answers.find_email(body["lead"], body, knobs),
        each_lead(answers.email_price), checks.FIND_EMAIL_BULK,
        answers.find_email),
    "find-phone": Operation(
        checks.FIND_PHONE,
        lambda body, knobs: answers.find_phone(body["lead"], body, knobs),
        each_lead(lambda lead, body: answers.PHONE_CENTS),
        checks.FIND_PHONE_BULK, answers.find_phone),
}


def bulk_answer(answer_lead):
    """Return an answer function for bodies with many leads."""
    return lambda body, knobs: answers.bulk(answer_lead, body, knobs)


def questions(name, body):
    """Return fingerprints of what is asked: of the whole, and per lead."""
    asked = {field: value for field, value in body.items()
             if field != "webhook_url"}
    leads = asked.pop("leads", None)
    if leads is None:
        whole = fingerprint(name, asked)
        return whole, [whole]
    each = [fingerprint(name, {**asked, "lead": lead}) for lead in leads]
    return (fingerprint(name, each) if len(each) > 1 else each[0]), each


class Enrichments:
    """The routes of the enrichments and of their tasks."""

    def __init__(self, tasks):
        self.tasks = tasks

    def routes(self):
        """Yield all routes."""
        yield Route("GET", "/job-status/{}", self.job_status)
        for name, each in OPERATIONS.items():
            yield from self.pair(name, name, each.table, each.answer,
                                 each.price)
            if each.bulk_table:
                yield from self.pair(name + "-bulk", name, each.bulk_table,
                                     bulk_answer(each.answer_lead),
                                     each.price)
        yield Route("POST", "/enrich-dataframe",
                    at_once(answers.dataframe, answers.dataframe_price),
                    checks.ENRICH_DATAFRAME, True, "enrich-dataframe")

    def pair(self, path, name, table, answer, price):
        """Yield the route that answers at once and its asynchronous twin."""
        yield Route("POST", f"/{path}", at_once(answer, price), table, True,
                    name)
        yield Route("POST", f"/{path}-async",
                    self.later(path.replace("-", "_"), answer, price), table,
                    True, name)

    def later(self, kind, answer, price):
        """Return a handler that starts a task."""
        def handler(call):
            cents = call.rule.get("charge", price(call.body))
            body, knobs, rule = call.body, call.knobs, call.rule
            task = self.tasks.start(Task(
                kind, body, lambda: rule.get("result", answer(body, knobs)),
                charge=cents, **call.task_options()))
            return Reply(200, {"task_id": task.id,
                               "status": self.tasks.accepted_word()},
                         cents, task.id)
        return handler

    def job_status(self, call):
        """Answer a poll."""
        task = self.tasks.find(call.params[0])
        if not task:
            raise detail(404, "Job not found")
        return Reply(200, self.tasks.view(task), task_id=task.id)


def at_once(answer, price):
    """Return a handler that answers at once."""
    def handler(call):
        return Reply(200, answer(call.body, call.knobs),
                     call.rule.get("charge", price(call.body)))
    return handler
