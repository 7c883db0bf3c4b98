#!/usr/bin/python3
"""Compares requests with an OpenAPI document: openapi.py FILE < JSON.

The JSON is {"requests": [entries of the ledger], "endpoints": [{"operation",
"method", "path", "async_path", "bulk_path"}]}.  Prints a line per fault and
ends with status 1 if there is one; what the document has beyond the endpoints
is printed too, and is no fault.  What is sent must be right to the last
member: one that the document does not know is a fault even where the document
would bear it.
"""

import json
import re
import sys

try:
    import jsonschema
except ImportError:
    jsonschema = None

METHODS = ("get", "post", "put", "patch", "delete")
SEGMENT = re.compile(r"\{[^}]*\}")

# What only the written specification has: WRITTEN holds operations that the
# document lacks, with the schemas of their bodies, MEMBERS those members of a
# body that the document does not name, or allows fewer values.
STORAGE = "/files/"     # signed addresses lead there, it is no operation
TEXT = {"type": "string"}
MAYBE_URL = {"anyOf": [{"type": "string", "minLength": 1, "maxLength": 2083},
                       {"type": "null"}]}
GRAPH = {"$ref": "#/components/schemas/WorkflowGraph"}
WRITTEN = {
    ("POST", "/workflows"): {
        "type": "object",
        "required": ["workflow_name", "workflow_definition"],
        "properties": {"workflow_name": TEXT, "workflow_definition": GRAPH,
                       "workflow_description": TEXT, "id": TEXT}},
    ("PATCH", "/workflows/{id}"): {
        "type": "object",
        "properties": {"workflow_name": TEXT, "workflow_definition": GRAPH,
                       "workflow_description": TEXT}},
    ("DELETE", "/workflows/{id}"): None,
    ("POST", "/enrich-dataframe"): {
        "type": "object", "required": ["csv_data", "enrichment_type"],
        "properties": {"csv_data": TEXT, "enrichment_type": TEXT}},
}
TIER = {"enum": ["micro", "low", "medium", "high", "xhigh", None]}
CONFIDENCE = {"type": "boolean"}
STRUCT_FIELD = {
    "type": "object", "required": ["description"],
    "additionalProperties": False,
    "properties": {"description": TEXT, "type": {"enum": [
        "str", "int", "float", "bool", "list", "list[str]", "list[int]",
        "list[float]", "dict"]}}}
STRUCT = {"anyOf": [{"type": "object", "additionalProperties": {
    "anyOf": [TEXT, STRUCT_FIELD]}}, {"type": "null"}]}
RESEARCH = {"tier": TIER, "field_confidence": CONFIDENCE}
MEMBERS = {
    "/enrich-lead": RESEARCH, "/enrich-lead-async": RESEARCH,
    "/enrich-company": RESEARCH, "/enrich-company-async": RESEARCH,
    "/people-intelligence": RESEARCH, "/people-intelligence-async": RESEARCH,
    "/company-intelligence": RESEARCH,
    "/company-intelligence-async": RESEARCH,
    "/qa-agent": {"struct": STRUCT}, "/qa-agent-async": {"struct": STRUCT},
    "/search/start-deep-search": {"webhook_url": MAYBE_URL},
    "/search/export": {"webhook_url": MAYBE_URL},
}


class Schemas:
    """Validates values by the schemas of a document."""

    def __init__(self, document):
        self.document = document

    def resolve(self, schema):
        """Return a schema, or the one that it refers to."""
        while "$ref" in schema:
            target = self.document
            for part in schema["$ref"].split("/")[1:]:
                target = target[part.replace("~1", "/").replace("~0", "~")]
            schema = target
        return schema

    def faults(self, schema, value, where):
        """Yield a text for each fault of a value."""
        schema = self.resolve(schema)
        if "anyOf" in schema:
            yield from self.any_faults(schema["anyOf"], value, where)
        if "enum" in schema and not any(same(value, choice)
                                        for choice in schema["enum"]):
            yield f"{where}: {shown(value)} is not one of " + ", ".join(
                map(shown, schema["enum"]))
        kinds = schema.get("type", ())
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if kinds and not any(is_of(kind, value) for kind in kinds):
            yield f"{where}: {shown(value)} is no " + " or ".join(kinds)
            return
        if isinstance(value, dict):
            yield from self.member_faults(schema, value, where)
        elif isinstance(value, list):
            for number, item in enumerate(value):
                yield from self.faults(schema.get("items", {}), item,
                                       f"{where}[{number}]")
        yield from bound_faults(schema, value, where)

    def second_opinion(self, schema, body):
        """Yield what the jsonschema library objects to, if there is one."""
        if jsonschema is None:
            return
        root = {**strict(schema),
                "components": strict(self.document.get("components", {}))}
        validator = jsonschema.Draft202012Validator(root)
        for error in validator.iter_errors(body):
            place = "".join(f".{part}" for part in error.absolute_path)
            yield f"body{place}: {error.message}"

    def any_faults(self, choices, value, where):
        """Yield the faults by the choice that a value comes closest to."""
        each = [list(self.faults(choice, value, where)) for choice in choices]
        if any(not faults for faults in each):
            return
        kinds = [self.resolve(choice).get("type") for choice in choices]
        right = [faults for kind, faults in zip(kinds, each)
                 if isinstance(kind, str) and is_of(kind, value)]
        yield from min(right or each, key=len)

    def member_faults(self, schema, value, where):
        """Yield the faults of an object's members."""
        known = schema.get("properties", {})
        for name in schema.get("required", ()):
            if name not in value:
                yield f"{where}: {name} is missing"
        others = schema.get("additionalProperties", not known)
        for name, member in value.items():
            if name in known:
                yield from self.faults(known[name], member, f"{where}.{name}")
            elif others is False:
                yield f"{where}: {name} is not known"
            elif isinstance(others, dict):
                yield from self.faults(others, member, f"{where}.{name}")


def strict(schema):
    """Return a schema that allows no member that it does not name."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: strict(value) for name, value in schema.items()}
    if isinstance(schema.get("properties"), dict):
        closed.setdefault("additionalProperties", False)
    return closed


def bound_faults(schema, value, where):
    """Yield the faults of a value's size."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    sizes = (("minimum", value if number else None, 1),
             ("maximum", value if number else None, -1),
             ("exclusiveMinimum", value if number else None, 1),
             ("exclusiveMaximum", value if number else None, -1),
             ("minLength", len(value) if isinstance(value, str) else None, 1),
             ("maxLength", len(value) if isinstance(value, str) else None, -1),
             ("minItems", len(value) if isinstance(value, list) else None, 1),
             ("maxItems", len(value) if isinstance(value, list) else None, -1))
    for name, size, sign in sizes:
        if name not in schema or size is None:
            continue
        over = (size - schema[name]) * sign
        if over < 0 or (over == 0 and name.startswith("exclusive")):
            yield f"{where}: {shown(value)} breaks {name} {schema[name]}"


def is_of(kind, value):
    """Tell whether a value is of a JSON type."""
    if kind == "boolean" or isinstance(value, bool):
        return kind == "boolean" and isinstance(value, bool)
    if kind == "integer":
        return isinstance(value, int) or (isinstance(value, float)
                                          and value.is_integer())
    return isinstance(value, {"number": (int, float), "string": str,
                              "object": dict, "array": list,
                              "null": type(None)}[kind])


def same(one, other):
    """Compare JSON values; true is not 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def shown(value):
    """Return a value for a message, not at length."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


class Document:
    """An OpenAPI document with what the written specification adds."""

    def __init__(self, document):
        self.paths = document["paths"]
        self.schemas = Schemas(document)

    def operations(self):
        """Yield (method, template) of each operation of the document."""
        for template, item in self.paths.items():
            for method in METHODS:
                if method in item:
                    yield method.upper(), template

    def find(self, method, path):
        """Return an operation's template, or None; names before patterns."""
        known = [template for other, template
                 in [*self.operations(), *WRITTEN]
                 if other == method and fits(template, path)]
        return min(known, key=lambda each: len(SEGMENT.findall(each)),
                   default=None)

    def parameters(self, method, template):
        """Return the schemas of a query and the names that it must have."""
        item = self.paths.get(template, {})
        listed = [*item.get("parameters", ()),
                  *item.get(method.lower(), {}).get("parameters", ())]
        listed = [self.schemas.resolve(each) for each in listed]
        return ({each["name"]: each.get("schema", {}) for each in listed
                 if each["in"] == "query"},
                [each["name"] for each in listed
                 if each["in"] == "query" and each.get("required")])

    def body(self, method, template):
        """Return a body's schema, None for none, and whether it must be."""
        operation = self.paths.get(template, {}).get(method.lower())
        if operation is None:
            schema = WRITTEN[method, template]
            return schema, schema is not None
        wanted = self.schemas.resolve(operation.get("requestBody", {}))
        content = wanted.get("content", {}).get("application/json", {})
        schema = content.get("schema")
        if schema is not None and template in MEMBERS:
            schema = self.schemas.resolve(schema)
            schema = {**schema, "properties": {
                **schema.get("properties", {}), **MEMBERS[template]}}
        return schema, wanted.get("required", False)

    def request_faults(self, request):
        """Yield the faults of one request."""
        method = request["method"]
        path = request.get("raw_path") or request["path"]
        if path.startswith(STORAGE):
            return
        template = self.find(method, path)
        if template is None:
            yield "no such operation"
            return
        yield from self.query_faults(method, template,
                                     request.get("query") or {})
        body = request.get("body")
        schema, required = self.body(method, template)
        if body is None:
            if required:
                yield "body: missing"
        elif schema is None:
            if body != {}:
                yield "body: none is expected"
        else:
            found = list(self.schemas.faults(schema, body, "body"))
            yield from found or self.schemas.second_opinion(schema, body)

    def query_faults(self, method, template, query):
        """Yield the faults of a query, whose values are texts."""
        known, required = self.parameters(method, template)
        for name in required:
            if name not in query:
                yield f"query: {name} is missing"
        for name, text in query.items():
            if name not in known:
                yield f"query: {name} is not known"
                continue
            found = [list(self.schemas.faults(known[name], value,
                                              f"query.{name}"))
                     for value in readings(text)]
            if all(found):
                yield from found[-1]


def readings(text):
    """Return what a parameter's text may stand for."""
    values = [text]
    if text in ("true", "false") or re.fullmatch(r"-?\d+(\.\d+)?", text):
        values.append(json.loads(re.sub(r"^(-?)0+(?=\d)", r"\1", text)))
    return values


def fits(template, path):
    """Tell whether a path is of a template."""
    mine, other = template.split("/"), path.split("/")
    return len(mine) == len(other) and all(
        part == given or (SEGMENT.fullmatch(part) and given)
        for part, given in zip(mine, other))


def anonymous(template):
    """Return a path's template without its query and parameters' names."""
    return SEGMENT.sub("{}", template.partition("?")[0])


def endpoint_paths(endpoint):
    """Yield the paths of one row of a table of endpoints."""
    for name, value in endpoint.items():
        if (name == "path" or name.endswith("_path")) and value:
            yield value


def compare(document, given):
    """Return (faults, remarks) about requests and a table of endpoints."""
    document = Document(document)
    faults = [f"{request['method']} {request['path']}"
              f" (request {request.get('seq', number + 1)}): {fault}"
              for number, request in enumerate(given.get("requests", ()))
              for fault in document.request_faults(request)]
    known = {(method, anonymous(template)): template for method, template
             in [*WRITTEN, *document.operations()]}
    ours = set()
    for endpoint in given.get("endpoints", ()):
        for path in endpoint_paths(endpoint):
            key = (endpoint["method"], anonymous(path))
            ours.add(key)
            if key not in known:
                faults.append(f"endpoint {endpoint.get('operation')}: no "
                              f"{endpoint['method']} {path}")
    lacking = [f"not in the table: {key[0]} {template}"
               for key, template in sorted(known.items())
               if key not in ours and template in document.paths]
    return faults, lacking if given.get("endpoints") else []


def main():
    """Compare; return the status."""
    if len(sys.argv) != 2:
        print("usage: openapi.py FILE < JSON", file=sys.stderr)
        return 2
    with open(sys.argv[1], encoding="utf-8") as source:
        document = json.load(source)
    faults, remarks = compare(document, json.load(sys.stdin))
    for line in faults:
        print("fault:", line)
    for line in remarks:
        print("note:", line)
    print(f"{len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
