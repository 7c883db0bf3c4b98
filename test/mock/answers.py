"""Invented answers: for the same request and knobs always the same ones.

A lead whose name contains "Nobody" is never found, whatever the knobs say.
"""

import csv
import io
import json
import random
import re
import unicodedata

from ledger import canonical

FIRST_NAMES = ("Ada", "Bruno", "Chiara", "Dagný", "Emeka", "Farah", "Goran",
               "Hana", "Ivo", "Jasmin", "Kofi", "Lena", "Mateo", "Noor",
               "Oskar", "Priya", "Quentin", "Renée", "Søren", "Tomoko")
LAST_NAMES = ("Almeida", "Brandt", "Castellanos", "Dvořák", "Eriksen",
              "Fontaine", "Grünwald", "Haddad", "Ivanova", "Jansen",
              "Kowalski", "Lindqvist", "Moreau", "Nakamura", "O'Connor",
              "Petrov", "Quiroga", "Rossi", "Sato", "Tamm")
TITLES = ("Chief Executive Officer", "Head of Sales", "Platform Engineer",
          "Data Analyst", "VP Marketing", "Product Manager",
          "Founder", "Operations Lead")
COMPANIES = ("Blue Heron Labs", "Copper Kettle", "Delta Orchard",
             "Fernhill Robotics", "Granite Harbor", "Larkspur Foods",
             "North Quay Software", "Saltmarsh Energy")
CITIES = ("Lisbon", "Oslo", "Toronto", "Nairobi", "Kyoto", "Montevideo",
          "Tallinn", "Melbourne")
INDUSTRIES = ("software", "logistics", "renewable energy", "food",
              "robotics", "health")
WORDS = ("analytics", "compilers", "databases", "hiking", "negotiation",
         "public speaking", "Rust", "supply chains")
ENRICH_CENTS = {"micro": 20, "low": 100, "medium": 480, "high": 900,
                "xhigh": 1800}
EMAIL_CENTS = {"PROFESSIONAL": 5, "PERSONAL": 20}
PHONE_CENTS = 30
QA_CENTS = 10
RESEARCH_CENTS = 40
SEARCH_CENTS = 100
EXPORT_CENTS = 50
FOUND_ROW_CENTS = 1
WORKFLOW_ROW_CENTS = 25


def chance(*seeds):
    """Return a source of chance that is a function of JSON values."""
    return random.Random(canonical(seeds))


def plain(text):
    """Return a text in lower-case ASCII."""
    text = text.replace("ø", "o").replace("Ø", "O").replace("ß", "ss")
    text = unicodedata.normalize("NFKD", text)
    return text.encode("ascii", "ignore").decode().lower()


def first_text(record, *names):
    """Return the first of the fields that holds a text."""
    for name in names:
        value = record.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return ""


def invented_name(dice):
    """Return a person's name."""
    return f"{dice.choice(FIRST_NAMES)} {dice.choice(LAST_NAMES)}"


def name_of(lead):
    """Return the lead's name, taken from its profile's address if need be."""
    name = first_text(lead, "name", "full_name", "lead_name")
    if not name:
        name = " ".join(filter(None, (first_text(lead, "first_name"),
                                      first_text(lead, "last_name"))))
    if not name:
        link = first_text(lead, "linkedin", "linkedin_url")
        slug = link.rstrip("/").rpartition("/")[2]
        name = slug.replace("-", " ").title()
    return name or invented_name(chance("name", lead))


def domain_of(record):
    """Return a domain for a lead or a company."""
    site = first_text(record, "website", "domain", "company_domain",
                      "company_website", "url")
    if site:
        host = re.sub(r"^[a-z]+://|^//", "", site.lower())
        host = re.match(r"(www\.)?([a-z0-9.-]*)", host).group(2)
        if host:
            return host
    company = first_text(record, "company", "company_name", "name")
    slug = re.sub(r"[^a-z0-9]+", "", plain(company)) or "company"
    return slug + ".example"


def address(name, domain):
    """Return first.last@domain."""
    words = re.findall(r"[a-z0-9]+", plain(name.replace("'", "")))
    local = ".".join(words[:1] + words[-1:] if len(words) > 1 else words)
    return f"{local or 'info'}@{domain}"


def is_found(lead, knobs, dice):
    """Decide whether the service knows the lead."""
    if "nobody" in name_of(lead).lower() or knobs["found"] == "none":
        return False
    return knobs["found"] == "all" or dice.random() < 0.85


def with_quirk(knobs, dice):
    """Decide whether a value arrives in an odd form."""
    return knobs["quirks"] == "all" or (knobs["quirks"] == "some"
                                        and dice.random() < 0.3)


# find-email and find-phone

def find_email(lead, body, knobs):
    """Answer find-email for one lead."""
    price = email_price(lead, body)
    if not price:
        return {**lead, "cost_cents": 0}
    dice = chance("email", lead)
    found = is_found(lead, knobs, dice)
    answer = {**lead, "email": email_list(lead, found, knobs, dice)}
    if body.get("mode") == "PERSONAL":
        answer["personal_email"] = personal_email(lead, found, knobs, dice)
    answer["cost_cents"] = price
    return answer


def email_list(lead, found, knobs, dice):
    """Return the list of found addresses, as tuples of 2 or 3 elements."""
    if not found:
        return [["", "NOT_FOUND", "COMPANY"]] if dice.random() < 0.3 else []
    status = "OK" if dice.random() < 0.85 else "UNKNOWN"
    entry = [address(name_of(lead), domain_of(lead)), status, "COMPANY"]
    long = dice.random() < 0.8
    if knobs["email_shape"] == "2" or (knobs["email_shape"] == "any"
                                       and not long):
        entry.pop()
    return [entry]


def personal_email(lead, found, knobs, dice):
    """Return the private address, as a list of tuples or as a text."""
    text = address(name_of(lead), "mail.example") if found else ""
    if with_quirk(knobs, dice):
        return text
    return [[text, "OK", "PERSONAL"]] if text else []


def email_price(lead, body):
    """Return the cents of find-email; a lead with an address is free."""
    if lead.get("email"):
        return 0
    return EMAIL_CENTS[body.get("mode") or "PROFESSIONAL"]


def find_phone(lead, body, knobs):
    """Answer find-phone for one lead."""
    dice = chance("phone", lead)
    return {**lead, "phone": phone(lead, knobs, dice),
            "cost_cents": PHONE_CENTS}


def phone(lead, knobs, dice):
    """Return a number, a list of numbers with their regions, or ''."""
    if not is_found(lead, knobs, dice):
        return ""
    number = f"+1 555-{dice.randrange(200, 999)}-{dice.randrange(10000):04}"
    shape = knobs["phone_shape"]
    if shape == "any":
        shape = dice.choice(("text", "list"))
    if shape == "text":
        return number
    other = f"+44 20 7946 {dice.randrange(1000):04}"
    return [{"number": number, "region": "US"},
            {"number": other, "region": "GB"}]


def stranger(key, dice):
    """Return a value by which no lead is known."""
    name = invented_name(dice)
    return {"email": address(name, "stranger.example"),
            "phone": f"+1 555-{dice.randrange(200, 999)}-0199"}.get(key, name)


def bulk(answer_one, body, knobs, key, kept):
    """Answer for many leads, in the shape and with the faults asked for.

    `key` names the field by which an item is known to be a lead's, `kept`
    what is found.
    """
    dice = chance("bulk", body["leads"])
    items = [answer_one(lead, body, knobs) for lead in body["leads"]]
    for item in items[:knobs["bulk_unmatched"]]:
        if key in item:
            item[key] = stranger(key, dice)
    if not knobs["bulk_echo"]:
        items = [{name: item[name] for name in kept if name in item}
                 for item in items]
    if knobs["bulk_missing"]:
        del items[-knobs["bulk_missing"]:]
    if knobs["bulk_shuffle"]:
        dice.shuffle(items)
    shape = knobs["bulk_shape"]
    return items if shape == "array" else {shape: items}


# enrich-lead, enrich-company, qa-agent

def enrich_lead(body, knobs):
    """Answer enrich-lead."""
    known = body["lead_info"]
    struct = body.get("struct") or {"name": "", "title": "", "company": ""}
    return research(body, known, struct, knobs, {})


def enrich_company(body, knobs):
    """Answer enrich-company, with people if asked for."""
    extra = {}
    if body.get("find_people") or body.get("full_org_chart"):
        extra["leads"] = people(body, knobs)
    return research(body, body["target_company"], body["struct"], knobs,
                    extra)


def research(body, known, struct, knobs, extra):
    """Return the answer that both enrichments share."""
    dice = chance("research", body.get("tier"), known, struct)
    found = is_found(known, knobs, dice)
    filled = {name: field(name, definition, known, found, knobs, dice)
              for name, definition in struct.items()}
    domain = domain_of(known)
    answer = {
        "notes": f"Looked at the site of {domain} and at public profiles. "
                 f"{'Sources agree.' if found else 'Nothing was found.'}",
        "structured_data": {**filled, **extra},
        "findings": [],
        "references": {f"https://{domain}/": "Official site"} if found else {},
        "confidence_score": dice.randrange(12, 20) / 2 if found else 0}
    if body.get("field_confidence"):
        answer["field_confidence"] = {
            name: 0 if value == "" else dice.randrange(5, 11)
            for name, value in filled.items()}
    if with_quirk(knobs, dice):
        answer["company" if "target_company" in body else "lead_info"] = known
    return answer


def field(name, definition, known, found, knobs, dice):
    """Return the value of one field of the struct."""
    kind = None
    if isinstance(definition, dict):
        kind = definition.get("type")
    if kind is None and name in known:
        return known[name]
    value = typed_value(name, kind or inferred_type(name), known, dice)
    if not found or (knobs["found"] == "some" and dice.random() < 0.08):
        return ""
    return odd_form(value) if with_quirk(knobs, dice) else value


def inferred_type(name):
    """Guess a field's type from its name."""
    for pattern, kind in ((r"^(is|has|can)_", "bool"),
                          (r"^(num|count|years)_|_(count|year|age)$", "int"),
                          (r"_(score|ratio|rate)$", "float")):
        if re.search(pattern, name):
            return kind
    return "str"


def typed_value(name, kind, known, dice):
    """Return an invented value of a struct type."""
    if kind == "int":
        return dice.randrange(1, 40)
    if kind in ("float", "list[float]"):
        number = dice.randrange(1, 400) / 4
        return number if kind == "float" else [number, number + 0.25]
    if kind == "bool":
        return dice.random() < 0.5
    if kind == "list[int]":
        return sorted(dice.sample(range(1, 100), 3))
    if kind in ("list", "list[str]"):
        return dice.sample(COMPANIES if "compan" in name else WORDS, 2)
    if kind == "dict":
        return {"city": dice.choice(CITIES),
                "since": 1990 + dice.randrange(35)}
    return text_value(name, known, dice)


def text_value(name, known, dice):
    """Return an invented text that fits the field's name."""
    person = name_of(known)
    choices = (("email", address(person, domain_of(known))),
               ("phone", f"+1 555-{dice.randrange(200, 999)}-0100"),
               ("linkedin", "https://www.linkedin.com/in/"
                + plain(person).replace(" ", "-")),
               ("url", f"https://{domain_of(known)}/"),
               ("website", f"https://{domain_of(known)}/"),
               ("title", dice.choice(TITLES)),
               ("role", dice.choice(TITLES)),
               ("industry", dice.choice(INDUSTRIES)),
               ("location", dice.choice(CITIES)),
               ("city", dice.choice(CITIES)),
               ("company", dice.choice(COMPANIES)),
               ("name", person))
    for part, text in choices:
        if part in name.lower():
            return text
    return f"{dice.choice(WORDS)} and {dice.choice(WORDS)}"


def odd_form(value):
    """Return a value as the service sometimes delivers it: as text."""
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, (list, int, float)):
        return str(value)
    return value


def people(body, knobs):
    """Return people of a company, each with the lead_struct's fields."""
    company = body["target_company"]
    dice = chance("people", company, body.get("people_focus_prompt"))
    struct = body.get("lead_struct") or {"name": "", "title": "",
                                         "linkedin": "", "phone": ""}
    domain = domain_of(company)
    leads = []
    for _ in range(8 if body.get("full_org_chart") else 3):
        known = {"name": invented_name(dice), "title": dice.choice(TITLES),
                 "website": domain}
        lead = {name: field(name, definition, known, True, knobs, dice)
                for name, definition in struct.items()}
        score = dice.randrange(4, 20) / 2
        lead["score"] = str(score) if with_quirk(knobs, dice) else score
        leads.append(lead)
    return leads


def qa_agent(body, knobs):
    """Answer qa-agent: its values are texts, whatever they mean."""
    dice = chance("qa", body["data"], body["qualification_criteria"])
    score = dice.randrange(0, 11)
    values = {"final_verdict": "YES" if score > 5 else "NO",
              "suitability_score": str(score)}
    if body.get("struct"):
        values = {name: values.get(name) or str(field(
            name, definition, body["data"], True, knobs, dice))
            for name, definition in body["struct"].items()}
    named = ", ".join(entry["criteria_name"]
                      for entry in body["qualification_criteria"])
    return {"structured_data": values, "notes": f"Judged by: {named}."}


# CSV

def write_csv(rows, columns=()):
    """Return rows as CSV; its header is the rows' columns, in order."""
    out = io.StringIO()
    names = dict.fromkeys(columns)
    for row in rows:
        names.update(dict.fromkeys(row))
    writer = csv.DictWriter(out, list(names), restval="")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def search_rows(query, mode, count):
    """Return the rows of a deep search; some need CSV's quotes."""
    dice = chance("search", query, mode)
    rows = []
    for number in range(count):
        person = invented_name(dice)
        company = dice.choice(COMPANIES)
        summary = dice.choice((f"Works on {dice.choice(WORDS)}",
                               f"Based in {dice.choice(CITIES)}, \"remote\"",
                               "First line\nsecond line", ""))
        row = {"company": company, "website":
               f"https://{domain_of({'company': company})}",
               "location": dice.choice(CITIES), "summary": summary,
               "score": dice.randrange(2, 21) / 2}
        if mode == "people":
            row = {"name": person, "title": dice.choice(TITLES), **row,
                   "linkedin_url": "https://www.linkedin.com/in/"
                   f"{plain(person).replace(' ', '-')}-{number}"}
        rows.append(row)
    return rows


def dataframe(body, knobs):
    """Answer enrich-dataframe: the rows with a column more."""
    reader = csv.DictReader(io.StringIO(body["csv_data"]))
    rows = list(reader)
    column = body["enrichment_type"]
    for row in rows:
        row.pop(None, None)
        dice = chance(column, row)
        if column == "phone":
            shaped = {**knobs, "phone_shape": "text"}
            row["phone"] = phone(row, shaped, dice)
        else:
            known = is_found(row, knobs, dice)
            row["email"] = (address(name_of(row), domain_of(row)) if known
                            else "")
    return {"csv_data": write_csv(rows, reader.fieldnames or ())}


def dataframe_price(body):
    """Return the cents of enrich-dataframe: each row at its own price."""
    each = (PHONE_CENTS if body["enrichment_type"] == "phone"
            else EMAIL_CENTS["PROFESSIONAL"])
    return each * len(list(csv.DictReader(io.StringIO(body["csv_data"]))))


def workflow_rows(payload, blocks, upto):
    """Return the rows of a workflow's run after its block number `upto`."""
    rows = [dict(row) for row in payload]
    for block in blocks[:upto + 1]:
        for row in rows:
            add_block(block["block_name"], row)
    return rows


def add_block(name, row):
    """Add to a row what one block of a workflow finds."""
    dice = chance(name, row)
    if name == "find_email":
        row["email"] = address(name_of(row), domain_of(row))
    elif name == "find_phone":
        row["phone"] = f"+1 555-{dice.randrange(200, 999)}-0100"
    elif name == "qa_agent":
        row["final_verdict"] = dice.choice(("YES", "NO"))
    elif name.startswith("enrich_"):
        row["industry"] = dice.choice(INDUSTRIES)
        row["location"] = dice.choice(CITIES)
        row["summary"] = f"Known for {dice.choice(WORDS)}, says \"{name}\""
