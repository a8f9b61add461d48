"""The driver: at once where nothing is awaited, else admit, fetch, admit again, claim; and the requester is told once."""

import asyncio
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from gateway.admission.brief import BriefRefusal
from gateway.admission.driver import MAX_LOOKUPS, Pending, admit, drive
from gateway.admission.outcome import Admitted, Claim, KeyNeeded
from gateway.errors import InvalidCredentials, KeyStoreUnavailable, ReplayedRequest
from tests.support.keys import a_record

ROUTE: Any = SimpleNamespace(pattern="POST /trade")
ASKED: Any = SimpleNamespace()
IDENTITY: Any = SimpleNamespace(key_id=a_record().key_id, account_id=a_record().account_id)


def passes(*, claimed: bool = False) -> Admitted:
    return Admitted(ROUTE, IDENTITY, "203.0.113.7", replay=Claim("gbk_x", b"s", 1_000, outage="deny") if claimed else None)


class ScriptedGate:
    """Answers each call of ``admit`` with the next of its script: raised when it is an exception."""

    def __init__(self, *script: Admitted | Exception) -> None:
        self.script = list(script)
        self.steps: list[str] = []
        self.claimed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.fetched = asyncio.Event()
        self.fetched.set()
        self.outage: Exception | None = None
        self.still_valid = True
        self.confirms: list[Exception | None] = [None]

    def decide(self, asked: object, route: object) -> Admitted:
        return self.admit(asked, route)

    def admit(self, asked: object, route: object) -> Admitted:
        assert (asked, route) == (ASKED, ROUTE)
        self.steps.append("admit")
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, Exception):
            raise step
        return step

    async def resolve(self, needed: KeyNeeded) -> None:
        self.steps.append(f"fetch {needed.key_id}")
        await self.fetched.wait()
        if self.outage is not None:
            raise self.outage

    def claim(self, admitted: Admitted, answered: Any) -> None:
        assert admitted.replay is not None
        self.steps.append("claim")
        self.claimed.add_done_callback(lambda claim: claim.cancelled() or answered(claim.exception(), self.still_valid))

    def confirm(self, admitted: Admitted, *, counted: bool) -> None:
        assert not counted
        self.steps.append("confirm")
        step = self.confirms.pop(0) if len(self.confirms) > 1 else self.confirms[0]
        if step is not None:
            raise step

    def withdraw(self, admitted: Admitted, error: BaseException) -> None:
        self.steps.append(f"withdraw {type(error).__name__}")


class Told:
    """Who waits for a decision."""

    def __init__(self) -> None:
        self.calls: list[tuple[Admitted | None, BaseException | None]] = []
        self.once = asyncio.Event()

    def __call__(self, admitted: Admitted | None, error: BaseException | None) -> None:
        self.calls.append((admitted, error))
        self.once.set()

    async def call(self) -> tuple[Admitted | None, BaseException | None]:
        async with asyncio.timeout(20):
            await self.once.wait()
        (call,) = self.calls
        return call


def driven(gate: ScriptedGate, told: Told) -> Admitted | BriefRefusal | Pending:
    return drive(gate, ASKED, ROUTE, told)  # type: ignore[arg-type]  # a gate as far as the driver knows one


async def test_what_needs_no_wait_is_decided_in_the_call_and_starts_no_task() -> None:
    admitted, told, before = passes(), Told(), asyncio.all_tasks()
    gate = ScriptedGate(admitted)
    assert driven(gate, told) is admitted
    assert (gate.steps, told.calls, asyncio.all_tasks()) == (["admit"], [], before)


async def test_a_refusal_that_needs_no_wait_is_raised_in_the_call() -> None:
    told = Told()
    with pytest.raises(InvalidCredentials):
        driven(ScriptedGate(InvalidCredentials("no")), told)
    assert told.calls == []


async def test_a_key_that_is_not_in_memory_is_fetched_and_decided_on_again() -> None:
    admitted, told = passes(), Told()
    gate = ScriptedGate(KeyNeeded("gbk_a"), KeyNeeded("its limit"), admitted)
    assert isinstance(driven(gate, told), Pending)
    assert await told.call() == (admitted, None)
    assert gate.steps == ["admit", "fetch gbk_a", "admit", "fetch its limit", "admit"]


async def test_a_claim_is_awaited_without_a_task_and_comes_last() -> None:
    admitted, told, before = passes(claimed=True), Told(), asyncio.all_tasks()
    gate = ScriptedGate(admitted)
    assert isinstance(driven(gate, told), Pending)
    assert (asyncio.all_tasks(), told.calls) == (before, [])
    gate.claimed.set_result(None)
    assert await told.call() == (admitted, None)
    assert gate.steps == ["admit", "claim"]


async def test_a_claim_follows_a_fetch() -> None:
    admitted, told = passes(claimed=True), Told()
    gate = ScriptedGate(KeyNeeded("gbk_a"), admitted)
    gate.claimed.set_result(None)
    driven(gate, told)
    assert await told.call() == (admitted, None)
    assert gate.steps == ["admit", "fetch gbk_a", "admit", "claim"]


async def test_a_refused_claim_is_told_with_what_had_been_admitted() -> None:
    admitted, told, refusal = passes(claimed=True), Told(), ReplayedRequest("again")
    gate = ScriptedGate(admitted)
    driven(gate, told)
    gate.claimed.set_exception(refusal)
    assert await told.call() == (admitted, refusal)


@pytest.mark.parametrize("error", [KeyStoreUnavailable("down"), ValueError("a defect")])
async def test_whatever_a_fetch_raises_is_told(error: Exception) -> None:
    gate, told = ScriptedGate(KeyNeeded("gbk_a")), Told()
    gate.outage = error
    driven(gate, told)
    assert await told.call() == (None, error)


async def test_a_refusal_after_a_fetch_is_told() -> None:
    refusal, told = InvalidCredentials("no"), Told()
    driven(ScriptedGate(KeyNeeded("gbk_a"), refusal), told)
    assert await told.call() == (None, refusal)


async def test_a_key_that_never_stays_in_memory_is_given_up() -> None:
    gate, told = ScriptedGate(KeyNeeded("gbk_a")), Told()
    driven(gate, told)
    admitted, error = await told.call()
    assert admitted is None
    assert isinstance(error, KeyStoreUnavailable)
    assert gate.steps.count("fetch gbk_a") == MAX_LOOKUPS


async def test_who_has_gone_is_not_told_and_nothing_is_claimed_for_them() -> None:
    gate, told = ScriptedGate(KeyNeeded("gbk_a"), passes(claimed=True)), Told()
    gate.fetched.clear()
    pending = driven(gate, told)
    await asyncio.sleep(0)  # the fetch is under way
    assert isinstance(pending, Pending)
    pending.cancel()
    gate.fetched.set()
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == "look up a key"))
    assert (told.calls, gate.steps) == ([], ["admit", "fetch gbk_a"])


async def test_who_goes_while_a_claim_is_under_way_is_not_told() -> None:
    gate, told = ScriptedGate(passes(claimed=True)), Told()
    pending = driven(gate, told)
    assert isinstance(pending, Pending)
    pending.cancel()
    gate.claimed.set_result(None)
    await asyncio.sleep(0)
    assert told.calls == []


async def test_a_cancelled_claim_tells_nobody() -> None:
    gate, told = ScriptedGate(passes(claimed=True)), Told()
    driven(gate, told)
    gate.claimed.cancel()
    await asyncio.sleep(0)
    assert told.calls == []


async def test_who_can_await_gets_the_same() -> None:
    admitted = passes(claimed=True)
    gate: Any = ScriptedGate(KeyNeeded("gbk_a"), admitted)
    gate.claimed.set_result(None)
    assert await admit(gate, ASKED, ROUTE) is admitted
    at_once: Any = ScriptedGate(admitted)
    admitted.replay = None
    assert await admit(at_once, ASKED, ROUTE) is admitted


async def test_a_refused_claim_names_its_owner_for_the_log() -> None:
    gate: Any = ScriptedGate(passes(claimed=True))
    gate.claimed.set_exception(ReplayedRequest("again"))
    with pytest.raises(ReplayedRequest) as refused:
        await admit(gate, ASKED, ROUTE)
    assert refused.value.requester == (IDENTITY.key_id, IDENTITY.account_id, "203.0.113.7")


async def test_who_stops_awaiting_leaves_nothing_behind() -> None:
    gate: Any = ScriptedGate(KeyNeeded("gbk_a"), passes())
    gate.fetched.clear()
    waiting = asyncio.get_running_loop().create_task(admit(gate, ASKED, ROUTE))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.fetched.set()
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == "look up a key"))


async def test_a_key_of_which_something_was_heard_while_its_claim_was_awaited_is_looked_at_again() -> None:
    admitted, told, gate = passes(claimed=True), Told(), ScriptedGate(passes(claimed=True))
    gate.script, gate.still_valid, gate.confirms = [admitted], False, [KeyNeeded("gbk_a"), None]
    driven(gate, told)
    gate.claimed.set_result(None)
    assert await told.call() == (admitted, None)
    assert gate.steps == ["admit", "claim", "confirm", "fetch gbk_a", "confirm"]


@pytest.mark.parametrize("error", [InvalidCredentials("deleted"), ValueError("a defect")])
async def test_a_key_that_ended_while_its_claim_was_awaited_passes_nothing(error: Exception) -> None:
    admitted, told = passes(claimed=True), Told()
    gate = ScriptedGate(admitted)
    gate.still_valid, gate.confirms = False, [error]
    driven(gate, told)
    gate.claimed.set_result(None)
    assert await told.call() == (admitted, error)
    assert gate.steps[-2:] == ["confirm", f"withdraw {type(error).__name__}"]


async def test_a_key_that_is_looked_at_again_and_never_stays_in_memory_is_given_up() -> None:
    told, gate = Told(), ScriptedGate(passes(claimed=True))
    gate.still_valid, gate.confirms = False, [KeyNeeded("gbk_a")]
    driven(gate, told)
    gate.claimed.set_result(None)
    assert isinstance((await told.call())[1], KeyStoreUnavailable)
    assert gate.steps.count("fetch gbk_a") == MAX_LOOKUPS
    assert gate.steps[-1] == "withdraw KeyStoreUnavailable"


async def test_a_defect_while_what_was_charged_is_undone_leaves_nobody_without_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    error, told, admitted = InvalidCredentials("deleted"), Told(), passes(claimed=True)
    gate = ScriptedGate(admitted)
    gate.still_valid, gate.confirms = False, [error]
    monkeypatch.setattr(gate, "withdraw", Mock(side_effect=ValueError("a defect")))
    assert isinstance(driven(gate, told), Pending)
    gate.claimed.set_result(None)
    assert await told.call() == (admitted, error)


async def test_a_replay_stays_one_whatever_became_of_its_key() -> None:
    admitted, told, refusal = passes(claimed=True), Told(), ReplayedRequest("again")
    gate = ScriptedGate(admitted)
    gate.still_valid = False
    driven(gate, told)
    gate.claimed.set_exception(refusal)
    assert await told.call() == (admitted, refusal)
    assert gate.steps == ["admit", "claim"]
