#!/usr/bin/env python3
"""A model of jobs, calls, worker, wire and service, searched exhaustively.

    model.py                the design as it is: no violation is to be found
    model.py --break NAME   a design with a mistake: one is to be found
    model.py --list         the names of the mistakes
    model.py --deep …       with more trouble: minutes instead of seconds

Exit status 1 if there is a violation.

Two jobs ask the same question.  A state is what the ledger holds, once as a
session sees it and once as it would be after a crash of the server; what the
worker knows; what is on the wire; and what the service did.  Every step is a
transaction, or something that a process does between two.  At each state the
worker, the server or the wire may fail, a second worker may take over while the
first goes on, the server may go on in a copy of its files, and a person may
cancel, retry, resolve, pause and resume.  How often is bounded, which makes the
search finite; within the bounds it is complete, breadth first, so that a
violation comes with a shortest way to it.

There are two kinds of service, and each is searched:
  once     it accepts whatever comes
  again    it remembers the names of the requests that it has accepted, and
           answers one that comes again with the task that it has.  It may
           forget a name when the time to send it again is over, and no request
           of that name is still on its way

Invariants, in every state:
  twice   the service accepts the question again only if a person said so
          (resubmit, abandon), or the last answer was that it cannot be done,
          or the last answer could not be read and the question is asked by
          another job than those of its call: a call that failed holds no
          question.  To retry one of its own jobs is no reason
  undone  what has ended (done, failed, rejected, abandoned) stays as it is, but
          for what failed by an answer that cannot be read: it is done when what
          is kept of it can be read after all, or open again (expired) when the
          service is to be asked about its task

In every state in which nobody is about to do anything, and no job is queued in a
database that is paused:
  stuck   each job is succeeded, failed, cancelled or uncertain, and no call is
          sending or accepted
  lost    each accepted task has its result, its failure or its raw text in the
          ledger, or a call about it is uncertain or expired and so in front of
          a person, who has not given it up.  Not so where the server goes on
          in a copy that is older than the call

Not in the model: operations that answer at once, calls of several items,
answers that can be read but give no result (whoever retries those is told that
it may cost again), what is kept too long, budgets, rates, delivery to rows, and
a standby that lacks the last commits unless it lacks all.
"""
import argparse
import gc
import sys
from collections import namedtuple

# ---- states ----

# job: state, call (index or None), again: queued by the retry of a job whose
# answer the service still has
Job = namedtuple("Job", "state call again", defaults=(False,))
# call: state, epoch, task (index or None), result, open (holds its question),
# kept (failed by an answer that cannot be read, whose text is kept), candidate
# (a task to ask about), over (the time to send it again)
Call = namedtuple("Call", "state epoch task result open kept candidate over",
                  defaults=(None, False, True, False, None, False))
# the tables, as one version of them; paused: None, "paused", or "behind" if
# it is a copy that lacks what the service did
Ledger = namedtuple("Ledger", "jobs calls epoch paused")
# a worker: epoch, calls to be sent, requests that are out or replied, calls
# that wait to be sent again, and tasks that it polls.  A request: (call, reply,
# whether it was sent before), reply None until it is there
Worker = namedtuple("Worker", "epoch to_send out again tasks")
# a request on the wire: worker (0, 1, None: nobody listens), call, name (None:
# the service does not look at it), task, answered
Wire = namedtuple("Wire", "worker call name task answered")
# how often something may still go wrong, and a person may still act
Left = namedtuple("Left", "trouble people")
# tasks of the service: running, completed, failed; names: what it remembers, as
# (name, task); released: what a person has said; anew: what was asked anew
# after an answer that cannot be read
State = namedtuple("State", "now safe workers wire tasks names released anew left")

CLOSED = ("done", "failed", "rejected", "abandoned")
HELD = ("uncertain", "expired")
KINDS = ("once", "again")

MISTAKES = {
    "requeue-on-timeout": "an answer that does not come puts the jobs back into the queue",
    "requeue-on-takeover": "what a worker was sending when it died is sent again",
    "send-before-durable": "a call is sent while its commit may still be lost",
    "libcurl-resends": "the transport repeats a request whose connection died",
    "no-join": "the same question is asked though a call holds it",
    "uncertain-frees": "an uncertain call no longer holds its question",
    "cancel-closes": "the last job's cancellation closes the call",
    "close-before-result": "a call is done in one transaction, its result comes in the next",
    "unfenced": "a worker's changes are guarded neither by state nor by epoch",
    "poll-error-closes": "a poll that fails makes the call fail",
    "no-takeover": "a new worker does not look at what the last one was sending",
    "resolve-unguarded": "a person's decision does not look at the state of the call",
    "copy-goes-on": "a worker does not notice that its database is a copy",
    "resend-unknown": "the next worker sends again what the service does not know again",
    "new-name": "what is sent again has a new name",
    "service-forgets": "the service forgets a name while it may be sent again",
    "no-window": "what has no answer is sent again for as long as it takes",
    "other-key": "what has no answer is sent again though the key is another",
    "refusal-believed": "a refusal of what is sent again is one of what was sent before",
    "retry-buys": "a job whose answer cannot be read is asked again as any that failed",
    "cancelled-buys": "so is only one that was cancelled before that answer came",
    "reopen-unguarded": "a retry does not look whether another one has done its work",
    "reopened-frees": "a call that is open again does not hold its question",
}
# mistakes in what only a service of the second kind makes possible
OF_NAMES = ("new-name", "service-forgets", "no-window", "other-key", "refusal-believed")


def replace(sequence, index, value):
    """Return a tuple with one element changed."""
    return sequence[:index] + (value,) + sequence[index + 1:]


class Model:
    """The steps that lead from a state to the next."""

    def __init__(self, mistake=None, kind="once", bounds=Left(3, 2), max_calls=3):
        self.mistake = mistake
        self.known = kind == "again"
        self.resends = self.known or mistake == "resend-unknown"
        self.bounds = bounds
        self.max_calls = max_calls

    def initial(self):
        ledger = Ledger((Job("queued", None),) * 2, (), 0, None)
        return State(ledger, ledger, (None, None), (), (), (), 0, 0, self.bounds)

    # ---- transactions ----

    @staticmethod
    def carry(ledger):
        """Jobs follow their calls."""
        jobs = list(ledger.jobs)
        for i, job in enumerate(jobs):
            if job.state not in ("sending", "running", "uncertain"):
                continue
            call = ledger.calls[job.call]
            state = {"sending": "sending", "accepted": "running", "uncertain": "uncertain",
                     "expired": "uncertain", "failed": "failed", "abandoned": "failed",
                     "rejected": "queued",
                     "done": "succeeded" if call.result else "failed"}[call.state]
            jobs[i] = Job(state, None if state == "queued" else job.call)
        return ledger._replace(jobs=tuple(jobs))

    @staticmethod
    def commit(state, ledger, durable):
        """The log is written in order: a durable commit takes along all before."""
        return state._replace(now=ledger, safe=ledger if durable else state.safe)

    def change_call(self, ledger, index, guard, owner, **changes):
        """A guarded transition; None if it does not apply."""
        call = ledger.calls[index]
        if self.mistake != "unfenced" and (
                call.state not in guard or owner is not None and call.epoch != owner):
            return None
        call = call._replace(**changes)
        if call.state in CLOSED:
            call = call._replace(open=False)
        if call.state not in HELD:
            call = call._replace(candidate=None)
        return self.carry(ledger._replace(calls=replace(ledger.calls, index, call)))

    # ---- steps of the worker ----

    def is_sent_again(self, ledger, index):
        """May a call without an answer be sent (again), here and now?"""
        if not self.resends:
            return False
        if ledger.calls[index].over and self.mistake != "no-window":
            return False
        return not ledger.paused and any(job.state == "sending" and job.call == index for job in ledger.jobs)

    def taken_over(self, ledger, index, epoch):
        """A call as the next worker takes it over."""
        call = ledger.calls[index]
        if call.state in CLOSED or call.state == "sending" and self.mistake == "no-takeover":
            return call
        if call.state != "sending" or self.is_sent_again(ledger, index):
            return call._replace(epoch=epoch)
        if self.mistake == "requeue-on-takeover":
            return call._replace(state="rejected", open=False, epoch=epoch)
        return call._replace(state="uncertain", epoch=epoch,
                             open=call.open and self.mistake != "uncertain-frees")

    def take_over(self, state, slot):
        """A worker starts: the next epoch; what was being sent is uncertain, or sent again."""
        epoch = state.now.epoch + 1
        calls = tuple(self.taken_over(state.now, i, epoch) for i in range(len(state.now.calls)))
        ledger = self.carry(state.now._replace(calls=calls, epoch=epoch))
        tasks = frozenset(i for i, call in enumerate(calls) if call.state == "accepted")
        again = frozenset(i for i, call in enumerate(calls) if call.state == "sending" and call.epoch == epoch)
        worker = Worker(epoch, (), (), again, tasks)
        return self.commit(state._replace(workers=replace(state.workers, slot, worker)), ledger, True)

    def claim(self, state, slot, index):
        """A queued job joins a call, takes a stored result, or gets a call (T1)."""
        worker, ledger = state.workers[slot], state.now
        if ledger.paused:
            return None
        for i, call in enumerate(ledger.calls):
            if self.mistake == "no-join":
                break
            if call.result:
                job = Job("succeeded", i)
                break
            if call.open:
                job = Job({"sending": "sending", "accepted": "running"}.get(call.state, "uncertain"), i)
                break
        else:
            i = None
        if ledger.calls and i is not None and self.mistake != "no-join":
            return self.commit(state, ledger._replace(jobs=replace(ledger.jobs, index, job)), False)
        if len(ledger.calls) >= self.max_calls:
            return None
        if ledger.epoch != worker.epoch and self.mistake != "unfenced":
            return self.end_worker(state, slot)
        if not ledger.jobs[index].again and any(
                call.kept and not call.open and call.state in ("failed", "expired") for call in ledger.calls):
            state = state._replace(anew=state.anew + 1)
        number = len(ledger.calls)
        ledger = ledger._replace(
            jobs=replace(ledger.jobs, index, Job("sending", number)),
            calls=ledger.calls + (Call("sending", worker.epoch),))
        worker = worker._replace(to_send=worker.to_send + (number,))
        return self.commit(state._replace(workers=replace(state.workers, slot, worker)), ledger,
                           self.mistake != "send-before-durable")

    @staticmethod
    def end_worker(state, slot):
        """A worker is no more; nobody listens to the replies to its requests."""
        return state._replace(workers=replace(state.workers, slot, None), wire=tuple(
            request._replace(worker=None) if request.worker == slot else request for request in state.wire))

    def record(self, state, slot, entry):
        """T2: a reply, or its lack, goes into the ledger; or the call is to be sent again."""
        number, (kind, task), before = entry
        worker = state.workers[slot]
        worker = worker._replace(out=tuple(o for o in worker.out if o != entry))
        if kind == "refused" and before and self.mistake != "refusal-believed":
            kind = "nothing"
        if kind == "nothing" and self.known and (
                not state.now.calls[number].over or self.mistake == "no-window"):
            return state._replace(workers=replace(
                state.workers, slot, worker._replace(again=worker.again | {number})))
        if kind == "accepted":
            change = dict(state="accepted", task=task)
        elif kind == "refused" or kind == "nothing" and self.mistake == "requeue-on-timeout":
            change = dict(state="rejected")
        else:
            change = dict(state="uncertain")
            if self.mistake == "uncertain-frees":
                change["open"] = False
        ledger = self.change_call(state.now, number, ("sending",), worker.epoch, **change)
        if ledger is None:
            ledger = state.now
        elif kind == "accepted":
            worker = worker._replace(tasks=worker.tasks | {number})
        return self.commit(state._replace(workers=replace(state.workers, slot, worker)), ledger, True)

    @staticmethod
    def send(state, slot, number, name, before):
        """A request goes out."""
        worker = state.workers[slot]
        worker = worker._replace(to_send=tuple(n for n in worker.to_send if n != number),
                                 again=worker.again - {number},
                                 out=worker.out + ((number, None, before),))
        return state._replace(workers=replace(state.workers, slot, worker),
                              wire=state.wire + (Wire(slot, number, name, None, False),))

    def give_up(self, state, slot, number):
        """What waits to be sent again is uncertain."""
        worker = state.workers[slot]
        worker = worker._replace(again=worker.again - {number})
        ledger = self.change_call(state.now, number, ("sending",), worker.epoch, state="uncertain")
        return self.commit(state._replace(workers=replace(state.workers, slot, worker)),
                           ledger or state.now, True)

    def name(self, number):
        """The name by which the service knows a call's request again."""
        return number if self.known else None

    def send_again(self, state, slot, number):
        """What waits to be sent again is sent, or given up."""
        ledger = state.now
        if self.is_sent_again(ledger, number):
            return self.send(state, slot, number, None if self.mistake == "new-name" else self.name(number), True)
        wanted = any(job.state == "sending" and job.call == number for job in ledger.jobs)
        if ledger.paused and wanted and not ledger.calls[number].over:
            return None
        return self.give_up(state, slot, number)

    def ask_about(self, state, slot, number):
        """A candidate: the call holds its question again, then the task is known to be its."""
        worker, call = state.workers[slot], state.now.calls[number]
        if worker.epoch != state.now.epoch and self.mistake != "unfenced":
            return None
        if any(other.task == call.candidate for i, other in enumerate(state.now.calls) if i != number):
            return self.commit(state, state.now._replace(
                calls=replace(state.now.calls, number, call._replace(candidate=None))), True)
        held = any(other.open for other in state.now.calls)
        if not held and self.mistake != "reopened-frees":
            return self.commit(state, state.now._replace(
                calls=replace(state.now.calls, number, call._replace(open=True))), False)
        ledger = self.change_call(state.now, number, HELD, None, state="accepted",
                                  task=call.candidate, epoch=worker.epoch)
        worker = worker._replace(tasks=worker.tasks | {number})
        return ledger and self.commit(
            state._replace(workers=replace(state.workers, slot, worker)), ledger, True)

    def poll(self, state, slot, number, lost):
        """A poll and its T3, if the task has ended."""
        worker, call = state.workers[slot], state.now.calls[number]
        done = state._replace(workers=replace(
            state.workers, slot, worker._replace(tasks=worker.tasks - {number})))
        if lost:
            if self.mistake != "poll-error-closes":
                return None
            ledger = self.change_call(state.now, number, ("accepted",), worker.epoch, state="failed")
            return self.commit(done, ledger or state.now, True)
        outcome = state.tasks[call.task] if call.task is not None else "running"
        if outcome == "running":
            return None
        if outcome == "failed":
            change = dict(state="failed", kept=False)
        elif self.mistake == "close-before-result":
            change = dict(state="done")
        else:
            change = dict(state="done", result=True)
        ledger = self.change_call(state.now, number, ("accepted",), worker.epoch, **change)
        return self.commit(done, ledger or state.now, True)

    def worker_steps(self, state, slot):
        worker = state.workers[slot]
        for i, job in enumerate(state.now.jobs):
            if job.state == "queued":
                yield f"worker {slot} claims job {i}", self.claim(state, slot, i)
        for number in worker.to_send:
            yield f"worker {slot} sends call {number}", self.send(state, slot, number, self.name(number), False)
        for entry in worker.out:
            if entry[1] is not None:
                yield f"worker {slot} records {entry[1][0]} of call {entry[0]}", self.record(state, slot, entry)
        for number in worker.again:
            yield f"worker {slot} comes back to call {number}", self.send_again(state, slot, number)
        for number in worker.tasks:
            yield f"worker {slot} polls call {number}", self.poll(state, slot, number, False)
        for number, call in enumerate(state.now.calls):
            if call.state in HELD and call.candidate is not None:
                yield f"worker {slot} asks about the candidate of call {number}", self.ask_about(state, slot, number)
        if self.mistake == "close-before-result":
            for i, call in enumerate(state.now.calls):
                if call.state == "done" and not call.result and worker.epoch == call.epoch:
                    yield f"worker {slot} stores the result of call {i}", self.commit(
                        state, state.now._replace(calls=replace(state.now.calls, i, call._replace(result=True))),
                        True)

    # ---- the wire and the service ----

    @staticmethod
    def reply(state, request, reply):
        """A reply reaches the worker that still waits for it."""
        if request.worker is None:
            return state
        worker = state.workers[request.worker]
        out = tuple((n, reply, b) if (n, r) == (request.call, None) else (n, r, b) for n, r, b in worker.out)
        return state._replace(workers=replace(state.workers, request.worker, worker._replace(out=out)))

    @staticmethod
    def arrive(state, i):
        """The service accepts a request, or finds that it has already."""
        request = state.wire[i]
        task = dict(state.names).get(request.name)
        if task is None:
            task = len(state.tasks)
            state = state._replace(tasks=state.tasks + ("running",))
            if request.name is not None:
                state = state._replace(names=state.names + ((request.name, task),))
        return state._replace(wire=replace(state.wire, i, request._replace(task=task, answered=True)))

    def may_forget(self, state, name):
        """Does the service remember a name no longer?"""
        return self.mistake == "service-forgets" or (
            len(state.now.calls) > name and state.now.calls[name].over and
            all(request.name != name for request in state.wire) and
            all(name not in worker.to_send for worker in state.workers if worker))

    def wire_steps(self, state):
        for i, request in enumerate(state.wire):
            gone = state._replace(wire=state.wire[:i] + state.wire[i + 1:])
            if request.answered:
                yield f"call {request.call} has its reply", self.reply(
                    gone, request, ("accepted", request.task))
            else:
                yield f"the service accepts call {request.call}", self.arrive(state, i)
        for i, task in enumerate(state.tasks):
            if task == "running":
                yield f"task {i} is completed", state._replace(
                    tasks=replace(state.tasks, i, "completed"))
        for i, (name, _) in enumerate(state.names):
            if self.may_forget(state, name):
                yield f"the service forgets call {name}", state._replace(
                    names=state.names[:i] + state.names[i + 1:])
        for i, call in enumerate(state.now.calls):
            if self.resends and call.state == "sending" and not call.over:
                yield f"the time to send call {i} again is over", self.pass_time(state, i)

    @staticmethod
    def pass_time(state, number):
        """Time passes in every version of the ledger."""
        now, safe = (ledger._replace(calls=replace(ledger.calls, number, ledger.calls[number]._replace(over=True)))
                     if number < len(ledger.calls) else ledger for ledger in (state.now, state.safe))
        return state._replace(now=now, safe=safe)

    # ---- what goes wrong ----

    def wire_faults(self, state):
        for i, request in enumerate(state.wire):
            gone = state._replace(wire=state.wire[:i] + state.wire[i + 1:])
            what = "reply" if request.answered else "request"
            if request.answered and self.mistake == "libcurl-resends":
                yield f"the reply of call {request.call} is lost, it is sent again", state._replace(
                    wire=replace(state.wire, i, request._replace(task=None, answered=False)))
            if request.worker is not None or not request.answered:
                yield f"the {what} of call {request.call} is lost", self.reply(gone, request, ("nothing", None))
            if request.worker is not None:
                # the request goes on its way
                ignored = state._replace(wire=replace(state.wire, i, request._replace(worker=None)))
                yield f"worker {request.worker} gives up waiting for call {request.call}", self.reply(
                    ignored, request, ("nothing", None))
            if request.worker is not None and not request.answered:
                yield f"the service refuses call {request.call}", self.reply(gone, request, ("refused", None))

    def task_faults(self, state):
        for i, task in enumerate(state.tasks):
            if task == "running":
                yield f"task {i} fails", state._replace(tasks=replace(state.tasks, i, "failed"))
        for slot, worker in enumerate(state.workers):
            for number in worker.tasks if worker else ():
                yield f"a poll of call {number} is lost", self.poll(state, slot, number, True)
                fewer = state._replace(workers=replace(
                    state.workers, slot, worker._replace(tasks=worker.tasks - {number})))
                for name, changes in ((f"call {number} expires", dict(state="expired")),
                                      (f"the answer to call {number} cannot be read", dict(state="failed", kept=True))):
                    ledger = self.change_call(state.now, number, ("accepted",), worker.epoch, **changes)
                    if ledger is not None and state.now.calls[number].task is not None:
                        yield name, self.commit(fewer, ledger, True)

    def candidate_faults(self, state):
        if not self.is_manned(state):
            return
        for i, call in enumerate(state.now.calls):
            if call.state in HELD and call.candidate is not None:
                yield f"the service does not know the candidate of call {i}", self.commit(
                    state, state.now._replace(calls=replace(state.now.calls, i, call._replace(candidate=None))), True)

    def worker_faults(self, state):
        for slot, worker in enumerate(state.workers):
            if worker is None:
                continue
            yield f"worker {slot} is killed", self.end_worker(state, slot)
            for number in worker.again:
                yield f"the key for call {number} is another", (
                    self.send(state, slot, number, None, True) if self.mistake == "other-key"
                    else self.give_up(state, slot, number))

    def server_faults(self, state):
        stopped = self.end_worker(self.end_worker(state, 0), 1)
        yield "the server crashes", stopped._replace(now=stopped.safe)
        elsewhere = stopped.safe._replace(paused=stopped.safe.paused or self.pause("paused"))
        yield "the server goes on in a copy", stopped._replace(now=elsewhere, safe=elsewhere)
        behind = self.initial().now._replace(paused=self.pause("behind"))
        yield "the server goes on in a copy that is old", stopped._replace(now=behind, safe=behind)

    def pause(self, reason):
        """What a worker does that finds itself elsewhere."""
        return None if self.mistake == "copy-goes-on" else reason

    def fault_steps(self, state):
        if state.left.trouble > 0:
            less = state._replace(left=state.left._replace(trouble=state.left.trouble - 1))
            for faults in (self.wire_faults, self.task_faults, self.candidate_faults,
                           self.worker_faults, self.server_faults):
                yield from faults(less)
        if state.now != state.safe:
            yield "what was committed becomes durable", state._replace(safe=state.now)

    @staticmethod
    def is_manned(state):
        """Is there a worker that has not been replaced?"""
        return any(worker is not None and worker.epoch >= state.now.epoch for worker in state.workers)

    def start_steps(self, state):
        """There is one worker, besides one that does not know that it was replaced."""
        if self.is_manned(state) and state.left.trouble > 0:
            less = state._replace(left=state.left._replace(trouble=state.left.trouble - 1))
            for slot in (0, 1):
                if state.workers[slot] is None:
                    yield f"worker {slot} takes over from one that goes on", self.take_over(less, slot)

    # ---- people ----

    def cancel(self, state, i):
        """sixtyfour_cancel()"""
        ledger, job = state.now, state.now.jobs[i]
        calls = ledger.calls
        others = [j for k, j in enumerate(ledger.jobs) if k != i and j.call == job.call]
        if self.mistake == "cancel-closes" and job.call is not None and not any(
                j.state != "cancelled" for j in others):
            calls = replace(calls, job.call, calls[job.call]._replace(state="abandoned", open=False))
        return self.commit(state, ledger._replace(
            jobs=replace(ledger.jobs, i, Job("cancelled", job.call)), calls=calls), False)

    def retry(self, state, i):
        """sixtyfour_retry(): what is kept is read, or its task asked about, or the question asked anew."""
        ledger, job = state.now, state.now.jobs[i]
        call = ledger.calls[job.call] if job.call is not None else None

        def moved(to, calls=ledger.calls):
            return self.commit(state, ledger._replace(jobs=replace(ledger.jobs, i, to), calls=calls), False)

        kept = call is not None and call.kept and (
            job.state == "failed" or call.state == "failed" or call.state == "expired" and not call.open)
        unguarded = self.mistake == "reopen-unguarded"
        if kept and (self.mistake == "retry-buys" or
                     self.mistake == "cancelled-buys" and job.state == "cancelled"):
            yield "anew", moved(Job("queued", None, True))
        elif kept and call.result and not unguarded:
            yield "which has its answer", moved(Job("succeeded", job.call))
        elif kept and (call.state == "failed" or unguarded):
            yield "whose answer can be read", moved(Job("succeeded", job.call), replace(
                ledger.calls, job.call, call._replace(state="done", result=True)))
            yield "about whose task the service is asked", moved(Job("uncertain", job.call), replace(
                ledger.calls, job.call, call._replace(state="expired", candidate=call.task)))
        elif kept and call.state in ("accepted", "expired"):
            yield "which follows its call", moved(
                Job("running" if call.state == "accepted" else "uncertain", job.call))
        else:
            yield "anew", moved(Job("queued", None))

    def resolve(self, state, i):
        """sixtyfour_resolve()"""
        ledger, call = state.now, state.now.calls[i]
        released = state._replace(released=state.released + 1)
        for action, to in (("resubmits", "rejected"), ("abandons", "abandoned")):
            changed = self.carry(ledger._replace(calls=replace(
                ledger.calls, i, call._replace(state=to, open=False, candidate=None))))
            yield f"a person {action} call {i}", self.commit(released, changed, False)
        if call.candidate is not None:
            return
        taken = {request.task for request in state.wire} | {
            reply[1] for worker in state.workers if worker for _, reply, _ in worker.out if reply}
        for task in range(len(state.tasks)):
            if task in taken or any(task in (other.task, other.candidate)
                                    for k, other in enumerate(ledger.calls) if k != i):
                continue
            changed = ledger._replace(calls=replace(ledger.calls, i, call._replace(candidate=task)))
            yield f"a person names task {task} for call {i}", self.commit(state, changed, False)

    def people_steps(self, state):
        if state.left.people == 0:
            return
        less = state._replace(left=state.left._replace(people=state.left.people - 1))
        ledger = less.now
        for i, job in enumerate(ledger.jobs):
            if job.state in ("queued", "sending", "running", "uncertain"):
                yield f"a person cancels job {i}", self.cancel(less, i)
            elif job.state in ("failed", "cancelled"):
                for how, after in self.retry(less, i):
                    yield f"a person retries job {i}, {how}", after
        for i, call in enumerate(ledger.calls):
            if call.state in HELD or self.mistake == "resolve-unguarded":
                yield from self.resolve(less, i)
        if ledger.paused != "behind":
            paused = None if ledger.paused else "paused"
            yield f"a person {'pauses' if paused else 'resumes'}", self.commit(
                less, ledger._replace(paused=paused), False)

    # ---- all together ----

    def progress(self, state):
        """Steps that need no fault and no person."""
        if not self.is_manned(state):
            yield "a worker starts", self.take_over(state, state.workers.index(None))
        for slot in (0, 1):
            if state.workers[slot] is not None:
                yield from self.worker_steps(state, slot)
        yield from self.wire_steps(state)

    def trouble(self, state):
        """Steps that need a fault or a person."""
        yield from self.start_steps(state)
        yield from self.fault_steps(state)
        yield from self.people_steps(state)

    @staticmethod
    def may_change(old, new):
        """May a call that has ended be what it is now?"""
        if old.result and not new.result:
            return False
        return new.state == old.state or (
            old.state == "failed" and old.kept and (new.state == "expired" or new.state == "done" and new.result))

    def faulty(self, before, name, state):
        """The invariant that a step breaks, or None."""
        excused = state.released + state.anew + sum(task == "failed" for task in state.tasks)
        if len(state.tasks) > 1 + excused:
            return "twice"
        if name.startswith("the server"):
            return None
        if any(old.state in CLOSED and not self.may_change(old, new)
               for old, new in zip(before.now.calls, state.now.calls)):
            return "undone"
        return None

    def unsettled(self, state):
        """What is wrong with a state in which nobody is about to do anything."""
        if state.now.paused and any(job.state == "queued" for job in state.now.jobs):
            return None
        for job in state.now.jobs:
            if job.state in ("queued", "sending", "running") and len(state.now.calls) < self.max_calls:
                return "stuck"
        for call in state.now.calls:
            if call.state in ("sending", "accepted"):
                return "stuck"
        if state.now.paused == "behind":
            return None
        known = {call.task for call in state.now.calls if call.result or
                 call.state == "failed" and (call.kept or state.tasks[call.task] == "failed")}
        held = sum(call.state in HELD for call in state.now.calls)
        missing = [i for i in range(len(state.tasks)) if i not in known]
        return "lost" if len(missing) > held + state.released else None

    # ---- states that are alike ----

    def without_useless(self, state):
        """A worker that was replaced can change nothing, only send what it was about to."""
        for slot, worker in enumerate(state.workers):
            if worker is None or worker.epoch == state.now.epoch or self.mistake == "unfenced":
                continue
            if worker.to_send or worker.out or worker.again:
                if worker.tasks:
                    state = state._replace(workers=replace(
                        state.workers, slot, worker._replace(tasks=frozenset())))
            else:
                state = self.end_worker(state, slot)
        return state

    @staticmethod
    def without_names(state):
        """Forget names, and that time is over, where nobody can send the request any more."""
        if not state.names and not any(call.over for call in state.now.calls):
            return state
        needed = {request.call for request in state.wire}
        for worker in state.workers:
            if worker:
                needed.update(worker.to_send, worker.again, (number for number, _, _ in worker.out))
        for ledger in (state.now, state.safe):
            needed.update(i for i, call in enumerate(ledger.calls) if call.state == "sending")

        def timeless(ledger):
            if not any(call.over and i not in needed for i, call in enumerate(ledger.calls)):
                return ledger
            return ledger._replace(calls=tuple(
                call if i in needed else call._replace(over=False) for i, call in enumerate(ledger.calls)))

        return state._replace(now=timeless(state.now), safe=timeless(state.safe),
                              names=tuple(name for name in state.names if name[0] in needed))

    @staticmethod
    def in_order(state):
        """Of workers, jobs and requests that could be exchanged, one order is looked at."""
        first, second = state.workers
        if second is not None and (first is None or first.epoch > second.epoch):
            state = state._replace(workers=(second, first), wire=tuple(
                request if request.worker is None else request._replace(worker=1 - request.worker)
                for request in state.wire))
        if len(state.wire) > 1:
            state = state._replace(wire=tuple(sorted(state.wire, key=repr)))
        now, safe = state.now, state.safe
        keys = [[(jobs[i].state, -1 if jobs[i].call is None else jobs[i].call)
                 for jobs in (now.jobs, safe.jobs)] for i in (0, 1)]
        if keys[0] <= keys[1]:
            return state
        return state._replace(now=now._replace(jobs=now.jobs[::-1]), safe=safe._replace(jobs=safe.jobs[::-1]))

    def canonical(self, state):
        """Of states that are alike, the one that is looked at."""
        state = self.without_useless(state)
        if self.known:
            state = self.without_names(state)
        return self.in_order(state)

    def search(self, limit=20000000):
        """Return (states seen, violated invariant or None, the way to it)."""
        start = self.initial()
        came = {start: None}
        todo = [start]
        while todo:
            following = []
            for state in todo:
                steps = [(name, after._replace(left=state.left)) for name, after in self.progress(state)
                         if after is not None]
                wrong = self.unsettled(state) if all(after == state for _, after in steps) else None
                if wrong:
                    return len(came), wrong, self.way(came, state)
                steps.extend(self.trouble(state))
                for name, after in steps:
                    after = after and self.canonical(after)
                    if after is None or after in came:
                        continue
                    came[after] = (state, name)
                    wrong = self.faulty(state, name, after)
                    if wrong:
                        return len(came), wrong, self.way(came, after)
                    following.append(after)
            todo = following
            if len(came) > limit:
                raise SystemExit(f"more than {limit} states")
        return len(came), None, []

    @staticmethod
    def way(came, state):
        names = []
        while came[state]:
            state, name = came[state]
            names.append(name)
        return names[::-1]


def searches(mistake, deep):
    """The kinds and bounds to search, of which each may find what the others do not."""
    kinds = ("again",) if mistake in OF_NAMES else KINDS
    if mistake:  # the small ones first, as one violation is enough
        return [(kind, bounds) for kind in kinds
                for bounds in (Left(1, 1), Left(2, 0), Left(1, 2), Left(2, 1))]
    if deep:
        return [(kind, bounds) for bounds in (Left(2, 2), Left(3, 1)) for kind in kinds]
    return [("once", Left(1, 2)), ("once", Left(2, 1)), ("again", Left(1, 2)), ("again", Left(2, 0))]


def report(mistake, deep):
    """Search until something is found."""
    total = 0
    for kind, bounds in searches(mistake, deep):
        states, wrong, way = Model(mistake, kind, bounds).search()
        total += states
        said = f"{wrong}: {'; '.join(way)}" if wrong else "no violation"
        print(f"{mistake or 'the design'}, {kind}, {bounds.trouble} x trouble, {bounds.people} x people:"
              f" {states} states, {said}", flush=True)
        if wrong:
            return 1
    print(f"{total} states in all, no violation")
    return 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--break", dest="mistake", choices=sorted(MISTAKES))
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--deep", action="store_true")
    options = parser.parse_args()
    if options.list:
        for name, text in MISTAKES.items():
            print(f"{name}: {text}")
        return 0
    gc.disable()  # there are many objects, and no cycles
    return report(options.mistake, options.deep)


if __name__ == "__main__":
    sys.exit(main())
