"""Settings of a server."""

from dataclasses import dataclass, fields

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Settings:
    """What a server allows. All times are in seconds.

    Raises: ValueError for a limit that is not above zero.
    """

    name: str = "tdt-jax"  # of the model, for clients
    host: str = LOOPBACK
    port: int = 8000
    certificate: str | None = None  # file of a TLS certificate, in PEM; none: no TLS
    private_key: str | None = None  # file of its key; none: in the same file
    keys: tuple[str, ...] = ()  # one of which each request must have; none: no key is needed
    origins: tuple[str, ...] = ()  # of other web pages that may use the server
    languages: tuple[str, ...] = ()  # that the model transcribes, such as "en"; none: unknown
    streams: int = 16  # live, at a time
    max_requests: int = 64  # with a recording, at a time
    max_bytes: int = 256 << 20  # of an upload
    max_seconds: float = 4 * 3600.0  # of a recording, and of a live stream
    max_waiting: float = 8 * 3600.0  # audio of all recordings that are being transcribed
    idle: float = 60.0  # without a byte of a body, or a message of a live stream
    decoders: int = 2  # processes that decode uploads
    decode_timeout: float = 120.0  # of one upload
    grace: float = 30.0  # after SIGTERM, in which requests and streams may finish

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and field.name != "port" and not value > 0:
                raise ValueError(f"{field.name} must be above 0, got {value}")
        if not 0 <= self.port < 65536:
            raise ValueError(f"a port is from 0 to 65535, got {self.port}")
