"""The account: what its key has used."""

import checks
from ledger import collective
from routes import Reply, Route

HOUR = 3600


class Account:
    """The route of the account."""

    def __init__(self, ledger):
        self.ledger = ledger

    def routes(self):
        """Yield the route."""
        yield Route("GET", "/api/usage", self.usage, parameters=checks.USAGE)

    def usage(self, call):
        """Answer what the caller's key has used within a time."""
        window = int(call.query.get("time_window", HOUR))
        since = call.entry.time - window
        mine = [entry for entry in self.ledger.entries
                if entry.key_sha256 == call.entry.key_sha256
                and entry.time >= since and entry is not call.entry]
        counts = {}
        for entry in mine:
            path = collective(entry.path)
            counts[path] = counts.get(path, 0) + 1
        return Reply(200, {
            "time_window": window, "total_requests": len(mine),
            "total_cost_cents": sum(entry.billed for entry in mine),
            "requests_by_endpoint": counts})
