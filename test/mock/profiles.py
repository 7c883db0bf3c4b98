"""Invented answers about profiles: reverse look-ups, LinkedIn, org charts.

Never found are: a lead whose name, address or profile contains "nobody", and
a number that ends with 0000.
"""

import answers
from answers import (COMPANIES, TITLES, address, chance, domain_of,
                     invented_name, is_found, name_of, plain, research)

REVERSE_CENTS = {"email": 10, "phone": 30}
LINKEDIN_CENTS = 5
FRESH_CENTS = 10
PERSON_CENTS = 1
DEPARTMENTS = ("Engineering", "Finance", "Marketing", "Operations", "Sales")
LEVELS = ("C-suite", "VP", "Director", "Manager", "Individual contributor")
PROFILE = ("name", "company", "title", "linkedin")


def profile_of(name):
    """Return the address of a person's profile."""
    return "https://www.linkedin.com/in/" + plain(name).replace(" ", "-")


def reverse(key):
    """Return a function that answers who has an address or a number."""
    def answer(lead, _body, knobs):
        dice = chance("reverse", key, lead[key])
        found = (is_found({"name": lead[key]}, knobs, dice)
                 and not lead[key].endswith("0000"))
        person = invented_name(dice)
        known = (person, dice.choice(COMPANIES), dice.choice(TITLES),
                 profile_of(person))
        values = dict(zip(PROFILE, known if found else [""] * 4))
        return {**values, **lead, "cost_cents": REVERSE_CENTS[key]}
    return answer


def get_linkedin(body, knobs):
    """Answer get-linkedin: the profile as it is."""
    url = body["linkedin_url"]
    known = {"linkedin_url": url}
    dice = chance("linkedin", url)
    if not is_found(known, knobs, dice):
        return {**known, "name": "", "headline": "", "experience": [],
                "cost_cents": linkedin_price(body)}
    company, title = dice.choice(COMPANIES), dice.choice(TITLES)
    return {**known, "name": name_of(known), "company": company,
            "title": title, "headline": f"{title} at {company}",
            "location": dice.choice(answers.CITIES),
            "experience": [{"company": company, "title": title,
                            "start": str(2010 + dice.randrange(15)),
                            "end": None}],
            "fresh": bool(body.get("include_fresh")),
            "cost_cents": linkedin_price(body)}


def linkedin_price(body):
    """Return the cents of a profile; a fresh one costs more."""
    return FRESH_CENTS if body.get("include_fresh") else LINKEDIN_CENTS


def enrich_linkedin(body, knobs):
    """Answer enrich-linkedin: the struct, filled from the profile."""
    known = {"linkedin_url": body["linkedin_url"]}
    struct = body.get("struct") or {"name": "", "title": "", "company": ""}
    return research(body, known, struct, knobs, {})


def research_agent(body, knobs):
    """Answer research-agent."""
    struct = body.get("struct") or {"summary": ""}
    return research(body, body["input_data"], struct, knobs, {})


def employees(company, prompt, count):
    """Return people of a company, from the top down."""
    dice = chance("employees", company, prompt)
    domain = domain_of(company)
    found = []
    for number in range(count):
        name = invented_name(dice)
        level = LEVELS[min(number // 3, len(LEVELS) - 1)]
        found.append({
            "name": name, "title": dice.choice(TITLES), "level": level,
            "department": dice.choice(DEPARTMENTS),
            "email": address(name, domain),
            "linkedin_url": f"{profile_of(name)}-{number}",
            "reports_to": found[(number - 1) // 3]["name"] if number else None,
            "score": dice.randrange(4, 20) / 2})
    return found
