"""tdt-jax transcribe."""

import argparse
import contextlib
import sys
from pathlib import Path

from tdt_jax.cli.options import (
    AddCommand,
    add_advice,
    add_batch,
    add_model,
    add_no_progress,
    advice,
    audio_warnings,
    complain,
    hides_progress,
    load,
    positive,
    progress_bar,
    shard,
)


def add_transcribe(add: AddCommand) -> None:
    command = add(
        "transcribe",
        _transcribe,
        "audio files to text, subtitles, JSON",
        "Transcribe audio of any format, rate, number of channels and length. PATH is a file, a\n"
        "folder (everything in it that looks like audio), a quoted glob pattern, or - for a file\n"
        "on standard input. A file that cannot be read is reported on standard error and skipped;\n"
        "the exit code is then 1.\n\n"
        "Without --output-dir transcripts go to standard output. With it each goes to a file of\n"
        "its own, and recordings that have a transcript already are left out: to continue a job\n"
        "that was interrupted, give the same command again.",
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
    add_advice(command)
    command.add_argument(
        "--track",
        type=positive,
        metavar="N",
        help="number of the audio track, from 1 [the main one, whose number is reported]",
    )
    command.add_argument(
        "--allow-damaged",
        action="store_true",
        help="transcribe what can be read of damaged and truncated files, and report what is "
        "missing",
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
    output.add_argument(
        "-o", "--output-dir", metavar="FOLDER", help="where files go [standard output]"
    )
    output.add_argument(
        "--shard",
        type=shard,
        default=(1, 1),
        metavar="I/N",
        help="transcribe the I-th of N parts of the recordings, from 1/N to N/N; together they are "
        "all of them, each once, whichever machines they run on [1/1]",
    )
    output.add_argument(
        "--name",
        default="{parent}/{stem}",
        metavar="TEMPLATE",
        help="name of each file below FOLDER, made of {folder} (the name of the folder that was "
        "given), {parent} (the recording's folder relative to it), {stem} and {suffix}; the format "
        "is appended [%(default)s]",
    )
    output.add_argument(
        "--keep-tags",
        action="store_true",
        help='keep what the model emits beside words, such as <|en|>; JSON has "language" anyway',
    )
    output.add_argument(
        "--overwrite", action="store_true", help="transcribe again what has a transcript already"
    )
    add_no_progress(output)
    subtitles = command.add_argument_group("subtitles")
    subtitles.add_argument(
        "--max-chars", type=positive, default=42, metavar="N", help="characters of a line [42]"
    )
    subtitles.add_argument(
        "--max-wide-chars",
        type=positive,
        default=16,
        metavar="N",
        help="characters of a line of Japanese, Chinese or Korean, which never has more than half "
        "of --max-chars [16]",
    )
    subtitles.add_argument(
        "--max-lines", type=positive, default=2, metavar="N", help="lines of a subtitle [2]"
    )
    subtitles.add_argument(
        "--max-seconds",
        type=float,
        default=7.0,
        metavar="S",
        help="longest time that a subtitle stays, in seconds [7]",
    )
    subtitles.add_argument(
        "--max-gap",
        type=float,
        default=1.0,
        metavar="S",
        help="length of the pause that ends a subtitle, in seconds [1]",
    )
    subtitles.add_argument(
        "--highlight-words", action="store_true", help="mark each word while it is spoken"
    )


def _transcribe(options: argparse.Namespace) -> int:
    from tdt_jax.cli import job
    from tdt_jax.inference.advised import with_prompt
    from tdt_jax.inference.formats import FORMATS, SubtitleRules
    from tdt_jax.inference.transcription import guides_of

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
    told = advice(options)
    with contextlib.ExitStack() as stack:
        paths = [path for path in options.paths if path != job.STANDARD_INPUT]
        sources = job.find_sources(paths, report=complain)
        if job.STANDARD_INPUT in options.paths:
            stdin = job.Source(Path(), is_stdin=True)
            job.check_names([*sources, stdin], output)
            sources.append(stack.enter_context(job.spooled(getattr(sys.stdin, "buffer", None))))
        job.check_names(sources, output)
        sources = job.part(sources, *options.shard)
        if output.folder:
            job.check_folder(output.folder)
            todo = sources if options.overwrite else job.without_transcripts(sources, output)
            if len(todo) < len(sources):
                done = len(sources) - len(todo)
                complain(f"{done} of {len(sources)} have transcripts already")
            sources = todo
        if not sources:
            return 0
        recogniser = load(options, on_all=True)
        if told:
            recogniser, told["language"] = with_prompt(recogniser, told.get("language"))
            with audio_warnings():
                guide_of = guides_of(recogniser, len(sources), decoder=options.decoder, **told)
            told = dict(guide_of=guide_of)
        hidden = hides_progress(options)
        total = 0.0 if hidden else job.total_seconds(sources)
        failed = job.run(
            recogniser,
            sources,
            output,
            report=lambda why: complain(f"skipped: {why}"),
            warn=complain,
            track=options.track,
            damaged="skip" if options.allow_damaged else "error",
            progress=stack.enter_context(progress_bar(total, hidden=hidden)),
            batch_seconds=options.batch_seconds,
            piece_seconds=options.piece_seconds,
            decoder=options.decoder,
            keep_tags=options.keep_tags,
            **told,
        )
    if failed:
        complain(f"{failed} of {len(sources)} could not be transcribed")
    return 1 if failed else 0
