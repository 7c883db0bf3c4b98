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
first goes on, and a person may cancel, retry and resolve.  How often is
bounded, which makes the search finite; within the bounds it is complete,
breadth first, so that a violation comes with a shortest way to it.

Invariants, in every state:
  twice   the service accepts the question again only if a person said so
          (resubmit, abandon), or the last answer was that it cannot be done
  undone  what has ended (done, failed, rejected, abandoned) stays as it is

In every state in which nobody is about to do anything:
  stuck   each job is succeeded, failed, cancelled or uncertain, and no call is
          sending or accepted
  lost    each accepted task has its result or its failure in the ledger, or
          a call about it is uncertain or expired and so in front of a person,
          who has not given it up
"""
import argparse
import sys
from collections import namedtuple

# ---- states ----

# job: state, call (index or None)
Job = namedtuple("Job", "state call")
# call: state, epoch, task (index or None), result, open (holds its question)
Call = namedtuple("Call", "state epoch task result open")
# the tables, as one version of them
Ledger = namedtuple("Ledger", "jobs calls epoch")
# a worker: epoch, calls to be sent, requests that are out or replied, and
# tasks that it polls.  A request: (call, reply), reply None until it is there
Worker = namedtuple("Worker", "epoch to_send out tasks")
# a request on the wire: worker (0, 1), call, accepted (None: not there yet)
Wire = namedtuple("Wire", "worker call task answered")
# how often something may still go wrong, and a person may still act
Left = namedtuple("Left", "trouble people")
State = namedtuple("State", "now safe workers wire tasks released left")

# a task of the service: running, completed, failed
CLOSED = ("done", "failed", "rejected", "abandoned")
HELD = ("uncertain", "expired")

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
}


def replace(sequence, index, value):
    """Return a tuple with one element changed."""
    return sequence[:index] + (value,) + sequence[index + 1:]


class Model:
    """The steps that lead from a state to the next."""

    def __init__(self, mistake=None, bounds=Left(3, 2), max_calls=3):
        self.mistake = mistake
        self.bounds = bounds
        self.max_calls = max_calls

    def initial(self):
        ledger = Ledger((Job("queued", None),) * 2, (), 0)
        return State(ledger, ledger, (None, None), (), (), 0, self.bounds)

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

    def change_call(self, ledger, index, guard, epoch, **changes):
        """A guarded transition; None if it does not apply."""
        call = ledger.calls[index]
        if self.mistake != "unfenced" and (
                call.state not in guard or epoch is not None and call.epoch != epoch):
            return None
        call = call._replace(**changes)
        if call.state in CLOSED:
            call = call._replace(open=False)
        return self.carry(ledger._replace(calls=replace(ledger.calls, index, call)))

    # ---- steps of the worker ----

    def take_over(self, state, slot):
        """A worker starts: the next epoch; what was being sent is uncertain."""
        epoch = state.now.epoch + 1
        calls = []
        for call in state.now.calls:
            if call.state in CLOSED:
                calls.append(call)
                continue
            if call.state == "sending" and self.mistake == "requeue-on-takeover":
                calls.append(call._replace(state="rejected", open=False, epoch=epoch))
                continue
            if call.state == "sending" and self.mistake == "no-takeover":
                calls.append(call)
                continue
            calls.append(call._replace(
                state="uncertain" if call.state == "sending" else call.state, epoch=epoch,
                open=call.open and not (call.state == "sending" and self.mistake == "uncertain-frees")))
        ledger = self.carry(state.now._replace(calls=tuple(calls), epoch=epoch))
        tasks = frozenset(i for i, call in enumerate(calls) if call.state == "accepted")
        worker = Worker(epoch, (), (), tasks)
        return self.commit(state._replace(workers=replace(state.workers, slot, worker)), ledger, True)

    def claim(self, state, slot, index):
        """A queued job joins a call, takes a stored result, or gets a call (T1)."""
        worker, ledger = state.workers[slot], state.now
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
            return state._replace(workers=replace(state.workers, slot, None))
        number = len(ledger.calls)
        ledger = ledger._replace(
            jobs=replace(ledger.jobs, index, Job("sending", number)),
            calls=ledger.calls + (Call("sending", worker.epoch, None, False, True),))
        worker = worker._replace(to_send=worker.to_send + (number,))
        return self.commit(state._replace(workers=replace(state.workers, slot, worker)), ledger,
                           self.mistake != "send-before-durable")

    def record(self, state, slot, number, reply):
        """T2: a reply, or its lack, goes into the ledger."""
        worker = state.workers[slot]
        worker = worker._replace(out=tuple(o for o in worker.out if o != (number, reply)))
        kind, task = reply
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
            change = dict(state="failed")
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
            rest = worker._replace(to_send=tuple(n for n in worker.to_send if n != number),
                                   out=worker.out + ((number, None),))
            yield f"worker {slot} sends call {number}", state._replace(
                workers=replace(state.workers, slot, rest),
                wire=state.wire + (Wire(slot, number, None, False),))
        for number, reply in worker.out:
            if reply is not None:
                yield f"worker {slot} records {reply[0]} of call {number}", self.record(
                    state, slot, number, reply)
        for number in worker.tasks:
            yield f"worker {slot} polls call {number}", self.poll(state, slot, number, False)
        named = frozenset(i for i, call in enumerate(state.now.calls)
                          if call.state == "accepted" and call.epoch != worker.epoch)
        if named:
            calls = tuple(call._replace(epoch=worker.epoch) if i in named else call
                          for i, call in enumerate(state.now.calls))
            worker = worker._replace(tasks=worker.tasks | named)
            yield f"worker {slot} adopts what was named", self.commit(
                state._replace(workers=replace(state.workers, slot, worker)),
                state.now._replace(calls=calls), False)
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
        workers = state.workers
        worker = workers[request.worker]
        if worker is not None and (request.call, None) in worker.out:
            out = tuple((n, reply) if n == request.call else (n, r) for n, r in worker.out)
            workers = replace(workers, request.worker, worker._replace(out=out))
        return state._replace(workers=workers)

    def wire_steps(self, state):
        for i, request in enumerate(state.wire):
            gone = state._replace(wire=state.wire[:i] + state.wire[i + 1:])
            if request.answered:
                yield f"call {request.call} has its reply", self.reply(
                    gone, request, ("accepted", request.task))
                continue
            task = len(state.tasks)
            yield f"the service accepts call {request.call}", state._replace(
                tasks=state.tasks + ("running",),
                wire=replace(state.wire, i, request._replace(task=task, answered=True)))
        for i, task in enumerate(state.tasks):
            if task == "running":
                yield f"task {i} is completed", state._replace(
                    tasks=replace(state.tasks, i, "completed"))

    # ---- what goes wrong ----

    def fault_steps(self, state):
        if state.left.trouble > 0:
            less = state._replace(left=state.left._replace(trouble=state.left.trouble - 1))
            for i, request in enumerate(less.wire):
                gone = less._replace(wire=less.wire[:i] + less.wire[i + 1:])
                what = "reply" if request.answered else "request"
                if request.answered and self.mistake == "libcurl-resends":
                    yield f"the reply of call {request.call} is lost, it is sent again", less._replace(
                        wire=replace(less.wire, i, request._replace(task=None, answered=False)))
                yield f"the {what} of call {request.call} is lost", self.reply(
                    gone, request, ("nothing", None))
                # the worker gives up, but the request goes on its way
                worker = less.workers[request.worker]
                if worker is not None and (request.call, None) in worker.out:
                    yield f"worker {request.worker} gives up waiting for call {request.call}", self.reply(
                        less, request, ("nothing", None))
                if not request.answered:
                    yield f"the service refuses call {request.call}", self.reply(
                        gone, request, ("refused", None))
            for i, task in enumerate(less.tasks):
                if task == "running":
                    yield f"task {i} fails", less._replace(tasks=replace(less.tasks, i, "failed"))
            for slot, worker in enumerate(less.workers):
                for number in worker.tasks if worker else ():
                    yield f"a poll of call {number} is lost", self.poll(less, slot, number, True)
                    call = less.now.calls[number]
                    ledger = self.change_call(less.now, number, ("accepted",), worker.epoch,
                                              state="expired")
                    if ledger is not None and call.task is not None:
                        fewer = worker._replace(tasks=worker.tasks - {number})
                        yield f"call {number} expires", self.commit(
                            less._replace(workers=replace(less.workers, slot, fewer)), ledger, True)
            for slot, worker in enumerate(state.workers):
                if worker is not None:
                    yield f"worker {slot} is killed", less._replace(
                        workers=replace(less.workers, slot, None))
            yield "the server crashes", less._replace(now=less.safe, workers=(None, None))
        if state.now != state.safe:
            yield "what was committed becomes durable", state._replace(safe=state.now)

    def start_steps(self, state):
        """There is one worker, besides one that does not know that it was replaced."""
        alive = [worker.epoch for worker in state.workers if worker]
        if not alive or max(alive) < state.now.epoch:
            yield "a worker starts", self.take_over(state, state.workers.index(None))
        elif state.left.trouble > 0:
            less = state._replace(left=state.left._replace(trouble=state.left.trouble - 1))
            for slot in (0, 1):
                if state.workers[slot] is None:
                    yield f"worker {slot} takes over from one that goes on", self.take_over(less, slot)

    # ---- people ----

    def people_steps(self, state):
        if state.left.people == 0:
            return
        less = state._replace(left=state.left._replace(people=state.left.people - 1))
        ledger = less.now
        for i, job in enumerate(ledger.jobs):
            if job.state in ("queued", "sending", "running", "uncertain"):
                calls = ledger.calls
                others = [j for k, j in enumerate(ledger.jobs) if k != i and j.call == job.call]
                if self.mistake == "cancel-closes" and job.call is not None and not any(
                        j.state != "cancelled" for j in others):
                    calls = replace(calls, job.call, calls[job.call]._replace(state="abandoned", open=False))
                yield f"a person cancels job {i}", self.commit(less, ledger._replace(
                    jobs=replace(ledger.jobs, i, Job("cancelled", job.call)), calls=calls), False)
            elif job.state in ("failed", "cancelled"):
                yield f"a person retries job {i}", self.commit(less, ledger._replace(
                    jobs=replace(ledger.jobs, i, Job("queued", None))), False)
        for i, call in enumerate(ledger.calls):
            if call.state not in HELD and self.mistake != "resolve-unguarded":
                continue
            released = less._replace(released=less.released + 1)
            for action, target, to in (("resubmits", released, "rejected"), ("abandons", released, "abandoned")):
                changed = self.carry(ledger._replace(calls=replace(
                    ledger.calls, i, call._replace(state=to, open=False))))
                yield f"a person {action} call {i}", self.commit(target, changed, False)
            for task in range(len(state.tasks)):
                if any(other.task == task for k, other in enumerate(ledger.calls) if k != i):
                    continue
                changed = self.carry(ledger._replace(calls=replace(ledger.calls, i, call._replace(
                    state="accepted", task=task, epoch=0))))
                yield f"a person names task {task} for call {i}", self.commit(less, changed, False)

    # ---- all together ----

    def progress(self, state):
        """Steps that need no fault and no person."""
        yield from self.start_steps(state._replace(left=state.left._replace(trouble=0)))
        for slot in (0, 1):
            if state.workers[slot] is not None:
                yield from self.worker_steps(state, slot)
        yield from self.wire_steps(state)

    def steps(self, state):
        """All steps, as (name, next state)."""
        yield from ((n, s._replace(left=state.left)) if s else (n, s) for n, s in self.progress(state))
        yield from self.start_steps(state)
        yield from self.fault_steps(state)
        yield from self.people_steps(state)

    def faulty(self, before, state):
        """The invariant that a step breaks, or None."""
        excused = state.released + sum(task == "failed" for task in state.tasks)
        if len(state.tasks) > 1 + excused:
            return "twice"
        for old, new in zip(before.now.calls, state.now.calls):
            if old.state in CLOSED and (new.state != old.state or old.result and not new.result) \
                    and len(state.now.calls) >= len(before.now.calls) and state.now != state.safe:
                return "undone"
        return None

    def unsettled(self, state):
        """What is wrong with a state in which nobody is about to do anything."""
        for job in state.now.jobs:
            if job.state in ("queued", "sending", "running") and len(state.now.calls) < self.max_calls:
                return "stuck"
        for call in state.now.calls:
            if call.state in ("sending", "accepted"):
                return "stuck"
        known = {call.task for call in state.now.calls
                 if call.result or call.state == "failed" and state.tasks[call.task] == "failed"}
        held = sum(call.state in HELD for call in state.now.calls)
        missing = [task for i, task in enumerate(state.tasks) if i not in known]
        return "lost" if len(missing) > held + state.released else None

    @staticmethod
    def canonical(state):
        """The two jobs are alike: of two mirror images only one is looked at."""
        now, safe = state.now, state.safe
        keys = [[(jobs[i].state, -1 if jobs[i].call is None else jobs[i].call)
                 for jobs in (now.jobs, safe.jobs)] for i in (0, 1)]
        if keys[0] <= keys[1]:
            return state
        return state._replace(now=now._replace(jobs=now.jobs[::-1]), safe=safe._replace(jobs=safe.jobs[::-1]))

    def search(self, limit=5000000):
        """Return (states seen, violated invariant or None, the way to it)."""
        start = self.initial()
        came = {start: None}
        todo = [start]
        while todo:
            following = []
            for state in todo:
                quiet = all(after is None or after == state for _, after in self.progress(state))
                wrong = self.unsettled(state) if quiet else None
                if wrong:
                    return len(came), wrong, self.way(came, state)
                for name, after in self.steps(state):
                    after = after and self.canonical(after)
                    if after is None or after in came:
                        continue
                    came[after] = (state, name)
                    wrong = self.faulty(state, after)
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


def report(mistake, bounds):
    """Search within each of the bounds until something is found."""
    for bound in bounds:
        states, wrong, way = Model(mistake, bound).search()
        said = f"{wrong}: {'; '.join(way)}" if wrong else "no violation"
        print(f"{mistake or 'the design'}, {bound.trouble} x trouble, {bound.people} x people: {states} states, {said}",
              flush=True)
        if wrong:
            return 1
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
    bounds = [Left(1, 1), Left(2, 1), Left(1, 2)]
    if options.deep:
        bounds += [Left(2, 2), Left(3, 1)]
    return report(options.mistake, bounds)


if __name__ == "__main__":
    sys.exit(main())
