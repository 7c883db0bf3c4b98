"""The settings: how the mock behaves as long as no rule says otherwise."""

NUMBER = (int, float)
MAYBE_NUMBER = (int, float, type(None))

# name: (value at start, what it may be: types or a tuple of choices)
KNOWN = {
    "latency": (0, NUMBER),
    "task_seconds": (0.2, MAYBE_NUMBER),
    "status_style": ("production", ("production", "documented")),
    "task_ids": ("uuid", ("uuid", "odd")),
    "quirks": ("some", ("none", "some", "all")),
    "found": ("some", ("none", "some", "all")),
    "email_shape": ("any", ("any", "2", "3")),
    "phone_shape": ("any", ("any", "text", "list")),
    "bulk_shape": ("array", ("array", "results", "leads", "data")),
    "bulk_shuffle": (False, bool),
    "bulk_echo": (True, bool),
    "bulk_missing": (0, int),
    "bulk_unmatched": (0, int),
    "rate_limit": (0, int),
    "rate_window": (60, NUMBER),
    "retry_after": (None, MAYBE_NUMBER),
    "search_limit": (5, int),
    "search_rows": (25, int),
    "page_trouble": ("none", ("none", "empty", "same_cursor", "no_cursor",
                              "expired_cursor")),
    "cursor_seconds": (900, NUMBER),
    "cursor_status": (400, int),
    "workflow_routes": ("both", ("rest", "live", "both")),
    "inline_results": (False, bool),
    "last_result": ("file", ("file", "inline", "none")),
    "download_seconds": (900, NUMBER),
    "download_host": ("", str),
    "webhook_backoff": (1.0, NUMBER),
    "keep_bodies": (True, bool),
    "keep_entries": (200000, int),
    "keep_tasks": (100000, int),
}
# Those a rule may give for its own requests alone.
KNOBS = ("task_seconds", "quirks", "found", "email_shape", "phone_shape",
         "bulk_shape", "bulk_shuffle", "bulk_echo", "bulk_missing",
         "bulk_unmatched", "search_rows", "inline_results", "last_result",
         "download_seconds", "download_host", "page_trouble",
         "cursor_seconds", "cursor_status")


class Settings(dict):
    """The current values by name."""

    def __init__(self, **given):
        super().__init__((name, start) for name, (start, _) in KNOWN.items())
        self.change(given)
        self.start = dict(self)

    def change(self, given):
        """Take new values; raise ValueError for what is not known."""
        for name, value in given.items():
            check(name, value)
        self.update(given)

    def reset(self):
        """Return to the values at start."""
        self.update(self.start)

    def knobs(self, rule):
        """Return the values that shape one answer."""
        values = {name: self[name] for name in KNOBS}
        values.update((name, rule[name]) for name in KNOBS if name in rule)
        return values


def check(name, value):
    """Raise ValueError unless the setting exists and may have the value."""
    if name not in KNOWN:
        raise ValueError(f"unknown setting {name!r}")
    allowed = KNOWN[name][1]
    if isinstance(allowed, tuple) and isinstance(allowed[0], str):
        fits = value in allowed
    else:
        fits = (isinstance(value, allowed)
                and isinstance(value, bool) == (allowed is bool))
    if not fits:
        raise ValueError(f"setting {name!r} cannot be {value!r}")
