"""Results as files: tables of rows, and the signed addresses that give them.

A table of a given number of rows is made while it is sent, so that its size
costs no memory.
"""

import csv
import hashlib
import hmac
import io
import itertools
import secrets
import time
from urllib.parse import quote, urlencode, urlsplit

import answers
from checks import TEXT, Field
from routes import Reply, Route, Stream, detail, encode

EXPIRED = (b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied'
           b"</Code><Message>Request has expired</Message></Error>")
TYPES = {"csv": "text/csv", "json": "application/json"}
POOL = 60
BATCH = 1000


class Rows:
    """A table that is held as a list of rows."""

    def __init__(self, rows):
        self.list = rows

    def __len__(self):
        return len(self.list)

    def __iter__(self):
        return iter(self.list)

    def csv(self):
        """Return the table as CSV."""
        return answers.write_csv(self.list).encode()


class RawCsv:
    """A table that a test has spelled itself, however badly."""

    def __init__(self, text):
        self.text = text

    def __iter__(self):
        lines = csv.reader(io.StringIO(self.text.lstrip("\ufeff"),
                                       newline=""))
        header = next(lines, ())
        return (dict(zip(header, line)) for line in lines)

    def __len__(self):
        try:
            return sum(1 for _ in self)
        except csv.Error:
            return 0

    def csv(self):
        """Return the text."""
        return self.text.encode("utf-8", "surrogatepass")


class ManyRows:
    """A table of numbered rows, each made when it is needed."""

    def __init__(self, count):
        self.count = count
        self.pool = answers.search_rows("many rows", "people",
                                        min(count, POOL))

    def __len__(self):
        return self.count

    def __iter__(self):
        for number in range(self.count):
            yield {"row_number": number + 1, **self.pool[number % POOL]}

    def csv(self):
        """Return the table as a stream of CSV."""
        if not self.count:
            return b"row_number\r\n"
        names = ["row_number", *self.pool[0]]
        header = (",".join(names) + "\r\n").encode()
        tails = [self.tail(row) for row in self.pool]
        rounds, rest = divmod(self.count, POOL)
        length = (len(header) + digits(self.count)
                  + rounds * sum(map(len, tails))
                  + sum(map(len, tails[:rest])))
        return Stream(itertools.chain([header], self.lines(tails)), length)

    def tail(self, row):
        """Return a row's line of CSV without the number at its start."""
        text = answers.write_csv([{"row_number": "", **row}])
        return text.partition("\r\n")[2].encode()

    def lines(self, tails):
        """Yield all lines, some at a time."""
        for start in range(0, self.count, BATCH):
            yield b"".join(
                b"%d%b" % (number + 1, tails[number % POOL]) for number
                in range(start, min(start + BATCH, self.count)))


def digits(count):
    """Return how many digits the numbers from 1 to count have."""
    total, first, width = 0, 1, 1
    while first <= count:
        total += width * (min(count, first * 10 - 1) - first + 1)
        first, width = first * 10, width + 1
    return total


def as_json(table):
    """Yield a table as JSON, some rows at a time."""
    rows, start = iter(table), b"["
    while True:
        some = list(itertools.islice(rows, BATCH))
        if not some:
            break
        yield start + b",".join(map(encode, some))
        start = b","
    yield b"]" if start == b"," else b"[]"


def forced(rule):
    """Return the table that a rule wants as result, or None."""
    if "result_csv" in rule:
        return RawCsv(rule["result_csv"])
    if "result_rows" in rule:
        return ManyRows(rule["result_rows"])
    if isinstance(rule.get("result"), list):
        return Rows(rule["result"])
    return None


class Files:
    """Tables behind signed addresses that expire."""

    def __init__(self, settings):
        self.settings = settings
        self.secret = secrets.token_bytes(16)
        self.makers = {}

    def routes(self):
        """Yield the route of the files."""
        yield Route("GET", "/files/{}", self.fetch, needs_key=False,
                    parameters={"expires": Field(TEXT),
                                "signature": Field(TEXT)})

    def sign(self, name, expires):
        """Return the signature of a file's address."""
        return hmac.new(self.secret, f"{name}|{expires}".encode(),
                        hashlib.sha256).hexdigest()

    def address(self, call, name, make_table, kind="csv"):
        """Return a signed address for a table; its name ends with its kind."""
        self.makers[name] = make_table, kind
        origin = call.origin
        if call.knobs["download_host"]:
            port = urlsplit(origin).port
            origin = (f"{urlsplit(origin).scheme}://"
                      f"{call.knobs['download_host']}:{port}")
        expires = str(time.time() + call.knobs["download_seconds"])
        query = urlencode({"expires": expires,
                           "signature": self.sign(name, expires)})
        return f"{origin}/files/{quote(name, safe='')}?{query}"

    def fetch(self, call):
        """Answer with a file."""
        name, expires = call.params[0], call.query.get("expires", "0")
        given = call.query.get("signature", "")
        good = hmac.compare_digest(given.encode(),
                                   self.sign(name, expires).encode())
        if not good or float(expires) < time.time():
            return Reply(403, EXPIRED, content_type="application/xml")
        if name not in self.makers:
            raise detail(404, "No such file")
        make_table, kind = self.makers[name]
        table = make_table()
        body = table.csv() if kind == "csv" else Stream(as_json(table))
        return Reply(200, body, content_type=TYPES[kind])
