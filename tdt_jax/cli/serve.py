"""tdt-jax serve."""

import argparse
import os
import sys
from pathlib import Path

from tdt_jax.cli.options import AddCommand, add_batch, add_model, load, positive

KEY_VARIABLE = "TDT_JAX_API_KEYS"


def add_serve(add: AddCommand) -> None:
    command = add(
        "serve",
        _serve,
        "a server, to OpenAI's and Deepgram's clients",
        "Serve transcription to clients that exist already: OpenAI's REST and Realtime APIs and\n"
        "Deepgram's live protocol, with a page at / to try it. Requests share batches, live\n"
        "streams share steps. SIGTERM or Ctrl-C finishes what has been begun, and ends.\n"
        "Needs pip install 'tdt-jax[serve]'.",
        "  tdt-jax serve MODEL\n"
        "  tdt-jax serve MODEL --host 0.0.0.0 --api-key-file keys.txt\n"
        "  curl localhost:8000/v1/audio/transcriptions -F file=@talk.mp3 -F response_format=srt",
    )
    add_model(command)
    add_batch(command)
    command.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; 0.0.0.0 is all of this machine's [%(default)s]",
    )
    command.add_argument("--port", type=int, default=8000, help="port to listen at [%(default)s]")
    command.add_argument("--name", help="of the model, for clients [the last part of MODEL]")
    command.add_argument(
        "--language",
        action="append",
        default=[],
        metavar="CODE",
        help="a language that the model transcribes, such as en; may be given several times. A "
        "request for another one is refused [unknown]",
    )
    access = command.add_argument_group("access")
    access.add_argument(
        "--api-key-file",
        metavar="FILE",
        help=f"keys, one a line, one of which each request needs; also, with commas between them, "
        f"in ${KEY_VARIABLE} [no key is needed]",
    )
    access.add_argument(
        "--tls-certificate", metavar="FILE", help="certificate for https and wss, in PEM [no TLS]"
    )
    access.add_argument(
        "--tls-key", metavar="FILE", help="private key of the certificate [in the same file]"
    )
    access.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="a web page's origin, such as https://example.org, that may use the server; may be "
        "given several times [only its own page]",
    )
    limits = command.add_argument_group("limits")
    for name, kind, default, what in (
        ("streams", positive, 16, "live streams at a time"),
        ("max-requests", positive, 64, "recordings at a time"),
        ("max-mb", float, 256.0, "megabytes of an upload"),
        ("max-seconds", float, 14400.0, "length of a recording or live stream in seconds"),
        ("idle-seconds", float, 60.0, "seconds after which a silent client is dropped"),
        ("decode-seconds", float, 120.0, "seconds in which a file must be decoded"),
        ("decoders", positive, 2, "processes that decode files"),
        ("grace-seconds", float, 30.0, "seconds to finish in after SIGTERM"),
    ):
        limits.add_argument(
            f"--{name}", type=kind, default=default, metavar="N", help=f"{what} [{default:g}]"
        )


def _serve(options: argparse.Namespace) -> int:
    try:
        from tdt_jax.serving.server import serve
    except ModuleNotFoundError as error:
        raise ValueError(f"{error}: pip install 'tdt-jax[serve]'") from None
    from tdt_jax.serving.engine import Engine
    from tdt_jax.serving.metrics import Metrics
    from tdt_jax.serving.settings import Settings

    settings = Settings(
        name=options.name or Path(options.checkpoint).name or "tdt-jax",
        host=options.host,
        port=options.port,
        certificate=options.tls_certificate,
        private_key=options.tls_key,
        keys=_keys(options.api_key_file),
        origins=tuple(options.allow_origin),
        languages=tuple(options.language),
        streams=options.streams,
        max_requests=options.max_requests,
        max_bytes=round(1e6 * options.max_mb),
        max_seconds=options.max_seconds,
        max_waiting=2 * options.max_seconds,
        idle=options.idle_seconds,
        decoders=options.decoders,
        decode_timeout=options.decode_seconds,
        grace=options.grace_seconds,
    )
    recogniser = load(options, on_all=True)
    engine = Engine(
        recogniser,
        settings,
        Metrics(),
        batch_seconds=options.batch_seconds,
        piece_seconds=options.piece_seconds,
        decoder=options.decoder,
    )
    has_keys = "with a key" if settings.keys else "without a key"
    where = f"http{'s' if settings.certificate else ''}://{settings.host}:{settings.port}"
    print(f"tdt-jax: serving {settings.name} at {where} {has_keys}", file=sys.stderr)
    return serve(engine, settings)


def _keys(path: str | None) -> tuple[str, ...]:
    """Returns the keys of a file and of the environment."""
    lines = Path(path).read_text(encoding="utf-8").split() if path else []
    if path and not lines:
        raise ValueError(f"{path} has no keys")
    return *lines, *(key for key in os.environ.get(KEY_VARIABLE, "").split(",") if key)
