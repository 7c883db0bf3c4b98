"""Org charts: the whole of a company page by page, or the people asked for."""

import checks
import profiles
from ledger import fingerprint
from routes import Reply, Route, invalid

COMPANY = ("company_name", "linkedin_public_id", "linkedin_company_url",
           "company_member_id")
MOST = 50000
FIELDS = ("department", "level", "location", "name", "title")


class Chart:
    """The people of one company."""

    def __init__(self, company, prompt, count):
        self.company = company
        self.rows = profiles.employees(company, prompt, count)


class OrgCharts:
    """The routes of the org charts."""

    def __init__(self, pages):
        self.pages = pages

    def routes(self):
        """Yield all routes."""
        yield Route("POST", "/org-chart/full", self.full,
                    checks.ORG_CHART, True, "org-chart")
        yield Route("POST", "/org-chart/find-people", self.find_people,
                    checks.FIND_PEOPLE, True, "find-people")
        yield Route("GET", "/org-chart/filter-capabilities",
                    self.capabilities)

    def full(self, call):
        """Answer with a page of everybody at a company."""
        body = call.body
        if body.get("cursor") is not None:
            if body.get("page") is not None:
                raise invalid(("cursor",), "A cursor goes without page")
            return self.answer(call, self.pages.following(call))
        chart = Chart(company_of(body), None, call.knobs["search_rows"])
        size = body.get("page_size", 50)
        return self.answer(call, self.pages.first(
            call, chart, (body.get("page", 1) - 1) * size, size,
            body.get("max_results") or MOST))

    def answer(self, call, page):
        """Return a page of people."""
        bound = min(len(page.search.rows), page.most)
        body = {**about(call, page.search.company), "people": page.rows,
                "page": page.start // page.size + 1, "page_size": page.size,
                "total_results": bound, "has_more": page.more,
                "total_pages": -(-bound // page.size),
                "next_cursor": page.cursor}
        return Reply(200, body, price(call, page.rows))

    def find_people(self, call):
        """Answer with the people at a company that a prompt describes."""
        body = call.body
        count = min(call.knobs["search_rows"], body.get("max_results") or MOST)
        company = company_of(body)
        chart = Chart(company, body["people_focus_prompt"], count)
        return Reply(200, {**about(call, company), "people": chart.rows,
                           "total_results": len(chart.rows)},
                     price(call, chart.rows))

    def capabilities(self, _call):
        """Answer what may be filtered by."""
        return Reply(200, {"fields": [{"field": name, "operators": [
            "eq", "in", "contains"]} for name in FIELDS]})


def company_of(body):
    """Return what a body says of the company; refuse if it is nothing."""
    company = {name: body[name] for name in COMPANY
               if body.get(name) is not None}
    if not company:
        raise invalid((), "Provide at least one of: " + ", ".join(COMPANY))
    return company


def about(call, company):
    """Return what both answers tell of the company."""
    shown = {"company": company}
    if call.body.get("include_resolution_debug"):
        shown["resolution_debug"] = {"key": fingerprint(company)[:16]}
    return shown


def price(call, people):
    """Return the cents of so many people."""
    return call.rule.get("charge", profiles.PERSON_CENTS * len(people))
