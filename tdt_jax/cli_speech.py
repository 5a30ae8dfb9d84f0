"""tdt-jax transcribe | listen | evaluate | warmup."""

import contextlib
import functools
import json
import shutil
import sys

from tdt_jax.cli_options import (
    add_batch,
    add_model,
    audio_warnings,
    complain,
    is_terminal,
    load,
    positive,
    progress_bar,
    two_names,
)
from tdt_jax.runtime.streams import printable


def add_speech(add) -> None:
    """Add the commands."""
    _add_transcribe(add)
    _add_listen(add)
    _add_evaluate(add)
    _add_warmup(add)


def _add_transcribe(add) -> None:
    command = add(
        "transcribe",
        _transcribe,
        "audio files to text, subtitles, JSON",
        "Transcribe audio of any format, rate, number of channels and length. PATH is a file, a\n"
        "folder (everything in it that looks like audio), a quoted glob pattern, or - for a file\n"
        "on standard input. A file that cannot be read is named on standard error and skipped;\n"
        "the exit code is then 1.\n\n"
        "Without --output-dir transcripts go to standard output. With it each gets a file of its\n"
        "own, and what is there already is not done again: a job that was interrupted goes on\n"
        "when the same command is given again.",
        "  tdt-jax transcribe MODEL talk.mp3\n"
        "  tdt-jax transcribe MODEL talk.mp3 --format srt > talk.srt\n"
        "  tdt-jax transcribe MODEL recordings/ --format all --output-dir transcripts\n"
        "  ffmpeg -i film.mkv -f wav - | tdt-jax transcribe MODEL - --format json",
    )
    command.set_defaults(writes_files=lambda options: options.output_dir is not None)
    add_model(command)
    command.add_argument(
        "paths", nargs="+", metavar="PATH", help="a file, folder, glob pattern, or -"
    )
    add_batch(command)
    command.add_argument(
        "--track",
        type=positive,
        metavar="N",
        help="of the audio tracks of a film; by default its main one, and it is said which",
    )
    command.add_argument(
        "--allow-damaged",
        action="store_true",
        help="transcribe what can be had of damaged and truncated files, and say what is missing",
    )
    output = command.add_argument_group("output")
    output.add_argument(
        "-f",
        "--format",
        choices=["txt", "srt", "vtt", "json", "tsv", "ctm", "all"],
        default="txt",
        help="plain text; SubRip or WebVTT subtitles; JSON with times and confidence of tokens, "
        "words and segments; a table of segments; NIST CTM; or a file of each [txt]",
    )
    output.add_argument("-o", "--output-dir", metavar="FOLDER", help="where files are written")
    output.add_argument(
        "--name",
        default="{parent}/{stem}",
        metavar="TEMPLATE",
        help="of files below FOLDER, of {folder} (the name of the folder that was given), {parent} "
        "(relative to it), {stem} and {suffix}; the format is appended [%(default)s]",
    )
    output.add_argument(
        "--keep-tags",
        action="store_true",
        help='show what the model writes beside words, such as <|en|>; JSON has "language" anyway',
    )
    output.add_argument("--overwrite", action="store_true", help="do again what is there already")
    output.add_argument(
        "--no-progress", action="store_true", help="no progress bar (nor without a terminal)"
    )
    subtitles = command.add_argument_group("subtitles")
    subtitles.add_argument(
        "--max-chars", type=positive, default=42, metavar="N", help="of a line [42]"
    )
    subtitles.add_argument(
        "--max-wide-chars",
        type=positive,
        default=16,
        metavar="N",
        help="of a line of Japanese, Chinese or Korean, if less than half of --max-chars [16]",
    )
    subtitles.add_argument(
        "--max-lines", type=positive, default=2, metavar="N", help="of a subtitle [2]"
    )
    subtitles.add_argument(
        "--max-seconds", type=float, default=7.0, metavar="S", help="that a subtitle stays [7]"
    )
    subtitles.add_argument(
        "--max-gap",
        type=float,
        default=1.0,
        metavar="S",
        help="pause that ends a subtitle [1]",
    )
    subtitles.add_argument(
        "--highlight-words", action="store_true", help="mark each word while it is said"
    )


def _add_listen(add) -> None:
    command = add(
        "listen",
        _listen,
        "live from the microphone or a pipe",
        "Transcribe while it is being said: chunk by chunk, each heard with what is before and\n"
        "after it, the decoder's state carried from one to the next. Words appear CHUNK + RIGHT\n"
        "seconds after they were said. Ctrl-C ends.",
        "  tdt-jax listen MODEL                 # microphone; pip install 'tdt-jax[listen]'\n"
        "  ffmpeg -i http://radio/stream -f s16le -ar 16000 -ac 1 - | tdt-jax listen MODEL -",
    )
    add_model(command, decoder=False)
    command.add_argument(
        "source",
        nargs="?",
        default="microphone",
        help="- for standard input: WAV, or 16-bit mono PCM at the model's rate [microphone]",
    )
    for name, default, what in (
        ("chunk", 1.6, "that are decoded at a time [1.6]"),
        ("left", None, "that the encoder hears before a chunk [8, less as the model was trained]"),
        ("right", 1.6, "that it hears after [1.6]"),
    ):
        command.add_argument(
            f"--{name}", type=float, default=default, metavar="S", help=f"seconds {what}"
        )
    command.add_argument(
        "--keep-tags",
        action="store_true",
        help="show what the model writes beside words, such as <|en|>",
    )


def _add_evaluate(add) -> None:
    command = add(
        "evaluate",
        _evaluate,
        "word error rate on manifests or prepared datasets",
        "Transcribe a JSONL manifest (audio_filepath, duration, text, and of a part of a file its\n"
        "offset), or a split of a dataset\n"
        "that tdt-jax prepare made (FOLDER:SPLIT), and report WER with its\n"
        "95 % confidence interval (bootstrap over utterances), CER, decoder steps per second of\n"
        "audio, and RTFx: all audio over all time from files to texts, compilation left out, as\n"
        "the Open ASR Leaderboard counts. Several are scored each by itself; then come the mean\n"
        "of their rates, which that leaderboard ranks by, and the rate of all their words.",
        "  tdt-jax evaluate MODEL test.jsonl --normalizer leaderboard --errors\n"
        "  tdt-jax evaluate MODEL test.jsonl --json > result.json\n"
        "  tdt-jax evaluate MODEL data:test_clean data:test_other --lowercase --format markdown",
    )
    add_model(command)
    command.add_argument(
        "sources", nargs="+", metavar="MANIFEST", help="a JSONL file, or FOLDER:SPLIT"
    )
    add_batch(command)
    command.add_argument(
        "--normalizer",
        "--normaliser",
        choices=["none", "whisper", "leaderboard"],
        default="none",
        help="of both texts: none compares them as they are, split at spaces; whisper and "
        "leaderboard are for English: Whisper's, and the Open ASR Leaderboard's present one, with "
        "which compounds merge as there (white paper is whitepaper) [none]",
    )
    command.add_argument("--lowercase", action="store_true", help="lower-case the references")
    command.add_argument(
        "--keys",
        type=two_names,
        default=("speech", "text"),
        metavar="AUDIO,TEXT",
        help="fields of a dataset's records [speech,text]",
    )
    command.add_argument("--bleu", action="store_true", help="BLEU too, of the texts as they are")
    command.add_argument(
        "--errors",
        nargs="?",
        type=positive,
        const=10,
        metavar="N",
        help="the N utterances with most wrong words, both texts aligned, and the N commonest "
        "substitutions, deletions and insertions [10]",
    )
    command.add_argument(
        "--format",
        choices=["text", "json", "markdown"],
        default="text",
        help="a line for each manifest; JSON with every transcript; or a table [text]",
    )
    command.add_argument(
        "--json", action="store_const", const="json", dest="format", help="as --format json"
    )
    command.add_argument("--no-progress", action="store_true", help="no progress bar")


def _add_warmup(add) -> None:
    command = add(
        "warmup",
        _warmup,
        "compile beforehand what transcribing needs",
        "Compile every program that transcribe may need, with the same options, into the cache\n"
        "that all commands share ($JAX_COMPILATION_CACHE_DIR, by default tdt_jax in the user's\n"
        "cache folder), and show the seconds that each took.",
    )
    command.set_defaults(writes_files=lambda options: True)
    add_model(command)
    add_batch(command)


def _transcribe(options) -> int:
    from pathlib import Path

    from tdt_jax import job
    from tdt_jax.inference.formats import FORMATS, SubtitleRules

    output = job.Output(
        formats=FORMATS if options.format == "all" else (options.format,),
        folder=None if options.output_dir is None else Path(options.output_dir),
        name=options.name,
        rules=SubtitleRules(
            max_chars=options.max_chars,
            max_lines=options.max_lines,
            max_seconds=options.max_seconds,
            min_seconds=min(1.0, options.max_seconds),
            max_gap=options.max_gap,
            max_wide_chars=options.max_wide_chars,
        ),
        highlight_words=options.highlight_words,
    )
    with contextlib.ExitStack() as stack:
        paths = [path for path in options.paths if path != job.STANDARD_INPUT]
        sources = job.find(paths, report=complain)
        if job.STANDARD_INPUT in options.paths:
            stdin = job.Source(Path(), is_stdin=True)
            job.check_names([*sources, stdin], output)
            sources.append(stack.enter_context(job.spooled(getattr(sys.stdin, "buffer", None))))
        job.check_names(sources, output)
        if output.folder:
            job.check_folder(output.folder)
            todo = sources if options.overwrite else job.missing(sources, output)
            if len(todo) < len(sources):
                complain(f"{len(sources) - len(todo)} of {len(sources)} are there already")
            sources = todo
        if not sources:
            return 0
        recogniser = load(options, on_all=True)
        hidden = options.no_progress or not is_terminal(sys.stderr)
        total = 0.0 if hidden else job.total_seconds(sources)
        failed = job.run(
            recogniser,
            sources,
            output,
            report=lambda why: complain(f"skipped {why}"),
            warn=complain,
            track=options.track,
            damaged="skip" if options.allow_damaged else "error",
            progress=stack.enter_context(progress_bar(total, hidden=hidden)),
            batch_seconds=options.batch_seconds,
            piece_seconds=options.piece_seconds,
            decoder=options.decoder,
            keep_tags=options.keep_tags,
        )
    if failed:
        complain(f"{failed} of {len(sources)} could not be transcribed")
    return 1 if failed else 0


def _listen(options) -> int:
    from tdt_jax.audio.live import microphone, pcm_blocks
    from tdt_jax.listening import listen

    if options.source not in ("microphone", "-"):
        raise ValueError(f"the source is - for standard input or nothing, got {options.source!r}")
    is_microphone = options.source == "microphone"
    if not is_microphone and getattr(sys.stdin, "buffer", None) is None:
        raise ValueError("standard input is closed")
    recogniser = load(options)
    rate = recogniser.config.features.sample_rate
    blocks = microphone(rate) if is_microphone else pcm_blocks(sys.stdin.buffer, rate)

    def prompted():
        if is_microphone:
            print("tdt-jax: listening; Ctrl-C ends", file=sys.stderr)
        yield from blocks

    listen(
        recogniser,
        prompted(),
        functools.partial(print, end="", flush=True),
        columns=shutil.get_terminal_size().columns if is_terminal(sys.stdout) else 0,
        chunk=options.chunk,
        left=options.left,
        right=options.right,
        keep_tags=options.keep_tags,
    )
    return 0


def _evaluate(options) -> int:
    from tdt_jax.data.sources import read_source
    from tdt_jax.inference import metrics
    from tdt_jax.inference.evaluation import evaluate

    metrics.normaliser(options.normalizer)  # an error comes early
    sources = [
        read_source(source, keys=options.keys, lowercase=options.lowercase)
        for source in options.sources
    ]
    total = sum(entry.seconds for entries in sources for entry in entries)
    recogniser = load(options, on_all=True)
    hidden = options.no_progress or not is_terminal(sys.stderr)
    with audio_warnings(), progress_bar(total, hidden=hidden) as advance:
        results = [
            evaluate(
                recogniser,
                entries,
                batch_seconds=options.batch_seconds,
                piece_seconds=options.piece_seconds,
                decoder=options.decoder,
                normaliser=options.normalizer,
                bleu=options.bleu,
                progress=advance,
            )
            for entries in sources
        ]
    for result in results:
        for why in result.failed.values():
            complain(f"not counted: {why}")
    named = list(zip(options.sources, results, strict=True))
    print(printable(_REPORTS[options.format](named, options.errors)))
    return 1 if any(result.failed for result in results) else 0


def _as_text(named, num_errors: int | None) -> str:
    from tdt_jax.inference.error_analysis import errors
    from tdt_jax.inference.evaluation import average

    if len(named) == 1:
        lines = [result.summary() for _, result in named]
    else:
        lines = [f"{source}: {result.summary()}" for source, result in named]
        lines.append(f"all {len(named)}: {average([result for _, result in named]).summary()}")
    for source, result in named if num_errors else ():
        lines.append(f"\n{source}\n\n{errors(result, num_errors)}")
    return "\n".join(lines)


def _as_markdown(named, num_errors: int | None) -> str:
    from tdt_jax.inference.error_analysis import errors
    from tdt_jax.inference.evaluation_table import markdown

    parts = [markdown(named)]
    for source, result in named if num_errors else ():
        parts.append(f"{source}\n\n```\n{errors(result, num_errors)}\n```")
    return "\n\n".join(parts)


def _as_json(named, num_errors: int | None) -> str:
    from tdt_jax.inference.error_analysis import errors
    from tdt_jax.inference.evaluation import average

    sets = [
        result.as_dict() | ({"errors": errors(result, num_errors).as_dict()} if num_errors else {})
        for _, result in named
    ]
    whole = sets[0]
    if len(named) > 1:
        whole = average([result for _, result in named]).as_dict()
        whole["sets"] = [
            {"source": source} | each for (source, _), each in zip(named, sets, strict=True)
        ]
    return json.dumps(whole, ensure_ascii=False)


_REPORTS = {"text": _as_text, "json": _as_json, "markdown": _as_markdown}


def _warmup(options) -> int:
    import jax

    from tdt_jax.inference.transcription import warm_up
    from tdt_jax.runtime.process import compile_seconds

    recogniser = load(options, on_all=True)
    if jax.config.jax_compilation_cache_dir is None:
        raise ValueError("there is no folder to keep compiled programs in")
    before = first = compile_seconds()
    for bucket in warm_up(
        recogniser,
        batch_seconds=options.batch_seconds,
        piece_seconds=options.piece_seconds,
        decoder=options.decoder,
    ):
        now = compile_seconds()
        print(
            f"{bucket.batch_size:4d} x {bucket.seconds:5.2f} s  {now - before:6.1f} s", flush=True
        )
        before = now
    print(f"compiled in {before - first:.1f} s; kept in {jax.config.jax_compilation_cache_dir}")
    return 0
