"""The request tables: which fields each operation takes, of which type.

A field that the table lacks, a required one that is missing and a value of
the wrong type are refused, so that a test passes only with a right body.
"""

from urllib.parse import urlsplit

MAX_LEADS = 100
MAX_URL = 2083
STRUCT_TYPES = ("str", "int", "float", "bool", "list", "list[str]",
                "list[int]", "list[float]", "dict")
TIERS = ("micro", "low", "medium", "high", "xhigh")
BOOLEANS = ("true", "false", "1", "0")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Field:
    """One field of a request: its check, and whether it may be left out."""

    def __init__(self, check, required=False, null=False):
        self.check = check
        self.required = required
        self.null = null


def of_type(kind, types, message):
    """Return a check for a plain JSON type."""
    def check(value):
        if not isinstance(value, types) or (isinstance(value, bool)
                                            and types is not bool):
            yield (), message, kind
    return check


TEXT = of_type("string_type", str, "Input should be a valid string")
BOOLEAN = of_type("bool_type", bool, "Input should be a valid boolean")
INTEGER = of_type("int_type", int, "Input should be a valid integer")
NUMBER = of_type("float_type", (int, float), "Input should be a valid number")
OBJECT = of_type("dict_type", dict, "Input should be a valid dictionary")


def whole_number(least, most):
    """Return a check for an integer within bounds."""
    def check(value):
        yield from INTEGER(value)
        if isinstance(value, bool):
            return
        if isinstance(value, int) and value < least:
            yield ((), "Input should be greater than or equal to "
                   f"{least}", "greater_than_equal")
        if isinstance(value, int) and value > most:
            yield ((), f"Input should be less than or equal to {most}",
                   "less_than_equal")
    return check


def number_text(least, most):
    """Return a check for a query parameter that is an integer."""
    def check(text):
        try:
            yield from whole_number(least, most)(int(text))
        except ValueError:
            yield (), "Input should be a valid integer", "int_parsing"
    return check


def boolean_text(text):
    """Check a query parameter that is a boolean."""
    if text.lower() not in BOOLEANS:
        yield (), "Input should be a valid boolean", "bool_parsing"


def anything(_value):
    """Find no fault."""
    return ()


def positive(value):
    """Check for an integer above zero."""
    yield from INTEGER(value)
    if isinstance(value, int) and value < 1:
        yield (), "Input should be greater than 0", "greater_than"


def some_text(value):
    """Check for a text that is not empty."""
    yield from TEXT(value)
    if value == "":
        yield (), "String should have at least 1 character", "too_short"


def one_of(*choices):
    """Return a check for one of the given texts."""
    def check(value):
        if value not in choices:
            yield (), "Input should be " + " or ".join(choices), "enum"
    return check


def filled(value):
    """Check for an object that is not empty."""
    yield from OBJECT(value)
    if value == {}:
        yield (), "Dictionary should have at least 1 item", "too_short"


def list_of(check_item, most=None):
    """Return a check for an array, item by item."""
    def check(value):
        if not isinstance(value, list):
            yield (), "Input should be a valid list", "list_type"
            return
        if most is not None and len(value) > most:
            yield (), f"List should have at most {most} items", "too_long"
        for position, item in enumerate(value):
            for loc, message, kind in check_item(item):
                yield (position, *loc), message, kind
    return check


def lead_with(name):
    """Return a check for a lead that has a certain field."""
    def check(value):
        yield from OBJECT(value)
        if isinstance(value, dict):
            yield from body_errors({**dict.fromkeys(value, ANYTHING),
                                    name: Field(some_text, required=True)},
                                   value)
    return check


def leads(check_lead):
    """Return a check for 1 to 100 leads."""
    def check(value):
        yield from list_of(check_lead, MAX_LEADS)(value)
        if value == []:
            yield (), "List should have at least 1 item", "too_short"
    return check


def struct(value):
    """Check for field definitions: a description, or an object with it."""
    yield from OBJECT(value)
    if isinstance(value, dict):
        for name, definition in value.items():
            for loc, message, kind in struct_field(definition):
                yield (name, *loc), message, kind


def struct_field(definition):
    """Check one field definition."""
    if isinstance(definition, dict):
        yield from body_errors(STRUCT_FIELD, definition)
    else:
        yield from TEXT(definition)


def reference(value):
    """Check one reference: texts by name."""
    yield from OBJECT(value)
    if isinstance(value, dict):
        for name, text in value.items():
            for loc, message, kind in TEXT(text):
                yield (name, *loc), message, kind


def webhook_url(value):
    """Check for an HTTPS address; plain HTTP is for this machine only."""
    yield from TEXT(value)
    if not isinstance(value, str):
        return
    try:
        scheme, host = urlsplit(value).scheme, urlsplit(value).hostname
    except ValueError:
        scheme = host = None
    local = scheme == "http" and host in LOOPBACK
    if not host or not (scheme == "https" or local):
        yield (), "URL scheme should be 'https'", "url_scheme"
    if len(value) > MAX_URL:
        yield (), f"URL should have at most {MAX_URL} characters", "too_long"


def part(table):
    """Return a check for an object that the table describes."""
    def check(value):
        yield from OBJECT(value)
        if isinstance(value, dict):
            yield from body_errors(table, value)
    return check


def rows(value):
    """Check for one row or an array of rows."""
    if isinstance(value, list):
        yield from list_of(OBJECT)(value)
    else:
        yield from OBJECT(value)


def body_errors(table, body):
    """Yield (location, message, type) for each fault of the body."""
    for name, field in table.items():
        if name not in body:
            if field.required:
                yield (name,), "Field required", "missing"
        elif body[name] is not None or not field.null:
            for loc, message, kind in field.check(body[name]):
                yield (name, *loc), message, kind
    for name in body:
        if name not in table:
            yield ((name,), "Extra inputs are not permitted",
                   "extra_forbidden")


def refusal(table, body, place="body"):
    """Return the body of a 422 answer, or None for a good request."""
    detail = [{"loc": [place, *loc], "msg": message, "type": kind}
              for loc, message, kind in body_errors(table, body)]
    return {"detail": detail} if detail else None


ANYTHING = Field(anything)
STRUCT_FIELD = {"description": Field(TEXT, required=True),
                "type": Field(one_of(*STRUCT_TYPES))}
CRITERION = {"criteria_name": Field(TEXT, required=True),
             "description": Field(TEXT, required=True),
             "weight": Field(NUMBER),
             "threshold": Field(NUMBER, null=True)}
BLOCK = {"sequence_number": Field(INTEGER, required=True),
         "block_type": Field(TEXT, required=True),
         "block_name": Field(TEXT, required=True),
         "specs": Field(OBJECT, required=True),
         "block_id": Field(TEXT, null=True)}
EDGE = {"from_block_id": Field(TEXT, required=True),
        "to_block_id": Field(TEXT, required=True),
        "condition": Field(TEXT, null=True)}
GRAPH = {"blocks": Field(list_of(part(BLOCK)), required=True),
         "edges": Field(list_of(part(EDGE)), required=True)}

WEBHOOK = {"webhook_url": Field(webhook_url, null=True)}
FINDING = {"providers": Field(list_of(TEXT), null=True), **WEBHOOK}
EMAIL_OPTIONS = {"mode": Field(one_of("PROFESSIONAL", "PERSONAL")),
                 "verify_emails": Field(BOOLEAN), **FINDING}
RESEARCH = {"research_plan": Field(TEXT, null=True),
            "max_iterations": Field(INTEGER, null=True),
            "benchmark": Field(BOOLEAN, null=True),
            "tier": Field(one_of(*TIERS), null=True),
            "field_confidence": Field(BOOLEAN, null=True), **WEBHOOK}

FIND_EMAIL = {"lead": Field(filled, required=True), **EMAIL_OPTIONS}
FIND_EMAIL_BULK = {"leads": Field(leads(OBJECT), required=True),
                   **EMAIL_OPTIONS}
FIND_PHONE = {"lead": Field(filled, required=True), **FINDING}
FIND_PHONE_BULK = {"leads": Field(leads(OBJECT), required=True), **FINDING}
REVERSE_EMAIL = {"lead": Field(lead_with("email"), required=True), **FINDING}
REVERSE_EMAIL_BULK = {"leads": Field(leads(lead_with("email")),
                                     required=True), **FINDING}
REVERSE_PHONE = {"lead": Field(lead_with("phone"), required=True), **FINDING}
REVERSE_PHONE_BULK = {"leads": Field(leads(lead_with("phone")),
                                     required=True), **FINDING}
GET_LINKEDIN = {"linkedin_url": Field(some_text, required=True),
                "include_fresh": Field(BOOLEAN, null=True)}
ENRICH_LINKEDIN = {"linkedin_url": Field(some_text, required=True),
                   "struct": Field(struct, null=True),
                   "model_override": Field(TEXT, null=True)}
RESEARCH_AGENT = {"input_data": Field(filled, required=True),
                  "struct": Field(struct, null=True),
                  "research_plan": Field(TEXT, null=True),
                  "max_iterations": Field(INTEGER, null=True),
                  "benchmark": Field(BOOLEAN, null=True), **WEBHOOK}
ORG_COMPANY = {"company_name": Field(TEXT, null=True),
               "linkedin_public_id": Field(TEXT, null=True),
               "linkedin_company_url": Field(TEXT, null=True),
               "company_member_id": Field(INTEGER, null=True),
               "max_iterations": Field(whole_number(1, 20)),
               "max_results": Field(whole_number(1, 50000), null=True),
               "include_resolution_debug": Field(BOOLEAN)}
FIND_PEOPLE = {**ORG_COMPANY,
               "people_focus_prompt": Field(TEXT, required=True)}
ORG_CHART = {**ORG_COMPANY, "page": Field(whole_number(1, 1 << 31)),
             "page_size": Field(whole_number(1, 500)),
             "cursor": Field(TEXT, null=True)}
ENRICH_LEAD = {"lead_info": Field(filled, required=True),
               "struct": Field(struct, null=True), **RESEARCH}
ENRICH_COMPANY = {"target_company": Field(filled, required=True),
                  "struct": Field(struct, required=True),
                  "lead_struct": Field(struct, null=True),
                  "find_people": Field(BOOLEAN),
                  "people_focus_prompt": Field(TEXT, null=True),
                  "full_org_chart": Field(BOOLEAN), **RESEARCH}
ENRICH_COMPANY_V2 = {name: field for name, field in ENRICH_COMPANY.items()
                     if name != "field_confidence"}
QA_AGENT = {"data": Field(filled, required=True),
            "qualification_criteria": Field(list_of(part(CRITERION)),
                                            required=True),
            "references": Field(list_of(reference), null=True),
            "struct": Field(struct, null=True),
            "max_tool_calls": Field(INTEGER, null=True), **WEBHOOK}
ENRICH_DATAFRAME = {"csv_data": Field(TEXT, required=True),
                    "enrichment_type": Field(one_of("phone", "email"),
                                             required=True)}
START_SEARCH = {"query": Field(TEXT, required=True),
                "mode": Field(one_of("people", "company")),
                "max_results": Field(positive),
                "search_id": Field(TEXT, null=True),
                "output_mode": Field(one_of("csv", "query_only")), **WEBHOOK}
MODE = {"mode": Field(one_of("people", "company"))}
PAGING = {"page_size": Field(whole_number(1, 100)),
          "max_results": Field(positive), "cursor": Field(TEXT, null=True)}
FILTERING = {"filters": Field(filled, null=True),
             "simple_filters": Field(filled, null=True)}
FILTER_SEARCH = {**FILTERING, **MODE, **PAGING, "save_json": Field(BOOLEAN)}
SEARCH_QUERY = {**FILTERING, **MODE, **PAGING,
                "parsed_query": Field(filled, null=True),
                "search_id": Field(TEXT, null=True),
                "query": Field(some_text, null=True),
                "exclude_public_ids": Field(list_of(TEXT), null=True),
                "location_expansion_enabled": Field(BOOLEAN),
                "location_expansion_radius_miles":
                    Field(whole_number(5, 200))}
EXPORT = {"search_id": Field(TEXT, null=True),
          "parsed_query": Field(filled, null=True), **MODE,
          "max_results": Field(positive), **WEBHOOK}
FIELD_VALUES = {**FILTERING, **MODE, "field": Field(TEXT, required=True),
                "top_k": Field(whole_number(1, 100))}
SEARCH_USER = {"user_id": Field(TEXT)}
CAPABILITIES = {**MODE, "refresh": Field(boolean_text)}
DOWNLOAD = {"resource_handle_id": Field(TEXT, required=True)}
CREATE_WORKFLOW = {"workflow_name": Field(TEXT, required=True),
                   "workflow_definition": Field(part(GRAPH), required=True),
                   "workflow_description": Field(TEXT),
                   "id": Field(TEXT, null=True)}
CREATE_WORKFLOW_LIVE = {**CREATE_WORKFLOW,
                        "workflow_description": Field(TEXT, required=True)}
UPDATE_WORKFLOW = {"workflow_name": Field(TEXT, null=True),
                   "workflow_definition": Field(part(GRAPH), null=True),
                   "workflow_description": Field(TEXT, null=True)}
RUN_WORKFLOW = {"webhook_payload": Field(rows, null=True),
                "specs_override": Field(OBJECT, null=True)}
NAMED_WORKFLOW = {"workflow_id": Field(TEXT, required=True)}
RUN_QUERY = {**NAMED_WORKFLOW, "save_json": Field(boolean_text)}
CANCEL_QUERY = {"job_id": Field(TEXT, required=True)}
LIST_RUNS = {"status": Field(TEXT), "workflow_id": Field(TEXT),
             "limit": Field(number_text(1, 500))}
LINKS_QUERY = {"format": Field(one_of("csv", "json"))}
ROLL_SECRET = {"expire_overlap_hours": Field(whole_number(0, 72))}
USAGE = {"time_window": Field(number_text(1, 31 * 86400))}
