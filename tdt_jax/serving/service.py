"""Service: what the routes of a server share."""

import asyncio
from dataclasses import dataclass, field

from tdt_jax.serving.engine import Engine
from tdt_jax.serving.errors import BadRequest
from tdt_jax.serving.metrics import Metrics
from tdt_jax.serving.settings import Settings
from tdt_jax.serving.uploads import Uploads


@dataclass(eq=False)
class Service:
    """A server's parts and its state.

    Attributes:
      num_requests: that are being answered, with a body.
      num_sockets: that are open.
      is_draining: the server is about to end, and takes nothing new.
      closing: set when the grace time is over: live streams end.
    """

    settings: Settings
    engine: Engine
    uploads: Uploads
    metrics: Metrics
    num_requests: int = 0
    num_sockets: int = 0
    is_draining: bool = False
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    async def drain(self) -> None:
        """Takes nothing new, and returns when all is finished or the grace time is over."""
        self.is_draining = True
        end = asyncio.get_running_loop().time() + self.settings.grace
        while asyncio.get_running_loop().time() < end:
            if not self.num_requests and not self.num_sockets:
                return
            await asyncio.sleep(0.05)
        self.closing.set()

    def check_advice(self, **advice: object) -> None:
        """Raises BadRequest for advice on words to expect, which the decoder does not take."""
        for name, value in advice.items():
            if value:
                raise BadRequest(f"this server takes no {name}: leave it out", name)

    def check_languages(self, languages: list[str], param: str, *, must_know: bool = True) -> None:
        """Raises BadRequest unless the model transcribes the languages that a client names.

        Where the server does not know its model's languages and `must_know` is False, the client is
        believed.
        """
        known = self.settings.languages
        wrong = [each for each in languages if _base(each) not in map(_base, known)]
        if wrong and known:
            raise BadRequest(
                f"this model transcribes {', '.join(known)}, and not {wrong[0]!r}", param
            )
        if wrong and must_know:
            raise BadRequest(
                f"this server does not know its model's languages, and cannot be told one: leave "
                f"{param} out, or start the server with --language",
                param,
            )


def _base(language: str) -> str:
    return language.partition("-")[0].lower()
