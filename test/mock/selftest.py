#!/usr/bin/python3
"""The mock's own tests: each operation, each fault, and a truthful ledger."""

import base64
import csv
import gzip
import hashlib
import hmac
import http.client
import http.server
import io
import json
import os
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from urllib.parse import quote, urlencode, urlsplit

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import rules  # noqa: E402  (the mock's own list of faults)

KEY = "api_selftest"
LEAD = {"name": "Ada Brandt", "company": "Acme"}
EMAIL = {"lead": LEAD}
GRAPH = {"blocks": [
    {"sequence_number": 1, "block_type": "source", "block_name": "webhook",
     "specs": {}, "block_id": "a"},
    {"sequence_number": 2, "block_type": "enrich", "specs": {},
     "block_name": "enrich_company", "block_id": "b"}],
    "edges": [{"from_block_id": "a", "to_block_id": "b"}]}


def start(*options, **popen):
    """Start a mock; return its process and its address."""
    child = subprocess.Popen(
        [sys.executable, "-B", os.path.join(HERE, "mock.py"),
         "--die-with-parent", *options], stdout=subprocess.PIPE, text=True,
        **popen)
    return child, child.stdout.readline().strip()


def stop(child):
    """End a mock and return its exit status."""
    child.send_signal(signal.SIGTERM)
    child.stdout.close()
    return child.wait(10)


class Receiver(http.server.BaseHTTPRequestHandler):
    """Takes webhooks; refuses as many as its server says."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.headers, body))
        refuse = len(self.server.seen) <= self.server.refusals
        self.send_response(500 if refuse else 200)
        self.end_headers()

    def log_message(self, *_args):
        """Say nothing."""


class MockTest(unittest.TestCase):
    """A test with one mock for its class, reset for each test."""

    options = ()

    @classmethod
    def setUpClass(cls):
        cls.child, cls.url = start("--task-seconds", "0.01", *cls.options)
        cls.port = urlsplit(cls.url).port

    @classmethod
    def tearDownClass(cls):
        assert stop(cls.child) == 0

    def setUp(self):
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port,
                                                     timeout=10)
        self.addCleanup(self.connection.close)
        self.control("POST", "reset")
        self.control("DELETE", "connections?all=1")

    def raw(self, method, path, body=None, headers=None, connection=None):
        """Send a request as it is; return status, headers and body."""
        connection = connection or self.connection
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()

    def call(self, method, path, body=None, expect=200, **headers):
        """Make a request of the service side; return the JSON answer."""
        headers = {"x-api-key": KEY, **headers}
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
            body = json.dumps(body)
        status, _, text = self.raw(method, path, body, headers)
        self.assertEqual(status, expect, text)
        return json.loads(text) if text else None

    def post(self, path, body, expect=200, **headers):
        return self.call("POST", path, body, expect, **headers)

    def get(self, path, expect=200):
        return self.call("GET", path, None, expect)

    def control(self, method, path, body=None, expect=200):
        """Make a request of the control side."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port,
                                                timeout=40)
        status, _, text = self.raw(method, "/_mock/" + path,
                                   None if body is None else json.dumps(body),
                                   connection=connection)
        connection.close()
        self.assertEqual(status, expect, text)
        return json.loads(text)

    def rule(self, **rule):
        return self.control("POST", "rules", rule)["id"]

    def set(self, **settings):
        self.control("POST", "settings", settings)

    def summary(self):
        return self.control("GET", "summary")

    def ledger(self, **criteria):
        return self.control("GET", "ledger?" + urlencode(criteria))

    def result(self, path, body):
        """Submit a task, wait for its end, and return its poll's answer."""
        task = self.post(path, body)
        self.assertEqual(task["status"], "RUNNING")
        done = self.summary()["tasks"].get("completed", 0) + 1
        if not self.get("/job-status/" + task["task_id"])["close_time"]:
            self.control("GET", f"wait?tasks_done={done}&timeout=5")
        return self.get("/job-status/" + task["task_id"])

    def raw_post(self):
        """Ask for an address; return status, headers and body."""
        return self.raw("POST", "/find-email", json.dumps(EMAIL),
                        {"x-api-key": KEY,
                         "Content-Type": "application/json"})

    def broken(self, expected=(http.client.HTTPException, OSError)):
        """Make a request that gets no whole answer."""
        with self.assertRaises(expected):
            json.loads(self.raw_post()[2])
        self.connection.close()


class EnrichmentTest(MockTest):
    """The enrichments, at once, as tasks and in bulk."""

    def test_find_email(self):
        self.set(found="all", email_shape="3")
        answer = self.post("/find-email", EMAIL)
        self.assertEqual(answer["email"][0][0], "ada.brandt@acme.example")
        self.assertEqual(answer["email"][0][2], "COMPANY")
        self.assertEqual((answer["name"], answer["cost_cents"]),
                         ("Ada Brandt", 5))
        site = {"name": "Søren O'Connor", "website": "https://www.a.test/x"}
        answer = self.post("/find-email", {"lead": site, "mode": "PERSONAL"})
        self.assertEqual(answer["email"][0][0], "soren.oconnor@a.test")
        self.assertIn("personal_email", answer)
        self.assertEqual(answer["cost_cents"], 20)

    def test_known_email_is_free(self):
        lead = {**LEAD, "email": "ada@acme.test"}
        answer = self.post("/find-email", {"lead": lead})
        self.assertEqual(answer, {**lead, "cost_cents": 0})
        self.assertEqual(self.summary()["billed_cents"], 0)

    def test_not_found(self):
        answer = self.post("/find-email", {"lead": {"name": "Nobody Known"}})
        self.assertIn(answer["email"], ([], [["", "NOT_FOUND", "COMPANY"]]))
        self.set(found="none")
        self.assertEqual(self.post("/find-phone", EMAIL)["phone"], "")

    def test_find_phone(self):
        self.set(found="all", phone_shape="text")
        self.assertRegex(self.post("/find-phone", EMAIL)["phone"],
                         r"^\+1 555-\d{3}-\d{4}$")
        self.rule(phone_shape="list")
        answer = self.post("/find-phone", EMAIL)
        self.assertEqual(answer["phone"][0]["region"], "US")
        self.assertEqual(answer["cost_cents"], 30)
        self.post("/find-phone", {**EMAIL, "mode": "PERSONAL"}, 422)

    def test_enrich_lead(self):
        self.set(quirks="none", found="all")
        kinds = {"str": str, "int": int, "float": float, "bool": bool,
                 "list": list, "list[str]": list, "list[int]": list,
                 "list[float]": list, "dict": dict}
        struct = {f"f{number}": {"description": "d", "type": kind}
                  for number, kind in enumerate(kinds)}
        body = {"lead_info": LEAD, "struct": {**struct, "title": "Their job"},
                "field_confidence": True, "tier": "low"}
        answer = self.post("/enrich-lead", body)
        for number, kind in enumerate(kinds.values()):
            self.assertIs(type(answer["structured_data"][f"f{number}"]), kind)
        self.assertIsInstance(answer["structured_data"]["title"], str)
        self.assertEqual(answer["findings"], [])
        self.assertEqual(set(answer["field_confidence"]),
                         set(answer["structured_data"]))
        self.assertEqual(answer, self.post("/enrich-lead", body))
        self.assertEqual(self.summary()["billed_cents"], 200)
        self.set(quirks="all")
        data = self.post("/enrich-lead", body)["structured_data"]
        self.assertIsInstance(json.loads(data["f8"]), dict)
        self.assertIsInstance(data["f1"], str)

    def test_enrich_company(self):
        body = {"target_company": {"company_name": "Acme"},
                "struct": {"num_employees": "How many"}, "find_people": True,
                "lead_struct": {"name": "Full name", "age": {
                    "description": "d", "type": "int"}}}
        self.set(quirks="none", found="all")
        data = self.post("/enrich-company", body)["structured_data"]
        self.assertIsInstance(data["num_employees"], int)
        self.assertEqual(set(data["leads"][0]), {"name", "age", "score"})
        self.assertIsInstance(data["leads"][0]["score"], float)
        self.set(quirks="all")
        data = self.post("/enrich-company", body)["structured_data"]
        self.assertIsInstance(data["leads"][0]["score"], str)

    def test_qa_agent(self):
        body = {"data": LEAD, "qualification_criteria": [
            {"criteria_name": "fit", "description": "d", "weight": 1.5,
             "threshold": 0.5}], "references": [
            {"url": "https://a.test", "description": "d"}]}
        answer = self.post("/qa-agent", body)
        self.assertIn(answer["structured_data"]["final_verdict"],
                      ("YES", "NO"))
        poll = self.result("/qa-agent-async", body)
        self.assertEqual(poll["result"], answer)

    def test_dataframe(self):
        self.set(found="all")
        answer = self.post("/enrich-dataframe", {
            "csv_data": "name,company\n\"Doe, Jane\",Acme\n",
            "enrichment_type": "phone"})
        rows = list(csv.DictReader(io.StringIO(answer["csv_data"])))
        self.assertEqual(rows[0]["name"], "Doe, Jane")
        self.assertTrue(rows[0]["phone"].startswith("+1 555-"))

    def test_task(self):
        poll = self.result("/find-email-async", EMAIL)
        self.assertEqual((poll["status"], poll["task_type"],
                          poll["charge_amount"]),
                         ("completed", "find_email", 5))
        self.assertNotIn("task_id", poll)
        self.assertEqual(poll["result"], self.post("/find-email", EMAIL))
        self.get("/job-status/unknown", 404)

    def test_task_by_hand(self):
        self.set(task_seconds=None, task_ids="odd")
        task = self.post("/find-email-async", EMAIL)["task_id"]
        path = quote(task, safe="")
        self.assertIn("/", task)
        self.assertEqual(self.get("/job-status/" + path)["status"], "RUNNING")
        self.control("POST", "tasks/" + path, {"result": {"x": 1}})
        poll = self.get("/job-status/" + path)
        self.assertEqual(poll["result"], {"x": 1})
        self.control("POST", "tasks/" + path, {"action": "forget"})
        self.get("/job-status/" + path, 404)

    def test_failed_task(self):
        self.set(status_style="documented")
        self.rule(task_result="timed_out", error="took too long")
        task = self.post("/enrich-lead-async", {"lead_info": LEAD})
        self.assertEqual(task["status"], "pending")
        self.control("GET", "wait?tasks_done=1")
        poll = self.get("/job-status/" + task["task_id"])
        self.assertEqual((poll["task_id"], poll["status"], poll["error"]),
                         (task["task_id"], "timed_out", "took too long"))
        self.assertEqual(self.summary()["billed_cents"], 0)
        self.control("DELETE", "rules")
        self.set(task_seconds=None)
        task = self.post("/enrich-lead-async", {"lead_info": LEAD})
        self.control("POST", "tasks/all", {"action": "fail", "error": "no"})
        poll = self.get("/job-status/" + task["task_id"])
        self.assertEqual((poll["status"], poll["error"]), ("failed", "no"))

    def test_bulk(self):
        leads = [{"name": f"Person Number{n}", "company": "Acme"}
                 for n in range(100)]
        answer = self.post("/find-email-bulk", {"leads": leads})
        self.assertEqual([item["name"] for item in answer],
                         [lead["name"] for lead in leads])
        self.post("/find-email-bulk", {"leads": leads + leads[:1]}, 422)
        self.post("/find-phone-bulk-async", {"leads": []}, 422)
        for shape in ("results", "leads", "data"):
            self.set(bulk_shape=shape)
            poll = self.result("/find-phone-bulk-async", {"leads": leads})
            self.assertEqual(len(poll["result"][shape]), 100)
            self.assertEqual(poll["charge_amount"], 3000)
        self.set(bulk_shape="array", bulk_shuffle=True, bulk_missing=2,
                 bulk_unmatched=3)
        answer = self.post("/find-email-bulk", {"leads": leads})
        asked = [lead["name"] for lead in leads]
        names = [item["name"] for item in answer]
        known = [name for name in names if name in asked]
        self.assertEqual((len(names), len(known)), (98, 95))
        self.assertNotEqual(known, sorted(known, key=asked.index))
        self.set(bulk_echo=False)
        answer = self.post("/find-email-bulk", {"leads": leads})
        self.assertEqual(set(answer[0]), {"email", "cost_cents"})


class ProfileTest(MockTest):
    """Reverse look-ups, LinkedIn, research, org charts, and variants."""

    def test_reverse(self):
        self.set(found="all", quirks="none")
        for key, value, cents in (("email", "ada@acme.test", 10),
                                  ("phone", "+1 555-0101", 30)):
            lead = {key: value, "ref": 7}
            path = "/reverse-" + key
            answer = self.post(path, {"lead": lead})
            self.assertEqual({**answer, **lead, "cost_cents": cents}, answer)
            self.assertEqual(set(answer), {key, "ref", "name", "company",
                                           "title", "linkedin", "cost_cents"})
            self.assertTrue(answer["name"])
            poll = self.result(path + "-async", {"lead": lead})
            self.assertEqual((poll["result"], poll["task_type"]),
                             (answer, "reverse_" + key))
            leads = [lead, {key: value.replace("01", "00").replace(
                "ada", "nobody")}]
            found = self.post(path + "-bulk", {"leads": leads})
            self.assertEqual(found[0], answer)
            poll = self.result(path + "-bulk-async", {"leads": leads})
            self.assertEqual((poll["result"], poll["charge_amount"]),
                             (found, 2 * cents))
            self.post(path, {"lead": {"name": "x"}}, 422)
            self.post(path, {"lead": {key: ""}}, 422)
            self.post(path + "-bulk", {"leads": [lead, {"ref": 1}]}, 422)
            self.post(path, {"lead": lead, "mode": "PERSONAL"}, 422)
        self.assertEqual(self.summary()["billed_cents"],
                         10 + 10 + 20 + 20 + 30 + 30 + 60 + 60)

    def test_reverse_not_found(self):
        for path, lead in (("/reverse-email", {"email": "nobody@a.test"}),
                           ("/reverse-phone", {"phone": "+1 555 0000"})):
            answer = self.post(path, {"lead": lead})
            self.assertEqual([answer[name] for name in (
                "name", "company", "title", "linkedin")], [""] * 4)

    def test_reverse_bulk_knobs(self):
        leads = [{"email": f"p{number}@a.test"} for number in range(9)]
        self.set(bulk_unmatched=2, bulk_missing=3)
        items = self.post("/reverse-email-bulk", {"leads": leads})
        asked = [lead["email"] for lead in leads]
        self.assertEqual([item["email"] in asked for item in items],
                         [False, False, True, True, True, True])
        self.set(bulk_echo=False)
        items = self.post("/reverse-email-bulk", {"leads": leads})
        self.assertNotIn("email", items[0])
        self.assertIn("linkedin", items[0])

    def test_linkedin(self):
        self.set(found="all", quirks="none")
        url = "https://www.linkedin.com/in/ada-brandt"
        answer = self.post("/get-linkedin", {"linkedin_url": url})
        self.assertEqual((answer["name"], answer["cost_cents"]),
                         ("Ada Brandt", 5))
        answer = self.post("/get-linkedin", {"linkedin_url": url,
                                             "include_fresh": True})
        self.assertEqual((answer["fresh"], answer["cost_cents"]), (True, 10))
        answer = self.post("/enrich-linkedin", {
            "linkedin_url": url, "struct": {"title": "Their job"},
            "model_override": "m"})
        self.assertEqual(list(answer["structured_data"]), ["title"])
        self.post("/enrich-linkedin", {}, 422)
        self.post("/get-linkedin-async", {"linkedin_url": url}, 404)
        answer = self.post("/get-linkedin", {
            "linkedin_url": "https://www.linkedin.com/in/nobody-here"})
        self.assertEqual(answer["name"], "")
        self.assertEqual(self.summary()["billed_cents"], 5 + 10 + 5 + 5)

    def test_intelligence(self):
        person = {"lead_info": LEAD}
        company = {"target_company": {"name": "A"}, "struct": {"a": "b"}}
        for old, new, body in (
                ("enrich-lead", "people-intelligence", person),
                ("enrich-company", "company-intelligence", company),
                ("enrich-company", "enrich-company-v2", company)):
            answer = self.post("/" + old, body)
            self.assertEqual(self.post("/" + new, body), answer)
            poll = self.result(f"/{new}-async", body)
            self.assertEqual((poll["result"], poll["task_type"]),
                             (answer, new.replace("-", "_")))
        self.assertEqual(self.post("/find-email-v2", EMAIL),
                         self.post("/find-email", EMAIL))
        self.assertEqual(len(self.post("/find-phone-v2-bulk",
                                       {"leads": [LEAD, LEAD]})), 2)
        self.post("/company-intelligence", {"target_company": {"a": 1}}, 422)
        self.post("/enrich-company-v2", {**company, "field_confidence": True},
                  422)

    def test_research_agent(self):
        self.set(found="all", quirks="none")
        body = {"input_data": {"topic": "glass"}, "research_plan": "look",
                "max_iterations": 2, "benchmark": False,
                "struct": {"num_makers": "How many"}}
        answer = self.post("/research-agent", body)
        self.assertIsInstance(answer["structured_data"]["num_makers"], int)
        self.assertEqual(self.result("/research-agent-async", body)["result"],
                         answer)
        self.post("/research-agent", {"input_data": {"a": 1}})
        for wrong in ({}, {"input_data": "x"}, {**body, "tier": "low"},
                      {**body, "max_iterations": "2"}):
            self.post("/research-agent", wrong, 422)

    def test_org_chart(self):
        self.set(search_rows=7)
        body = {"company_name": "Acme", "page_size": 3}
        first = self.post("/org-chart/full", body)
        self.assertEqual((len(first["people"]), first["has_more"],
                          first["total_results"]), (3, True, 7))
        second = self.post("/org-chart/full", {**body, "page": 2})
        by_cursor = self.post("/org-chart/full",
                              {"cursor": first["next_cursor"]})
        self.assertEqual(by_cursor["people"], second["people"])
        last = self.post("/org-chart/full", {"company_name": "Acme", "page": 2,
                                             "page_size": 3, "max_results": 5})
        self.assertEqual((len(last["people"]), last["has_more"],
                          last["next_cursor"]), (2, False, None))
        self.post("/org-chart/full", {"page_size": 3}, 422)
        self.post("/org-chart/full", {**body, "page_size": 501}, 422)
        found = self.post("/org-chart/find-people", {
            "linkedin_public_id": "acme", "max_results": 2,
            "people_focus_prompt": "engineers",
            "include_resolution_debug": True})
        self.assertEqual(len(found["people"]), 2)
        self.assertIn("resolution_debug", found)
        self.post("/org-chart/find-people", {"company_name": "A"}, 422)
        self.assertTrue(self.get("/org-chart/filter-capabilities")["fields"])
        self.assertEqual(self.summary()["billed_cents"], 3 + 3 + 3 + 2 + 2)


class PageTest(MockTest):
    """Filter searches, their pages, and exports."""

    QUERY = {"query": "glass makers", "mode": "people"}

    def ask(self, expect=200, **body):
        return self.post("/search/query", body, expect)

    def walk(self, page):
        """Follow the cursors; return all pages."""
        pages = [page]
        while page["has_more"]:
            page = self.ask(cursor=page["next_cursor"])
            pages.append(page)
        return pages

    def test_pages(self):
        pages = self.walk(self.ask(**self.QUERY))
        self.assertEqual([page["page_count"] for page in pages], [10, 10, 5])
        self.assertEqual([page["page_number"] for page in pages], [1, 2, 3])
        self.assertEqual([page["total_results"] for page in pages],
                         [10, 20, 25])
        self.assertEqual([page["remaining_results"] for page in pages],
                         [15, 5, 0])
        self.assertEqual([page.get("total_pages") for page in pages],
                         [None, None, 3])
        last = pages[-1]
        self.assertEqual((last["next_cursor"], last["total_available"],
                          last["natural_language_query"]),
                         (None, 25, "glass makers"))
        self.assertEqual({page["search_id"] for page in pages},
                         {last["search_id"]})
        rows = [row for page in pages for row in page["results"]]
        self.assertEqual(len({row["linkedin_url"] for row in rows}), 25)
        self.assertEqual(self.summary()["billed_cents"], 25)
        url = urlsplit(last["csv_download_url"])
        text = self.raw("GET", url.path + "?" + url.query)[2].decode()
        self.assertEqual([row["name"] for row
                          in csv.DictReader(io.StringIO(text))],
                         [row["name"] for row in rows])
        again = self.ask(search_id=last["search_id"], page_size=100)
        self.assertEqual(again["results"], rows)
        again = self.ask(parsed_query=last["parsed_query"], mode="people",
                         page_size=100)
        self.assertEqual(again["results"], rows)
        without = rows[0]["linkedin_url"].rpartition("/")[2]
        again = self.ask(**self.QUERY, exclude_public_ids=[without],
                         page_size=100)
        self.assertEqual(again["results"], rows[1:])

    def test_max_results(self):
        pages = self.walk(self.ask(simple_filters={"location": "Oslo"},
                                   max_results=12, page_size=5))
        self.assertEqual([page["page_count"] for page in pages], [5, 5, 2])
        self.assertIsNone(pages[-1]["total_available"])
        self.assertEqual(pages[0]["max_pages"], 3)

    def test_sources(self):
        for wrong in ({}, {"mode": "people"}, {**self.QUERY, "filters": {
                "a": 1}}, {"query": "x"}, {"filters": {}}, {"query": ""},
                {"filters": {"a": 1}, "page_size": 101},
                {"filters": {"a": 1}, "max_results": 0},
                {"filters": {"a": 1}, "save_json": True},
                {"filters": {"a": 1}, "exclude_public_ids": ["x"]},
                {**self.QUERY, "location_expansion_radius_miles": 4}):
            self.ask(422, **wrong)
        self.ask(404, search_id="unknown")
        cursor = self.ask(**self.QUERY)["next_cursor"]
        self.ask(422, **self.QUERY, cursor=cursor)
        self.ask(400, cursor="unknown")
        self.post("/search/start-filter-search", {"cursor": cursor}, 400)
        self.post("/search/query?user_id=u", {"cursor": cursor})
        self.post("/search/query?user=u", {"cursor": cursor}, 422)

    def test_start_filter_search(self):
        path = "/search/start-filter-search"
        page = self.post(path, {"filters": {"term": {"a": 1}}, "mode":
                                "people", "save_json": True, "page_size": 20})
        url = urlsplit(page["json_download_url"])
        _, headers, text = self.raw("GET", url.path + "?" + url.query)
        self.assertEqual(headers["Content-Type"], "application/json")
        self.assertEqual(json.loads(text)[:20], page["results"])
        last = self.post(path, {"cursor": page["next_cursor"]})
        self.assertEqual((last["page_count"], last["has_more"]), (5, False))
        self.post(path, {"query": "x", "mode": "people"}, 422)
        self.post(path, {}, 422)

    def test_cursor_life(self):
        page = self.ask(**self.QUERY)
        self.assertEqual(page["cursor_expires_in_seconds"], 900)
        first = self.ask(cursor=page["next_cursor"])
        self.assertEqual(self.ask(cursor=page["next_cursor"])["results"],
                         first["results"])
        self.set(cursor_seconds=-1)
        cursor = self.ask(**self.QUERY)["next_cursor"]
        self.ask(400, cursor=cursor)
        self.set(cursor_status=404)
        self.ask(404, cursor=cursor)

    def test_empty_page(self):
        self.rule(match={"path": "/search/query"}, skip=1, times=1,
                  page_trouble="empty")
        pages = self.walk(self.ask(**self.QUERY))
        self.assertEqual([page["page_count"] for page in pages],
                         [10, 0, 10, 5])
        self.assertEqual([page["has_more"] for page in pages],
                         [True, True, True, False])
        self.assertEqual(len({page["next_cursor"] for page in pages}), 4)

    def test_same_cursor(self):
        self.set(page_trouble="same_cursor")
        cursor = self.ask(**self.QUERY)["next_cursor"]
        for _ in range(3):
            page = self.ask(cursor=cursor)
            self.assertEqual((page["next_cursor"], page["has_more"],
                              page["page_number"]), (cursor, True, 2))

    def test_lost_and_expired_cursor(self):
        self.rule(page_trouble="no_cursor", times=1)
        page = self.ask(**self.QUERY)
        self.assertEqual((page["has_more"], page["next_cursor"]), (True, None))
        self.rule(page_trouble="expired_cursor")
        self.ask(400, cursor=self.ask(**self.QUERY)["next_cursor"])

    def test_fields(self):
        self.set(search_rows=40)
        people = self.get("/search/filter-capabilities?mode=people")
        names = [field["field"] for field in people["fields"]]
        self.assertEqual(names, sorted(names))
        self.assertIn("title", names)
        self.get("/search/filter-capabilities?mode=x", 422)
        self.get("/search/filter-capabilities?refresh=maybe", 422)
        values = self.post("/search/filter-field-values", {
            "field": "title", "mode": "people", "top_k": 3})["values"]
        counts = [value["count"] for value in values]
        self.assertEqual((len(counts), counts),
                         (3, sorted(counts, reverse=True)))
        self.post("/search/filter-field-values", {"field": "x"}, 400)
        self.post("/search/filter-field-values", {"field": "score",
                                                  "top_k": 0}, 422)

    def test_export(self):
        page = self.ask(**self.QUERY)
        for source in ({"search_id": page["search_id"]}, {
                "parsed_query": page["parsed_query"], "mode": "people"}):
            self.control("DELETE", "tasks")
            task = self.post("/search/export", {**source, "max_results": 4})
            self.control("GET", "wait?tasks_done=1")
            status = self.get("/search/status/" + task["task_id"])
            self.assertEqual((status["status"], status["exported_count"]),
                             ("completed", 4))
            answer = self.get("/search/download?resource_handle_id="
                              + status["resource_handle_id"])
            url = urlsplit(answer["url"])
            text = self.raw("GET", url.path + "?" + url.query)[2].decode()
            self.assertEqual([row["name"] for row
                              in csv.DictReader(io.StringIO(text))],
                             [row["name"] for row in page["results"][:4]])
        self.post("/search/export", {}, 422)
        self.post("/search/export", {"search_id": "x"}, 404)
        self.post("/search/export", {"search_id": page["search_id"],
                                     "parsed_query": {"a": 1}}, 422)


class FileTest(MockTest):
    """Results as files: large, ugly, expired and cut."""

    def search(self, **rule):
        """Make a search whose result a rule gives; return its status."""
        self.control("POST", "reset")
        if rule:
            self.rule(match={"path": "/search/start-deep-search"}, **rule)
        task = self.post("/search/start-deep-search", {"query": "x"})
        self.control("GET", "wait?tasks_done=1")
        return self.get("/search/status/" + task["task_id"])

    def path(self, status):
        """Return the signed path of a search's file."""
        url = urlsplit(self.get(
            "/search/download?resource_handle_id="
            + status["resource_handle_id"])["url"])
        return url.path + "?" + url.query

    def test_many_rows(self):
        for count in (0, 1, 59, 60, 61, 1234):
            status = self.search(result_rows=count)
            self.assertEqual(status["total_results"], count)
            _, headers, text = self.raw("GET", self.path(status))
            self.assertEqual(headers["Content-Type"], "text/csv")
            self.assertEqual(headers["Content-Length"], str(len(text)))
            rows = list(csv.DictReader(io.StringIO(text.decode())))
            self.assertEqual([row["row_number"] for row in rows],
                             [str(number + 1) for number in range(count)])
            self.assertLessEqual(len(set(map(len, rows))), 1)

    def test_raw_csv(self):
        text = '\ufeffa,b\r\n"x\n""y""",2,3\r\nshort\r\n"never ended'
        status = self.search(result_csv=text)
        self.assertEqual(self.raw("GET", self.path(status))[2],
                         text.encode())
        self.assertEqual(status["total_results"], 3)

    def test_expired_address(self):
        status = self.search()
        self.rule(match={"path": "/files/*"}, times=2,
                  fault="expired_address")
        path = self.path(status)
        got = [self.raw("GET", path) for _ in range(3)]
        self.assertEqual([code for code, _, _ in got], [403, 403, 200])
        self.assertIn(b"Request has expired", got[0][2])
        self.rule(match={"path": "/search/download"}, times=1,
                  download_seconds=-1)
        codes = [self.raw("GET", self.path(status))[0] for _ in range(2)]
        self.assertEqual(codes, [403, 200])

    def test_cut_in_the_middle(self):
        path = self.path(self.search(result_rows=5000))
        self.rule(match={"path": "/files/*"}, fault="cut", times=1)
        with self.assertRaises(http.client.IncompleteRead) as caught:
            self.raw("GET", path)
        self.connection.close()
        error = caught.exception
        self.assertEqual(len(error.partial),
                         (len(error.partial) + error.expected) // 2)
        self.rule(match={"path": "/files/*"}, fault="wrong_content_length",
                  times=1)
        half = self.raw("GET", path)[2]
        self.connection.close()
        self.assertTrue(self.raw("GET", path)[2].startswith(half))
        self.assertEqual([entry["reply_completed"] for entry
                          in self.ledger(path="/files/*")],
                         [False, False, True])

    def test_abandoned(self):
        path = self.path(self.search(result_rows=10000000))
        self.connection.request("GET", path)
        self.connection.getresponse().read(1000)
        self.connection.close()
        self.control("GET", "wait?count=1&stage=left&path=/files/*&timeout=5")

    def test_failed_search(self):
        status = self.search(task_result="failed", error="no luck")
        self.assertEqual((status["status"], status["error"],
                          status["resource_handle_id"]),
                         ("failed", "no luck", None))
        self.get("/search/download?resource_handle_id=rh-"
                 + status["task_id"], 404)
        self.get("/search/download", 422)
        self.assertEqual(self.summary()["billed_cents"], 0)

    def test_query_only(self):
        task = self.post("/search/start-deep-search", {
            "query": "x", "output_mode": "query_only"})
        self.control("GET", "wait?tasks_done=1")
        status = self.get("/search/status/" + task["task_id"])
        self.assertIsNone(status["resource_handle_id"])
        page = self.post("/search/query", {"search_id": status["search_id"]})
        self.assertEqual((page["natural_language_query"],
                          page["page_count"]), ("x", 10))


class AccountTest(MockTest):
    """What the key has used."""

    def test_usage(self):
        self.post("/find-email", EMAIL)
        self.post("/find-email", EMAIL, **{"x-api-key": "another"})
        self.post("/find-phone", {}, 422)
        usage = self.get("/api/usage?time_window=60")
        self.assertEqual(usage, {
            "time_window": 60, "total_requests": 2, "total_cost_cents": 5,
            "requests_by_endpoint": {"/find-email": 1, "/find-phone": 1}})
        self.assertEqual(self.get("/api/usage")["time_window"], 3600)
        self.get("/api/usage?time_window=x", 422)
        self.get("/api/usage?window=1", 422)


class OpenApiTest(unittest.TestCase):
    """The command that compares requests with an OpenAPI document."""

    LEAD = {"type": "object", "required": ["lead"], "properties": {
        "lead": {"type": "object", "additionalProperties": True},
        "mode": {"type": "string", "enum": ["A", "B"]},
        "few": {"type": "array", "items": {"type": "integer"},
                "maxItems": 2},
        "url": {"anyOf": [{"type": "string", "minLength": 1,
                           "maxLength": 9}, {"type": "null"}]}}}
    DOCUMENT = {
        "paths": {
            "/find": {"post": {"requestBody": {
                "required": True, "content": {"application/json": {
                    "schema": {"$ref": "#/components/schemas/Lead"}}}}}},
            "/runs": {"get": {"parameters": [
                {"name": "limit", "in": "query", "required": True,
                 "schema": {"type": "integer", "maximum": 5}},
                {"name": "key", "in": "header", "schema": {}}]}},
            "/runs/{id}": {"get": {}},
            "/enrich-lead": {"post": {"requestBody": {"content": {
                "application/json": {"schema": {
                    "type": "object", "properties": {
                        "tier": {"enum": ["low"]}}}}}}}}},
        "components": {"schemas": {"Lead": LEAD}}}
    CRITERIA = (
        ("POST", "/find", {}, {"lead": {"any": 1}, "mode": "A", "few": [1],
                               "url": None}, None),
        ("POST", "/find", {}, None, "body: missing"),
        ("POST", "/find", {}, {"mode": "A"}, "body: lead is missing"),
        ("POST", "/find", {}, {"lead": 1}, "body.lead: 1 is no object"),
        ("POST", "/find", {}, {"lead": {}, "mode": "C"},
         'body.mode: "C" is not one of "A", "B"'),
        ("POST", "/find", {}, {"lead": {}, "few": [True]},
         "body.few[0]: true is no integer"),
        ("POST", "/find", {}, {"lead": {}, "few": [1, 2, 3]},
         "body.few: [1, 2, 3] breaks maxItems 2"),
        ("POST", "/find", {}, {"lead": {}, "url": "0123456789"},
         'body.url: "0123456789" breaks maxLength 9'),
        ("POST", "/find", {}, {"lead": {}, "more": 1},
         "body: more is not known"),
        ("POST", "/find", {"q": "1"}, {"lead": {}},
         "query: q is not known"),
        ("GET", "/find", {}, None, "no such operation"),
        ("GET", "/runs", {"limit": "5"}, None, None),
        ("GET", "/runs", {"limit": "6"}, None,
         "query.limit: 6 breaks maximum 5"),
        ("GET", "/runs", {"limit": "x"}, None,
         'query.limit: "x" is no integer'),
        ("GET", "/runs", {}, None, "query: limit is missing"),
        ("GET", "/runs/7", {}, None, None),
        ("GET", "/runs/7", {}, {"a": 1}, "body: none is expected"),
        ("GET", "/files/a/b", {"expires": "1"}, None, None),
        ("DELETE", "/workflows/7", {}, None, None),
        ("POST", "/enrich-dataframe", {}, {"csv_data": "a"},
         "body: enrichment_type is missing"),
        ("POST", "/enrich-lead", {}, {"tier": "micro"}, None),
        ("POST", "/enrich-lead", {}, {"tier": "best"},
         'body.tier: "best" is not one of "micro", "low", "medium", "high", '
         '"xhigh", null'))

    def compare(self, given):
        """Run the command; return its status and its lines."""
        with tempfile.TemporaryDirectory() as folder:
            name = os.path.join(folder, "document.json")
            with open(name, "w", encoding="utf-8") as out:
                json.dump(self.DOCUMENT, out)
            child = subprocess.run(
                [sys.executable, "-B", os.path.join(HERE, "openapi.py"),
                 name], input=json.dumps(given), stdout=subprocess.PIPE,
                text=True)
        return child.returncode, child.stdout.splitlines()

    def test_requests(self):
        requests = [
            {"seq": number, "method": method, "path": path, "query": query,
             "body": body} for number, (method, path, query, body, _)
            in enumerate(self.CRITERIA)]
        wanted = [f"fault: {method} {path} (request {number}): {fault}"
                  for number, (method, path, _, _, fault)
                  in enumerate(self.CRITERIA) if fault]
        status, lines = self.compare({"requests": requests, "endpoints": []})
        self.assertEqual(lines, wanted + [f"{len(wanted)} faults"])
        self.assertEqual(status, 1)

    def test_endpoints(self):
        status, lines = self.compare({"endpoints": [
            {"operation": "find", "method": "POST", "path": "/find",
             "async_path": None},
            {"operation": "run", "method": "GET",
             "path": "/runs/{run_id}?x={y}"},
            {"operation": "delete", "method": "DELETE",
             "path": "/workflows/{flow}", "bulk_path": "/gone"}]})
        self.assertEqual((status, lines), (1, [
            "fault: endpoint delete: no DELETE /gone",
            "note: not in the table: GET /runs",
            "note: not in the table: POST /enrich-lead", "1 faults"]))
        status, lines = self.compare({"requests": []})
        self.assertEqual((status, lines), (0, ["0 faults"]))


class RequestTest(MockTest):
    """What the service refuses."""

    options = ("--keys", KEY + ",other")

    def test_keys(self):
        body = json.dumps(EMAIL)
        for headers in ({}, {"x-api-key": "wrong"}):
            status, _, text = self.raw("POST", "/find-email", body, {
                "Content-Type": "application/json", **headers})
            self.assertEqual(status, 401)
            self.assertEqual(json.loads(text)["error"], "Unauthorized")
        digest = hashlib.sha256(b"wrong").hexdigest()
        self.assertEqual([entry["key_sha256"] for entry in self.ledger()],
                         [None, digest])
        self.assertNotIn("wrong", json.dumps(self.ledger()))

    def test_bodies(self):
        for body in (b'{"lead":', b"[]", b'{"lead":{"a":NaN}}', b"\xff",
                     b'{"lead":{},"lead":{}}', b'{"lead":{"a":"\\ud800"}}'):
            status, _, _ = self.raw("POST", "/find-email", body, {
                "x-api-key": KEY, "Content-Type": "application/json"})
            self.assertEqual(status, 400, body)
        self.post("/find-email", EMAIL, 400, **{"Content-Type": "text/plain"})
        self.call("POST", "/find-email", None, 400)
        self.get("/find-email", 405)
        self.get("/no-such-thing", 404)
        self.assertEqual(self.summary()["accepted"], 0)

    def test_fields(self):
        company = {"target_company": {"name": "A"}, "struct": {"a": "b"}}
        lead = {"lead_info": LEAD, "struct": {"a": "b"}}
        wrong = (
            ("/find-email", {}, ["lead"], "missing"),
            ("/find-email", {"lead": "x"}, ["lead"], "dict_type"),
            ("/find-email", {**EMAIL, "mode": "X"}, ["mode"], "enum"),
            ("/find-email", {**EMAIL, "x": 1}, ["x"], "extra_forbidden"),
            ("/find-email", {**EMAIL, "webhook_url": "http://a.test/"},
             ["webhook_url"], "url_scheme"),
            ("/enrich-lead", {**lead, "struct": {"a": {"type": "int"}}},
             ["struct", "a", "description"], "missing"),
            ("/enrich-lead", {**lead, "struct": {
                "a": {"description": "d", "type": "number"}}},
             ["struct", "a", "type"], "enum"),
            ("/enrich-lead", {**lead, "tier": "best"}, ["tier"], "enum"),
            ("/enrich-company", {**company, "find_people": "yes"},
             ["find_people"], "bool_type"),
            ("/enrich-company", {**company, "max_iterations": 1.5},
             ["max_iterations"], "int_type"),
            ("/qa-agent", {"data": LEAD, "qualification_criteria": [{
                "criteria_name": "x"}]},
             ["qualification_criteria", 0, "description"], "missing"),
            ("/search/start-deep-search", {"query": "x", "max_results": 0},
             ["max_results"], "greater_than"))
        for path, body, loc, kind in wrong:
            answer = self.post(path, body, 422)
            found = [(error["loc"], error["type"])
                     for error in answer["detail"]]
            self.assertEqual(found, [(["body", *loc], kind)], body)
        self.assertEqual(self.summary()["billed_cents"], 0)

    def test_rate_limit(self):
        self.set(rate_limit=2, retry_after=7)
        left = []
        for expected in (200, 200, 429):
            status, headers, _ = self.raw_post()
            self.assertEqual(status, expected)
            left.append(headers["X-RateLimit-Remaining"])
        self.assertEqual(left, ["1", "0", "0"])
        self.assertEqual(headers["Retry-After"], "7")
        self.assertEqual(self.summary()["accepted"], 2)


class SearchTest(MockTest):
    """Searches, workflows and webhooks."""

    def test_search(self):
        self.set(search_rows=7)
        task = self.post("/search/start-deep-search",
                         {"query": "founders", "max_results": 5,
                          "search_id": "s1"})["task_id"]
        again = self.post("/search/start-deep-search",
                          {"query": "founders", "search_id": "s1"})
        self.assertEqual(again["task_id"], task)
        self.control("GET", "wait?tasks_done=1")
        status = self.get("/search/deep-search-status/" + task)
        self.assertEqual(status, self.get("/search/status/" + task))
        self.assertEqual((status["status"], status["total_results"]),
                         ("completed", 5))
        url = self.link(status)
        code, _, text = self.raw("GET", url.path + "?" + url.query)
        self.assertEqual(code, 200)
        rows = list(csv.DictReader(io.StringIO(text.decode())))
        self.assertEqual((len(rows), len(set(map(len, rows)))), (5, 1))
        self.assertEqual(self.raw("GET", url.path + "?expires=1")[0], 403)
        self.set(download_seconds=-1, download_host="localhost")
        url = self.link(status)
        self.assertEqual(url.hostname, "localhost")
        self.assertEqual(self.raw("GET", url.path + "?" + url.query)[0], 403)

    def link(self, status):
        """Return the signed address of a search's results."""
        handle = quote(status["resource_handle_id"])
        answer = self.get("/search/download?resource_handle_id=" + handle)
        return urlsplit(answer["url"])

    def test_search_limit(self):
        self.set(task_seconds=None)
        for number in range(5):
            self.post("/search/start-deep-search", {"query": str(number)})
        self.post("/search/start-deep-search", {"query": "six"}, 429)
        self.control("POST", "tasks/all", {"action": "fail"})
        self.post("/search/start-deep-search", {"query": "six"})

    def test_workflow_definitions(self):
        body = {"workflow_name": "w", "workflow_definition": GRAPH}
        flow = self.post("/workflows", body)["id"]
        self.post("/workflows/create_workflow", body, 422)
        live = {**body, "workflow_description": ""}
        other = self.post("/workflows/create_workflow", live)["id"]
        self.assertEqual([each["id"] for each in self.get("/workflows")],
                         [flow, other])
        self.call("PATCH", "/workflows/" + flow, {"workflow_name": "n"})
        self.post("/workflows/update_workflow?workflow_id=" + other,
                  {"workflow_name": "o"})
        self.assertEqual(self.get("/workflows/" + flow)["name"], "n")
        self.assertEqual(self.get("/workflows/" + other)["name"], "o")
        self.call("DELETE", "/workflows/" + flow, None, 204)
        self.call("POST", "/workflows/delete_workflow?workflow_id=" + other)
        self.assertEqual(self.get("/workflows"), [])
        self.get("/workflows/" + flow, 404)

    def test_workflow_routes(self):
        body = {"workflow_name": "w", "workflow_definition": GRAPH,
                "workflow_description": ""}
        self.set(workflow_routes="rest")
        self.post("/workflows/create_workflow", body, 405)
        flow = self.post("/workflows", body)["id"]
        self.set(workflow_routes="live")
        self.post("/workflows", body, 405)
        self.call("PATCH", "/workflows/" + flow, {}, 405)
        self.call("DELETE", "/workflows/" + flow, None, 405)
        self.post("/workflows/update_workflow?workflow_id=" + flow, {})

    def test_workflow_run(self):
        flow = self.post("/workflows", {"workflow_name": "w",
                                        "workflow_definition": GRAPH})["id"]
        path = "/workflows/run?workflow_id=" + flow
        body = {"webhook_payload": [{"company_name": "Acme, Inc."}]}
        self.set(task_seconds=None)
        first = self.post(path, body, **{"Idempotency-Key": "k"})
        self.assertEqual((first["status"], first["already_started"]),
                         ("running", False))
        again = self.post(path, body, **{"Idempotency-Key": "k"})
        self.assertEqual((again["job_id"], again["already_started"]),
                         (first["job_id"], True))
        self.post(path, {}, 409, **{"Idempotency-Key": "k"})
        self.assertEqual(self.summary()["billed_cents"], 25)
        self.assertEqual(self.summary()["duplicates"], {})
        run = first["job_id"]
        self.assertEqual(
            len(self.get("/workflows/runs?status=active")), 1)
        self.control("POST", "tasks/" + run)
        status = self.get(f"/workflows/runs/{run}/live_status")
        self.assertEqual((status["overall_status"],
                          status["overall_progress_percentage"],
                          len(status["blocks"])), ("completed", 100.0, 2))
        self.assertEqual(self.get("/workflows/runs?status=active"), [])
        links = self.get(f"/workflows/runs/{run}/results/download-links")
        url = urlsplit(links[-1]["download_url"])
        text = self.raw("GET", url.path + "?" + url.query)[2].decode()
        rows = list(csv.DictReader(io.StringIO(text)))
        self.assertEqual(rows[0]["company_name"], "Acme, Inc.")
        self.assertIn("industry", rows[0])
        self.set(inline_results=True)
        links = self.get(f"/workflows/runs/{run}/results/download-links")
        self.assertEqual((links[-1]["download_url"], links[-1]["results"]),
                         (None, rows))

    def test_workflow_cancel(self):
        flow = self.post("/workflows", {"workflow_name": "w",
                                        "workflow_definition": GRAPH})["id"]
        self.set(task_seconds=None)
        run = self.post("/workflows/run?workflow_id=" + flow, {})["job_id"]
        answer = self.call("POST", "/workflows/cancel?job_id=" + run)
        self.assertEqual(answer, {"job_id": run, "status": "canceled"})
        status = self.get(f"/workflows/runs/{run}/live_status")
        self.assertEqual(status["overall_status"], "cancelled")
        self.post("/workflows/run?workflow_id=x", {}, 404)

    def test_workflow_states(self):
        flow = self.post("/workflows", {"workflow_name": "w",
                                        "workflow_definition": GRAPH})["id"]
        path = "/workflows/run?workflow_id=" + flow
        self.set(task_seconds=None)
        run = self.post(path, {"webhook_payload": {"company_name": "A"},
                               "specs_override": {"a": 1}})["job_id"]
        status = self.get(f"/workflows/runs/{run}/live_status")
        self.assertEqual((status["overall_status"], status["current_block"],
                          status["current_block_sequence"],
                          status["completed_blocks"]),
                         ("running", "enrich_company", 2, 1))
        self.assertEqual([block["previous_block_ids"] for block
                          in status["blocks"]], [[], ["a"]])
        self.control("POST", "tasks/" + run, {"action": "fail",
                                              "error": "no luck"})
        status = self.get(f"/workflows/runs/{run}/live_status")
        self.assertEqual((status["overall_status"],
                          status["overall_progress_percentage"]),
                         ("failed", 50.0))
        self.assertEqual([(block["status"], block["error_message"])
                          for block in status["blocks"]],
                         [("completed", None), ("failed", "no luck")])
        line, = self.get("/workflows/runs?limit=1")
        self.assertEqual((line["status"], line["error_message"],
                          line["blocks_count"]), ("failed", "no luck", 2))
        self.assertEqual(self.get(
            f"/workflows/runs/{run}/results/download-links"), [])
        for wrong in ("runs?limit=0", "runs?limit=x", "runs?page=1"):
            self.get("/workflows/" + wrong, 422)
        self.post(path + "&save_json=x", {}, 422)
        self.post("/workflows/run", {}, 422)
        self.post(path, {"webhook_payload": [1]}, 422)
        self.assertIn("qa_agent", [
            block["block_name"] for block in self.get("/workflows/blocks")])

    def run_workflow(self, query="", **rule):
        """Run a workflow to its end; return the path of its results."""
        self.rule(match={"path": "/workflows/run"}, **rule)
        flow = self.post("/workflows", {"workflow_name": "w",
                                        "workflow_definition": GRAPH})["id"]
        run = self.post(f"/workflows/run?workflow_id={flow}{query}", {
            "webhook_payload": [{"company_name": "A"}]})["job_id"]
        self.control("POST", "tasks/" + run)
        return f"/workflows/runs/{run}/results/download-links"

    def test_workflow_results(self):
        path = self.run_workflow("&save_json=true", result_rows=3)
        last = self.get(path + "?format=json")[-1]
        self.assertEqual((last["row_count"], last["content_type"]),
                         (3, "application/json"))
        url = urlsplit(last["download_url"])
        rows = json.loads(self.raw("GET", url.path + "?" + url.query)[2])
        self.assertEqual([row["row_number"] for row in rows], [1, 2, 3])
        for where, wanted in (("inline", rows), ("none", None)):
            self.set(last_result=where)
            first, last = self.get(path)
            self.assertTrue(first["download_url"])
            self.assertEqual((last["download_url"], last["results"]),
                             (None, wanted))
        self.get(path + "?format=xml", 422)
        self.control("DELETE", "rules")
        self.get(self.run_workflow(result=[]) + "?format=json", 400)

    def test_signing_secret(self):
        path = "/webhooks/signing-secret"
        self.post(path + "/roll", {}, 404)
        made = self.call("POST", path, None, 201)
        self.assertRegex(made["plaintext"], "^sk_whsec_[0-9a-f]{64}$")
        meta = self.get(path)
        self.assertEqual(meta, made["meta"])
        self.assertNotIn(made["plaintext"], json.dumps(meta))
        for hours in (-1, 73, "1", 1.5):
            self.post(path + "/roll", {"expire_overlap_hours": hours}, 422)
        self.call("POST", path + "/roll", None, 400)
        rolled = self.post(path + "/roll", {"expire_overlap_hours": 0})
        self.assertNotEqual(rolled["plaintext"], made["plaintext"])
        self.call("DELETE", path, None, 204)
        self.assertIsNone(self.get(path))

    def test_webhook(self):
        receiver = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
        receiver.seen, receiver.refusals = [], 2
        thread = threading.Thread(target=receiver.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(receiver.server_close)
        self.addCleanup(receiver.shutdown)
        self.assertIsNone(self.get("/webhooks/signing-secret"))
        old = self.post("/webhooks/signing-secret", {}, 201)["plaintext"]
        new = self.post("/webhooks/signing-secret/roll", {})["plaintext"]
        self.set(webhook_backoff=0.001)
        url = f"http://127.0.0.1:{receiver.server_port}/hook"
        task = self.post("/find-email-async", {**EMAIL, "webhook_url": url})
        self.control("GET", "wait?webhooks=3&timeout=5")
        self.assertEqual([each["status"] for each
                          in self.control("GET", "webhooks")],
                         [500, 500, 200])
        headers, body = receiver.seen[-1]
        self.assertEqual(json.loads(body)["task_id"], task["task_id"])
        self.assertEqual(headers["Sixtyfour-Delivery-Attempt"], "3")
        moment, *codes = headers["Sixtyfour-Signature"].split(",")
        signed = moment[len("t="):].encode() + b"." + body
        self.assertEqual(codes, [
            "v1=" + hmac.new(key.encode(), signed, "sha256").hexdigest()
            for key in (new, old)])
        self.call("DELETE", "/webhooks/signing-secret", None, 204)
        task = self.post("/search/start-deep-search",
                         {"query": "x", "webhook_url": url})
        self.control("GET", "wait?webhooks=4&timeout=5")
        headers, body = receiver.seen[-1]
        self.assertIsNone(headers["Sixtyfour-Signature"])
        notice = json.loads(body)
        self.assertEqual((notice["task_type"],
                          notice["result"]["resource_handle_id"]),
                         ("deep_search", "rh-" + task["task_id"]))


class FaultTest(MockTest):
    """Each fault, and what the ledger says of it."""

    def last(self):
        """Return the latest request."""
        return self.ledger()[-1]

    def get_fault(self, fault, **rule):
        """Make a request that meets a fault; return the raw answer."""
        self.rule(fault=fault, **rule)
        return self.raw_post()

    def test_status(self):
        self.rule(match={"path": "/find-*"}, times=1, status=429,
                  headers={"Retry-After": "1"}, body={"error": "slow"})
        status, headers, body = self.raw("POST", "/find-email")
        self.assertEqual((status, headers["Retry-After"], json.loads(body)),
                         (429, "1", {"error": "slow"}))
        self.rule(status=503, body={"text": "gone fishing"}, accept=True)
        status, headers, body = self.raw_post()
        self.assertEqual((status, headers["Content-Type"], body),
                         (503, "text/plain", b"gone fishing"))
        self.assertEqual([entry["accepted"] for entry in self.ledger()],
                         [False, True])
        self.assertEqual([(rule["matched"], rule["applied"]) for rule
                          in self.control("GET", "rules")], [(2, 1), (1, 1)])

    def test_answer(self):
        self.rule(answer={"email": "x"}, charge=7, times=1)
        self.assertEqual(self.post("/find-email", EMAIL), {"email": "x"})
        self.assertEqual(self.last()["billed"], 7)
        raw = base64.b64encode(b"\x00\x01").decode()
        self.rule(raw_base64=raw, content_type="image/png", status=206)
        status, headers, body = self.raw_post()
        self.assertEqual((status, headers["Content-Type"], body),
                         (206, "image/png", b"\x00\x01"))
        self.assertEqual(self.last()["billed"], 5)

    def test_result(self):
        self.rule(result={"email": []}, task_seconds=0)
        self.assertEqual(self.result("/find-email-async", EMAIL)["result"],
                         {"email": []})

    def test_delay(self):
        self.rule(delay=0.05, times=1)
        begin = time.monotonic()
        self.post("/find-email", EMAIL)
        self.assertGreaterEqual(time.monotonic() - begin, 0.05)
        self.rule(delay=60)
        self.connection.close()
        self.connection.timeout = 0.05
        self.broken(TimeoutError)
        self.control("GET", "wait?count=1&stage=left")
        self.assertEqual(self.summary()["billed_cents"], 10)

    def test_before_body(self):
        self.rule(fault="close_before_body", times=1)
        self.broken()
        self.rule(fault="hang_before_body")
        self.connection.timeout = 0.05
        self.broken(TimeoutError)
        self.control("GET", "wait?count=1&stage=left")
        for entry in self.ledger():
            self.assertEqual((entry["stage"], entry["accepted"]),
                             ("received_headers", False))
        self.assertIsNotNone(self.last()["client_left"])

    def test_after_body(self):
        for fault in ("close_after_body", "reset_after_body"):
            self.control("DELETE", "rules")
            self.rule(fault=fault)
            self.broken(ConnectionResetError if "reset" in fault
                        else http.client.RemoteDisconnected)
            entry = self.last()
            self.assertEqual((entry["stage"], entry["accepted"],
                              entry["billed"], entry["status"]),
                             ("received_body", True, 5, None))
        self.assertEqual(list(self.summary()["duplicates"].values()), [2])

    def test_close_reused(self):
        self.rule(fault="close_reused", times=1)
        self.post("/find-email", EMAIL)
        self.broken(http.client.RemoteDisconnected)
        self.post("/find-email", EMAIL)
        self.assertEqual([entry["nth_on_connection"]
                          for entry in self.ledger()], [1, 2, 1])
        self.assertEqual(self.summary()["billed_cents"], 15)

    def test_hang(self):
        self.rule(fault="hang")
        self.connection.timeout = 0.05
        self.broken(TimeoutError)
        self.control("GET", "wait?count=1&stage=left")
        self.assertIsNotNone(self.last()["client_left"])
        self.assertEqual(self.last()["billed"], 5)

    def test_cut(self):
        for fault in ("cut", "cut_headers", "bad_chunk"):
            self.control("DELETE", "rules")
            self.rule(fault=fault)
            self.broken((http.client.HTTPException, ValueError))
            self.assertEqual((self.last()["stage"],
                              self.last()["reply_completed"]),
                             ("replied", False))

    def test_wrong_content_length(self):
        _, _, body = self.get_fault("wrong_content_length")
        self.assertRaises(ValueError, json.loads, body)

    def test_huge(self):
        _, headers, body = self.get_fault("huge", size_bytes=3000000)
        self.assertEqual(len(body), 3000000)
        self.assertEqual(len(json.loads(body)), 1)

    def test_huge_abandoned(self):
        self.rule(fault="huge", size_bytes=1 << 40)
        self.connection.request("POST", "/find-email", json.dumps(EMAIL), {
            "x-api-key": KEY, "Content-Type": "application/json"})
        self.connection.getresponse().read(1000)
        self.connection.close()
        self.control("GET", "wait?count=1&stage=left&timeout=5")

    def test_drip(self):
        _, _, body = self.get_fault("drip", interval=0.0001)
        self.assertEqual(json.loads(body)["name"], "Ada Brandt")
        self.assertTrue(self.last()["reply_completed"])

    def test_bad_json(self):
        self.assertIn(b"<!doctype", self.get_fault("not_json")[2])
        self.control("DELETE", "rules")
        for fault, error in (("invalid_utf8", UnicodeDecodeError),
                             ("empty", ValueError),
                             ("deep_nesting", RecursionError)):
            _, _, body = self.get_fault(fault, times=1)
            self.assertRaises(error, lambda: json.loads(body.decode()))
        self.assertIn("\0", json.loads(self.get_fault("nul")[2])["notes"])
        self.control("DELETE", "rules")
        _, _, body = self.get_fault("bad_surrogate")
        self.assertRaises(UnicodeEncodeError,
                          json.loads(body)["notes"].encode)
        self.control("DELETE", "rules")
        self.assertEqual(json.loads(self.get_fault(
            "wrong_shape", shape="scalar")[2]), 42)
        self.assertEqual(self.last()["billed"], 5)

    def test_odd_but_whole(self):
        _, headers, _ = self.get_fault("duplicate_reply_headers", times=1)
        self.assertEqual(headers.get_all("Retry-After"), ["1", "2"])
        _, headers, _ = self.get_fault("huge_headers", times=1)
        self.assertEqual(len(headers["X-Filler-49"]), 4000)
        _, headers, body = self.get_fault("unasked_gzip", times=1)
        self.assertIn("email", json.loads(gzip.decompress(body)))
        _, _, body = self.get_fault("duplicate_keys", times=1)
        self.assertEqual(body.count(b'"notes"'), 2)
        _, _, body = self.get_fault("huge_number", times=1)
        self.assertIn(b"9" * 200000, body)
        _, headers, _ = self.get_fault("connection_close", times=1)
        self.assertEqual(headers["Connection"], "close")
        self.control("GET", "wait?open_connections_at_most=0&timeout=5")

    def test_refusals(self):
        status, headers, _ = self.get_fault("redirect", times=1)
        self.assertEqual(status, 302)
        self.assertTrue(headers["Location"])
        _, _, body = self.get_fault("echo_key")
        self.assertIn(KEY.encode(), body)
        self.assertEqual(self.summary()["accepted"], 0)

    def test_every_fault_has_a_home(self):
        import faults
        known = (rules.BEFORE_BODY + rules.UNANSWERED + tuple(faults.EDITS)
                 + tuple(faults.WIRES))
        self.assertEqual(set(known), set(rules.FAULTS))

    def test_choice_of_requests(self):
        self.rule(match={"path": "/find-*", "every": 2, "method": "POST",
                         "body_contains": "Brandt"}, skip=1, status=500)
        self.post("/find-phone", {"lead": {"name": "Else"}})
        got = []
        for _ in range(5):
            got.append(self.raw_post()[0])
        self.assertEqual(got, [200, 200, 500, 200, 500])
        self.control("DELETE", "rules")
        self.rule(match={"probability": 0.5, "seed": 1}, status=500)
        for _ in range(20):
            self.raw("GET", "/workflows", headers={"x-api-key": KEY})
        applied = self.control("GET", "rules")[0]["applied"]
        self.assertTrue(4 <= applied <= 16, applied)

    def test_bad_rules(self):
        for rule in ({"fault": "nonsense"}, {"unknown": 1}, {"quirks": "x"},
                     {"match": {"body": "x"}}, {"result_rows": "3"},
                     {"result_csv": 3}, {"page_trouble": "x"}):
            self.control("POST", "rules", rule, 400)
        self.control("POST", "settings", {"latency": "x"}, 400)
        self.control("GET", "wait", None, 400)
        self.control("GET", "nothing", None, 404)


class LedgerTest(MockTest):
    """The ledger, the totals and the waits."""

    def test_entry(self):
        self.post("/find-email", EMAIL, **{"Idempotency-Key": "i",
                                           "User-Agent": "selftest"})
        entry, = self.ledger(path="/find-*", accepted=1)
        self.assertEqual(entry["body"], EMAIL)
        self.assertEqual(entry["headers"]["idempotency-key"], "i")
        self.assertEqual(entry["headers"]["user-agent"], "selftest")
        self.assertEqual(
            (entry["seq"], entry["stage"], entry["status"], entry["billed"]),
            (1, "replied", 200, 5))
        self.assertEqual(self.ledger(accepted=0), [])
        self.set(keep_bodies=False, keep_entries=1)
        self.post("/find-email", EMAIL)
        entry, = self.ledger()
        self.assertIsNone(entry["body"])
        self.assertEqual(self.summary()["requests"], 2)
        self.control("DELETE", "ledger")
        self.assertEqual(self.ledger(), [])

    def test_duplicates(self):
        other = {"name": "Bruno Sato"}
        self.post("/find-email", EMAIL)
        self.post("/find-email-bulk", {"leads": [other, LEAD]})
        self.post("/find-email", {"lead": other, "mode": "PERSONAL"})
        totals = self.summary()
        self.assertEqual(totals["duplicates"], {})
        self.assertEqual(list(totals["duplicate_leads"].values()), [2])
        self.post("/find-email-async", {
            **EMAIL, "webhook_url": "https://a.test/1"})
        question, = self.summary()["duplicates"]
        self.assertEqual(len(self.ledger(question=question)), 2)
        self.assertEqual(self.summary()["billed_cents"], 5 + 10 + 20 + 5)

    def test_hold_and_wait(self):
        self.rule(hold=True)
        clients = [http.client.HTTPConnection("127.0.0.1", self.port,
                                              timeout=10) for _ in range(3)]
        for client in clients:
            client.request("POST", "/find-email", json.dumps(EMAIL), {
                "x-api-key": KEY, "Content-Type": "application/json"})
        totals = self.control(
            "GET", "wait?count=3&stage=received_body&path=/find-*&timeout=5")
        self.assertEqual((totals["in_flight"], totals["open_connections"]),
                         (3, 3))
        self.control("GET", "wait?held=3&timeout=5")
        self.control("GET", "wait?count=1&stage=replied&timeout=0.02",
                     None, 408)
        self.control("POST", "release")
        self.control("GET", "wait?count=3&stage=replied&timeout=5")
        for client in clients:
            self.assertEqual(client.getresponse().status, 200)
        self.control("DELETE", "connections")
        totals = self.control("GET", "wait?open_connections_at_most=0")
        self.assertEqual((totals["connections"], totals["in_flight"]), (3, 0))
        for client in clients:
            client.close()

    def test_expect(self):
        raw = socket.create_connection(("127.0.0.1", self.port), 5)
        self.addCleanup(raw.close)
        body = json.dumps(EMAIL).encode()
        raw.sendall(b"POST /find-email HTTP/1.1\r\nHost: x\r\nx-api-key: k\r\n"
                    b"Content-Type: application/json\r\nContent-Length: %d\r\n"
                    b"Expect: 100-continue\r\n\r\n" % len(body))
        self.assertEqual(raw.recv(100), b"HTTP/1.1 100 Continue\r\n\r\n")
        raw.sendall(body)
        self.assertTrue(raw.recv(100).startswith(b"HTTP/1.1 200 OK\r\n"))

    def test_unfinished_body(self):
        raw = socket.create_connection(("127.0.0.1", self.port), 5)
        raw.sendall(b"POST /find-email HTTP/1.1\r\nHost: x\r\n"
                    b"Content-Length: 100\r\n\r\n{")
        self.control("GET", "wait?count=1&timeout=5")
        raw.close()
        self.control("GET", "wait?count=1&stage=left&timeout=5")
        self.assertFalse(self.ledger()[0]["accepted"])


class ProcessTest(unittest.TestCase):
    """The command line."""

    def test_port_file_and_signal(self):
        with tempfile.TemporaryDirectory() as folder:
            name = os.path.join(folder, "port")
            child, url = start("--port-file", name)
            with open(name, encoding="ascii") as port:
                self.assertEqual(int(port.read()), urlsplit(url).port)
            self.assertEqual(stop(child), 0)

    def test_parent(self):
        code = ("import selftest, os; c, u = selftest.start();"
                "print(c.pid, flush=True); input()")
        parent = subprocess.Popen([sys.executable, "-B", "-c", code], cwd=HERE,
                                  stdin=subprocess.PIPE, text=True,
                                  stdout=subprocess.PIPE)
        pid = int(parent.stdout.readline())
        gone = os.pidfd_open(pid)
        parent.kill()
        parent.communicate()
        ready, _, _ = select.select([gone], [], [], 5)
        os.close(gone)
        self.assertTrue(ready)

    @unittest.skipUnless(shutil.which("openssl"), "needs openssl")
    def test_tls(self):
        with tempfile.TemporaryDirectory() as folder:
            key, cert = (os.path.join(folder, name) for name in "kc")
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                 "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out",
                 cert, "-days", "1", "-subj", "/CN=localhost", "-addext",
                 "subjectAltName=IP:127.0.0.1"], check=True,
                capture_output=True)
            child, url = start("--tls-cert", cert, "--tls-key", key)
            client = http.client.HTTPSConnection(
                "127.0.0.1", urlsplit(url).port, timeout=5,
                context=ssl.create_default_context(cafile=cert))
            client.request("GET", "/workflows", headers={"x-api-key": "k"})
            self.assertEqual(client.getresponse().read(), b"[]")
            client.close()
            self.assertEqual(stop(child), 0)
            self.assertTrue(url.startswith("https://"))


if __name__ == "__main__":
    unittest.main()
