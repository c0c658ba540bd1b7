"""An engine that outlives its deaths: it is started again, and the request that kills it is found and given up.

vLLM's engine core is a process of its own. When it dies, all requests in flight fail alike, and any of them may be why. So each of
them is asked again alone; one that kills the engine alone, `ATTEMPTS` times, is told apart from a core that died of something else.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from deepred_ray import logs, metrics
from deepred_ray.engine import Messages, Reply, Sampling

ATTEMPTS = 2


class RestartingEngine:
    """An engine as `engine.Engine`, whose `chat` never raises for a request that kills it: its Reply has finish reason `crash`.

    Raises ModelError if the engine cannot be started, or started again.
    """

    def __init__(self, make_engine: Callable[[Any], Any], settings: Any) -> None:
        self._make, self._settings = make_engine, settings
        self._engine = make_engine(settings)
        self._dead = False
        self._turns = asyncio.Condition()
        self._running = self._suspects = 0
        self._alone = False
        self.restarts = 0

    async def chat(self, messages: Messages, sampling: Sampling, **told: Any) -> Reply:
        """The engine's reply, from the engine that outlives it; `told` are further arguments of its `chat`."""
        suspect, crashes = False, 0
        try:
            while True:
                async with self._turn(alone=suspect):
                    if self._dead:
                        self._restart()
                    try:
                        return await self._engine.chat(messages, sampling, **told)
                    except Exception as error:  # whatever it raises is no reply, and so its end
                        self._dead = True
                        crashes += suspect
                        logs.failure("engine died", error, alone=suspect)
                        if crashes == ATTEMPTS:
                            return Reply(f"{type(error).__name__}: {error}", "crash", 0, 0)
                        self._suspects += not suspect
                        suspect = True
        finally:
            if suspect:
                async with self._turns:
                    self._suspects -= 1
                    self._turns.notify_all()

    @contextlib.asynccontextmanager
    async def _turn(self, *, alone: bool) -> AsyncIterator[None]:
        """Run beside others while nobody is suspected; a suspect runs alone."""
        async with self._turns:
            if alone:
                await self._turns.wait_for(lambda: self._running == 0)
            else:
                await self._turns.wait_for(lambda: self._suspects == 0 and not self._alone)
            self._running += 1
            self._alone = alone
        try:
            yield
        finally:
            async with self._turns:
                self._running -= 1
                self._alone = False
                self._turns.notify_all()

    def _restart(self) -> None:
        with contextlib.suppress(Exception):  # what is left of a dead engine need not end in order
            self._engine.shutdown()
        self._engine = self._make(self._settings)
        self._dead = False
        self.restarts += 1
        metrics.count("deepred_engine_restarts", 1)
        logs.note("engine restarted", logging.WARNING, restarts=self.restarts)

    def shutdown(self) -> None:
        self._engine.shutdown()
