"""The enrichment operations, each at once, as a task, and in bulk."""

import typing

import answers
import checks
import profiles
from ledger import fingerprint
from routes import Reply, Route, detail
from tasks import Task


class Operation(typing.NamedTuple):
    """One enrichment: what it takes, answers and costs.

    In bulk, an item is known by its `key`, and `found` is what it adds.
    """

    table: dict
    answer: typing.Callable
    price: typing.Callable
    bulk_table: typing.Optional[dict] = None
    answer_lead: typing.Optional[typing.Callable] = None
    key: str = "name"
    found: tuple = ()
    later: bool = True


def research_price(body):
    """Return the cents of an enrichment at its tier."""
    return answers.ENRICH_CENTS[body.get("tier") or "medium"]


def each_lead(price):
    """Return a price function for bodies with one lead or many."""
    def total(body):
        leads = body["leads"] if "leads" in body else [body["lead"]]
        return sum(price(lead, body) for lead in leads)
    return total


def of_lead(answer_lead, price_lead, table, bulk_table, key, found):
    """Return an operation on one lead, or on many."""
    return Operation(
        table, lambda body, knobs: answer_lead(body["lead"], body, knobs),
        each_lead(price_lead), bulk_table, answer_lead, key,
        found + ("cost_cents",))


def reverse(key, table, bulk_table):
    """Return an operation that tells who has an address or a number."""
    return of_lead(profiles.reverse(key),
                   lambda lead, body: profiles.REVERSE_CENTS[key], table,
                   bulk_table, key, profiles.PROFILE)


OPERATIONS = {
    "enrich-lead": Operation(checks.ENRICH_LEAD, answers.enrich_lead,
                             research_price),
    "enrich-company": Operation(checks.ENRICH_COMPANY,
                                answers.enrich_company, research_price),
    "qa-agent": Operation(checks.QA_AGENT, answers.qa_agent,
                          lambda body: answers.QA_CENTS),
    "research-agent": Operation(checks.RESEARCH_AGENT,
                                profiles.research_agent,
                                lambda body: answers.RESEARCH_CENTS),
    "get-linkedin": Operation(checks.GET_LINKEDIN, profiles.get_linkedin,
                              profiles.linkedin_price, later=False),
    "enrich-linkedin": Operation(checks.ENRICH_LINKEDIN,
                                 profiles.enrich_linkedin,
                                 lambda body: profiles.LINKEDIN_CENTS,
                                 later=False),
    "find-email": of_lead(answers.find_email, answers.email_price,
                          checks.FIND_EMAIL, checks.FIND_EMAIL_BULK, "name",
                          ("email", "personal_email")),
    "find-phone": of_lead(answers.find_phone,
                          lambda lead, body: answers.PHONE_CENTS,
                          checks.FIND_PHONE, checks.FIND_PHONE_BULK, "name",
                          ("phone",)),
    "reverse-email": reverse("email", checks.REVERSE_EMAIL,
                             checks.REVERSE_EMAIL_BULK),
    "reverse-phone": reverse("phone", checks.REVERSE_PHONE,
                             checks.REVERSE_PHONE_BULK),
}
# Operations that differ by their names alone.
OPERATIONS["enrich-company-v2"] = OPERATIONS["enrich-company"]._replace(
    table=checks.ENRICH_COMPANY_V2)
OPERATIONS.update((name, OPERATIONS[same]) for name, same in (
    ("people-intelligence", "enrich-lead"),
    ("company-intelligence", "enrich-company"),
    ("find-email-v2", "find-email"), ("find-phone-v2", "find-phone")))


def bulk_answer(each):
    """Return an answer function for bodies with many leads."""
    return lambda body, knobs: answers.bulk(each.answer_lead, body, knobs,
                                            each.key, each.found)


def questions(name, body):
    """Return fingerprints of what is asked: of the whole, and per lead."""
    aside = ["webhook_url"] + (["search_id"] if name == "deep-search" else [])
    asked = {field: value for field, value in body.items()
             if field not in aside}
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
            if not each.later:
                yield Route("POST", f"/{name}",
                            at_once(each.answer, each.price), each.table,
                            True, name)
                continue
            yield from self.pair(name, name, each.table, each.answer,
                                 each.price)
            if each.bulk_table:
                yield from self.pair(name + "-bulk", name, each.bulk_table,
                                     bulk_answer(each), each.price)
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
