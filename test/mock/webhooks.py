"""Webhooks: the notice of a task's end, signed once a secret was made.

Notices go to this machine only.  Each is tried five times, after pauses of
1, 2, 4, 8 and 16 seconds times the setting webhook_backoff.
"""

import asyncio
import hashlib
import hmac
import json
import secrets
import time
import uuid
from urllib.parse import urlsplit

import aiohttp

import checks
from routes import Reply, Route, detail
from tasks import iso

PAUSES = (1, 2, 4, 8, 16)
TIMEOUT_SECONDS = 10
HOUR = 3600


def signature(keys, moment, body):
    """Return the signature header's value: one v1 for each secret."""
    signed = f"{moment}.".encode() + body
    codes = [hmac.new(key.encode(), signed, hashlib.sha256).hexdigest()
             for key in keys]
    return ",".join([f"t={moment}"] + ["v1=" + code for code in codes])


def payload(task):
    """Return what a webhook tells."""
    notice = {"task_id": task.id, "status": task.status,
              "task_type": task.kind}
    if task.status == "completed":
        notice["result"] = task.result()
    else:
        notice["error"] = task.error
    return notice


class Webhooks:
    """Deliveries, and the secrets that sign them."""

    def __init__(self, settings, ledger):
        self.settings = settings
        self.ledger = ledger
        self.session = None
        self.running = set()
        self.reset()

    def reset(self):
        """Forget the secrets and what was delivered."""
        self.secret = None
        self.meta = None
        self.old = (None, 0)
        self.deliveries = []

    def routes(self):
        """Yield the routes of the signing secret."""
        path = "/webhooks/signing-secret"
        yield Route("GET", path, lambda call: Reply(200, self.meta))
        yield Route("POST", path, self.create)
        yield Route("DELETE", path, self.revoke)
        yield Route("POST", path + "/roll", self.roll, checks.ROLL_SECRET,
                    True)

    def create(self, _call):
        """Make a secret; the one before is void at once."""
        self.old = (None, 0)
        return Reply(201, self.renew())

    def roll(self, call):
        """Make a secret; the one before signs too for some hours."""
        if not self.secret:
            raise detail(404, "There is no signing secret to roll")
        hours = call.body.get("expire_overlap_hours", 24)
        self.old = (self.secret, time.time() + hours * HOUR)
        return Reply(200, self.renew())

    def revoke(self, _call):
        """Sign no more."""
        self.secret = self.meta = None
        self.old = (None, 0)
        return Reply(204, b"")

    def renew(self):
        """Make a new secret and return it with its description."""
        self.secret = "sk_whsec_" + secrets.token_hex(32)
        self.meta = {"id": str(uuid.uuid4()), "org_id": "org_1",
                     "preview": "sk_whsec_••••…" + self.secret[-4:],
                     "status": "active", "created_at": iso(time.time()),
                     "revoked_at": None}
        return {"plaintext": self.secret, "meta": self.meta}

    def keys(self):
        """Return the secrets that sign now."""
        old, until = self.old
        kept = old if until > time.time() else None
        return [key for key in (self.secret, kept) if key]

    def announce(self, task):
        """Start to deliver the notice of a task's end, if one was asked."""
        url = task.webhook_url
        if url and urlsplit(url).hostname in checks.LOOPBACK:
            delivery = asyncio.ensure_future(self.deliver(task, url))
            self.running.add(delivery)
            delivery.add_done_callback(self.running.discard)

    async def deliver(self, task, url):
        """Try until the notice is taken or the attempts are used up."""
        body = json.dumps(payload(task)).encode()
        event = str(uuid.uuid4())
        for attempt, pause in enumerate(PAUSES, 1):
            status, error = await self.attempt(task, url, body, event, attempt)
            self.deliveries.append({
                "task_id": task.id, "url": url, "attempt": attempt,
                "event_id": event, "status": status, "error": error})
            self.ledger.changed()
            if status is not None and 200 <= status < 300:
                return
            await asyncio.sleep(pause * self.settings["webhook_backoff"])

    async def attempt(self, task, url, body, event, attempt):
        """Post a notice once; return (status, error)."""
        headers = {"Content-Type": "application/json",
                   "Sixtyfour-Event-Id": event,
                   "Sixtyfour-Event-Type": "task." + task.status,
                   "Sixtyfour-Delivery-Attempt": str(attempt)}
        if self.keys():
            headers["Sixtyfour-Signature"] = signature(
                self.keys(), int(time.time()), body)
        if self.session is None:
            self.session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS))
        try:
            async with self.session.post(url, data=body, headers=headers,
                                         allow_redirects=False) as answer:
                return answer.status, None
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            return None, type(error).__name__

    async def close(self):
        """Stop all deliveries."""
        for delivery in list(self.running):
            delivery.cancel()
        if self.session:
            await self.session.close()
