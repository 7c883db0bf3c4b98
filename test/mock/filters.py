"""Filter searches: answered at once, page by page, and known by their id."""

import collections
import time
import uuid

import answers
import checks
from files import Rows
from ledger import fingerprint
from routes import Reply, Route, detail, invalid

SOURCES = ("query", "simple_filters", "filters", "parsed_query", "search_id")
MAX_RESULTS = 1000
MOST_AVAILABLE = 50000
CACHE_SECONDS = 300
OPERATORS = ("$and", "$or", "$not", "$eq", "$ne", "$in", "$nin", "$gt", "$gte",
             "$lt", "$lte", "$exists", "$regex")
LIMITS = {"max_query_depth": 8, "max_clause_count": 200,
          "max_terms_per_clause": 500, "max_sort_clauses": 3,
          "max_string_length": 1000}
COMPANY_FIELDS = {"company": "text", "location": "keyword", "score": "double",
                  "summary": "text", "website": "keyword"}
FIELDS = {"company": COMPANY_FIELDS,
          "people": {**COMPANY_FIELDS, "linkedin_url": "keyword",
                     "name": "text", "title": "text"}}


class Search:
    """What was searched for, and what there is of it."""

    def __init__(self, search_id, mode, parsed, count, without=()):
        self.id = search_id
        self.mode = mode
        self.parsed = parsed
        self.count = count
        self.without = frozenset(without)
        self.made = None

    @property
    def query(self):
        """Return the question in plain words, if it was one."""
        return self.parsed.get("query")

    @property
    def rows(self):
        """Return all rows that the search finds."""
        if self.made is None:
            asked = self.parsed
            if list(asked) == ["query"]:
                asked = asked["query"]
            self.made = [
                row for row in answers.search_rows(asked, self.mode,
                                                   self.count)
                if public_id(row) not in self.without]
        return self.made


def public_id(row):
    """Return the last part of a profile's address."""
    return row.get("linkedin_url", "").rpartition("/")[2]


class Filters:
    """The filter searches, and what is told about fields."""

    def __init__(self, settings, files, pages):
        self.settings = settings
        self.files = files
        self.pages = pages
        self.by_id = {}

    def reset(self):
        """Forget all searches."""
        self.by_id.clear()

    def routes(self):
        """Yield all routes."""
        yield Route("POST", "/search/query", self.ask, checks.SEARCH_QUERY,
                    True, "search-query", parameters=checks.SEARCH_USER)
        yield Route("POST", "/search/start-filter-search", self.start,
                    checks.FILTER_SEARCH, True, "filter-search")
        yield Route("GET", "/search/filter-capabilities", self.capabilities,
                    parameters=checks.CAPABILITIES)
        yield Route("POST", "/search/filter-field-values", self.field_values,
                    checks.FIELD_VALUES, True)

    def remember(self, call, mode, parsed, search_id=None, without=()):
        """Return a new search, known by its id from now on."""
        search = Search(search_id or str(uuid.uuid4()), mode, parsed,
                        call.knobs["search_rows"], without)
        self.by_id[search.id] = search
        while len(self.by_id) > self.settings["keep_tasks"]:
            del self.by_id[next(iter(self.by_id))]
        return search

    def source(self, call, names):
        """Return the search that exactly one field of the body gives."""
        body = call.body
        given = [name for name in names if body.get(name) is not None]
        if len(given) != 1:
            raise invalid((), "Provide exactly one of: " + ", ".join(names))
        name, mode = given[0], body.get("mode", "company")
        without = body.get("exclude_public_ids") or ()
        if name == "search_id":
            known = self.by_id.get(body[name])
            if not known:
                raise detail(404, "Search not found")
            if not without:
                return known
            return self.remember(call, known.mode, known.parsed, None, without)
        if mode != "people" and (name == "query" or without):
            raise invalid(("mode",), "This is for mode people only")
        parsed = body[name] if name == "parsed_query" else {name: body[name]}
        return self.remember(call, mode, parsed, None, without)

    def ask(self, call):
        """Answer with a page of a search that has one source or a cursor."""
        return self.answer(call, self.page(call, SOURCES))

    def start(self, call):
        """Answer with a page of a search by filters, or by a cursor."""
        return self.answer(call, self.page(call, ("filters",
                                                  "simple_filters")))

    def page(self, call, names):
        """Return the page that a body asks for."""
        body = call.body
        if body.get("cursor") is None:
            return self.pages.first(call, self.source(call, names), 0,
                                    body.get("page_size", 10),
                                    body.get("max_results", MAX_RESULTS))
        others = [name for name in names + ("exclude_public_ids",)
                  if body.get(name) is not None]
        if others:
            raise invalid(("cursor",), "A cursor goes without "
                          + ", ".join(others))
        return self.pages.following(call)

    def answer(self, call, page):
        """Return a FilterSearchResponse."""
        search, bound = page.search, min(len(page.search.rows), page.most)
        life = int(call.knobs["cursor_seconds"])
        csv_url, json_url = self.addresses(call, page)
        people = search.mode == "people"
        body = {
            "search_id": search.id, "resource_handle_id": "",
            "csv_download_url": csv_url, "json_download_url": json_url,
            "next_cursor": page.cursor,
            "cursor_expires_in_seconds": life if page.cursor else None,
            "request_duration_ms": 12, "has_more": page.more,
            "page_size": page.size, "page_count": len(page.rows),
            "page_number": page.start // page.size + 1,
            "max_pages": -(-page.most // page.size),
            "remaining_results": max(bound - page.end, 0),
            "download_expires_in_seconds":
                int(call.knobs["download_seconds"]) if csv_url else None,
            "total_results": page.end,
            "total_available": min(len(search.rows), MOST_AVAILABLE)
            if people else None,
            "exported_count": 0, "results": page.rows,
            "parsed_query": search.parsed,
            "natural_language_query": search.query}
        if not page.more:
            body["total_pages"] = -(-bound // page.size)
        return Reply(200, body, call.rule.get(
            "charge", answers.FOUND_ROW_CENTS * len(page.rows)))

    def addresses(self, call, page):
        """Return addresses of the whole result: of CSV, and of JSON."""
        search, most = page.search, page.most
        if search.mode != "people":
            return None, None

        def table():
            return Rows(search.rows[:most])
        name = f"filter-{search.id}-{most}"
        saved = call.body.get("save_json")
        return (self.files.address(call, name + ".csv", table),
                self.files.address(call, name + ".json", table, "json")
                if saved else None)

    def capabilities(self, call):
        """Answer what may be filtered by."""
        mode = call.query.get("mode", "company")
        return Reply(200, {
            "mode": mode, "index_name": mode,
            "fields": [{**capability(name, kind), "queryable": True,
                        "sortable": kind != "text", "sort_field": None,
                        "rangeable": kind == "double"}
                       for name, kind in sorted(FIELDS[mode].items())],
            "nested_paths": [], "limits": LIMITS,
            "cache_ttl_seconds": CACHE_SECONDS,
            "generated_at_epoch_ms": int(time.time() * 1000),
            "mapping_hash": fingerprint(FIELDS[mode])[:16],
            "simple_query_operators": list(OPERATORS)})

    def field_values(self, call):
        """Answer which values a field has, the commonest first."""
        body, mode = call.body, call.body.get("mode", "company")
        name, kind = body["field"], FIELDS[mode].get(body["field"])
        if kind is None:
            raise detail(400, f"Unknown field: {name}")
        scope = {key: body[key] for key in ("filters", "simple_filters")
                 if body.get(key) is not None}
        if len(scope) > 1:
            raise invalid((), "Give filters or simple_filters, not both")
        rows = Search(None, mode, scope, call.knobs["search_rows"]).rows
        counts = collections.Counter(row[name] for row in rows)
        about = capability(name, kind)
        del about["field_type"]
        return Reply(200, {
            **about, "mode": mode, "canonical_field": name,
            "total_scoped_documents": len(rows), "request_duration_ms": 5,
            "values": [{"value": value, "count": count,
                        "percent_of_scope": round(count / len(rows), 4),
                        "filter_snippet": {"term": {name: value}}}
                       for value, count
                       in counts.most_common(body.get("top_k", 25))]})


def capability(name, kind):
    """Return what both answers about fields tell of one."""
    return {"field": name, "field_type": kind, "nested_path": None,
            "aggregation_field": name + ".keyword" if kind == "text" else name,
            "value_type": "double" if kind == "double" else "keyword",
            "supports_top_values": True,
            "supports_exact_filter_snippet": True, "related_fields": [],
            "preferred_for_exact_match": True}
