"""The rules: which requests a test has given another treatment.

The first rule that matches a request decides, alone.  A rule that acts before
the body is read cannot ask for what the body contains.
"""

import fnmatch
import random

import settings

BEFORE_BODY = ("close_before_body", "hang_before_body")
UNANSWERED = ("close_after_body", "reset_after_body", "close_reused", "hang")
ODD_ANSWERS = ("cut", "cut_headers", "huge", "not_json", "invalid_utf8", "nul",
               "bad_surrogate", "deep_nesting", "drip", "empty",
               "wrong_shape", "duplicate_keys", "huge_number",
               "duplicate_reply_headers", "huge_headers", "bad_chunk",
               "unasked_gzip", "wrong_content_length", "connection_close")
REFUSALS = ("redirect", "echo_key", "expired_address")
FAULTS = BEFORE_BODY + UNANSWERED + ODD_ANSWERS + REFUSALS
MATCHES = ("path", "method", "body_contains", "nth_on_connection_at_least",
           "every", "probability", "seed")
ACTIONS = ("status", "body", "headers", "delay", "hold", "accept", "charge",
           "answer", "result", "raw_base64", "content_type", "task_result",
           "error", "fault", "size_bytes", "depth", "interval", "location",
           "shape", "result_rows", "result_csv")


class Rule(dict):
    """One rule, with the count of what it has met."""

    def __init__(self, number, given):
        super().__init__(given)
        check(given)
        self.number = number
        self.matched = 0
        self.applied = 0
        self.wanted = given.get("match", {})
        self.dice = random.Random(self.wanted.get("seed", number))

    @property
    def before_body(self):
        """Tell whether the rule acts before the body is read."""
        return self.get("fault") in BEFORE_BODY

    @property
    def accepts(self):
        """Tell whether the service still takes, and bills, the request."""
        if "accept" in self:
            return self["accept"]
        refuses = (self.get("status", 200) >= 400
                   and "answer" not in self and "raw_base64" not in self)
        return not refuses and self.get("fault") not in REFUSALS

    def fits(self, entry, body):
        """Tell whether the request is of the kind the rule is for."""
        wanted = self.wanted
        nth = wanted.get("nth_on_connection_at_least", 1)
        if self.get("fault") == "close_reused":
            nth = max(nth, 2)
        text = wanted.get("body_contains", "").encode()
        return (fnmatch.fnmatchcase(entry.path, wanted.get("path", "*"))
                and wanted.get("method", entry.method) == entry.method
                and entry.nth_on_connection >= nth
                and (not text or text in body))

    def take(self):
        """Count a fitting request and tell whether the rule applies to it."""
        self.matched += 1
        if "times" in self and self.applied >= self["times"]:
            return False
        if self.matched <= self.get("skip", 0):
            return False
        turn = self.matched - self.get("skip", 0)
        if turn % self.wanted.get("every", 1):
            return False
        if self.dice.random() >= self.wanted.get("probability", 1):
            return False
        self.applied += 1
        return True

    def as_json(self):
        """Return the rule and its counts."""
        return {**self, "id": self.number, "matched": self.matched,
                "applied": self.applied}


class Rules:
    """The rules in the order in which they were given."""

    def __init__(self):
        self.rules = []
        self.number = 0

    def append(self, given):
        """Add a rule; raise ValueError for one that is not understood."""
        rule = Rule(self.number + 1, given)
        self.number += 1
        self.rules.append(rule)
        return rule

    def clear(self):
        """Remove all rules."""
        self.rules.clear()

    def pick(self, entry, body=None):
        """Return the rule for a request; body is None before it is read."""
        for rule in self.rules:
            if (rule.before_body == (body is None)
                    and rule.fits(entry, body or b"") and rule.take()):
                entry.rule = rule.number
                entry.fault = rule.get("fault")
                return rule
        return None


def check(given):
    """Raise ValueError for a rule with parts that nobody would read."""
    known = ("match", "times", "skip") + ACTIONS + settings.KNOBS
    match = given.get("match", {})
    unknown = [name for name in given if name not in known]
    unknown += [name for name in match if name not in MATCHES]
    if unknown:
        raise ValueError("unknown in a rule: " + ", ".join(unknown))
    if given.get("fault", FAULTS[0]) not in FAULTS:
        raise ValueError(f"unknown fault {given['fault']!r}")
    if given.get("fault") in BEFORE_BODY and "body_contains" in match:
        raise ValueError("body_contains needs a body that is read")
    for name, kind in (("result_rows", int), ("result_csv", str)):
        if name in given and type(given[name]) is not kind:
            raise ValueError(f"{name!r} cannot be {given[name]!r}")
    for name in settings.KNOBS:
        if name in given:
            settings.check(name, given[name])
