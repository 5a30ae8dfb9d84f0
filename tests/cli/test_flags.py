"""No command and no flag ever disappears; each positional argument stays at its place."""

import argparse

import pytest

from tdt_jax.cli.main import make_parser

# Every command's arguments, in their order, and the choices of those that have them.
ARGUMENTS = {
    "": "-h --help --version",
    "transcribe": """-h --help MODEL --dtype=float32|bfloat16 --local-attention --lookahead
        --decoder=transducer|ctc PATH --batch-seconds --piece-seconds --boost --boost-file
        --allowed --language --lm --lm-weight --track --allow-damaged -f
        --format=txt|srt|vtt|json|tsv|ctm|all -o --output-dir --name
        --keep-tags --overwrite
        --no-progress --max-chars --max-wide-chars --max-lines --max-seconds --max-gap
        --highlight-words --shard""",
    "serve": """-h --help MODEL --dtype=float32|bfloat16 --local-attention --lookahead
        --decoder=transducer|ctc --batch-seconds --piece-seconds --host --port --name --language
        --api-key-file --tls-certificate --tls-key --allow-origin --streams --max-requests --max-mb
        --max-seconds --idle-seconds --decode-seconds --decoders --grace-seconds""",
    "listen": """-h --help MODEL --dtype=float32|bfloat16 --local-attention --lookahead source
        --chunk --left --right --boost --boost-file --allowed
        --language --lm --lm-weight --keep-tags""",
    "evaluate": """-h --help MODEL --dtype=float32|bfloat16 --local-attention --lookahead
        --decoder=transducer|ctc MANIFEST --batch-seconds --piece-seconds --boost --boost-file
        --allowed --language --lm --lm-weight --lowercase
        --normalizer=none|whisper|leaderboard --normaliser=none|whisper|leaderboard
        --keys --bleu --errors --format=text|json|markdown --json --no-progress""",
    "warmup": """-h --help MODEL --dtype=float32|bfloat16 --local-attention --lookahead
        --decoder=transducer|ctc --batch-seconds --piece-seconds""",
    "lm": "-h --help TEXT OUT --tokenizer --order",
    "benchmark boost": """-h --help MODEL MANIFEST PHRASES --weights --snr --minutes
        --normalizer=none|whisper --normaliser=none|whisper --json""",
    "convert": "-h --help IN OUT --to=jax|hf|nemo --dtype=float32|bfloat16 --drop-ctc",
    "export": """-h --help MODEL --dtype=float32|bfloat16 --local-attention --lookahead
        --decoder=transducer|ctc OUT --to=stablehlo|onnx --platforms --seconds --rows
        --for=onnx-asr|sherpa-onnx --whole --int8 --fp16""",
    "prepare": "-h --help",
    "prepare check": """-h --help SOURCE --dev --model --worst --html --lowercase --keys
        --no-progress""",
    "prepare librispeech": "-h --help SOURCE DATA_DIR --no-progress --subsets",
    "prepare manifest": "-h --help SOURCE DATA_DIR --no-progress --split --keys",
    "prepare must_c": "-h --help SOURCE DATA_DIR --no-progress",
    "prepare telephone": "-h --help SOURCE DATA_DIR --no-progress",
    "benchmark": "-h --help",
    "benchmark device": "-h --help --out --stage --minutes --tiny",
    "benchmark loss": """-h --help --case --batch --aot --json --dtype=float32|bfloat16 --repeats
        --peers""",
    "benchmark decode": """-h --help TDT RNNT MANIFEST --silence --plot --case --seconds --batch
        --aot --dtype=float32|bfloat16 --json --repeats --peers""",
    "benchmark long": """-h --help MODEL MANIFEST --minutes --gap --lead --near-silence --right
        --piece-seconds --normaliser=none|whisper --json""",
    "benchmark live": """-h --help MODEL MANIFEST --lookahead --stop-secs --streams --end-of-turn
        --windows --cuts --real-time --normalizer=none|whisper --normaliser=none|whisper --json""",
    "benchmark serve": """-h --help MODEL MANIFEST --case --streams --seconds --lookahead
        --stop-secs --limit --requests --clients --repeats --normalizer=none|whisper
        --normaliser=none|whisper --json""",
    "benchmark encoder": """-h --help --case --seconds --batch --local-attention --aot --json
        --dtype=float32|bfloat16 --repeats --peers""",
    "benchmark chunk": """-h --help --case --batch --right --aot --json --dtype=float32|bfloat16
        --repeats --peers""",
    "benchmark parity": "-h --help --case --utterances",
    "benchmark data": "-h --help --config --set --threads --seconds --json",
    "benchmark train": "-h --help --case --config --set --batch --repeats",
}


def parsers(parser, name=""):
    """Yields every command's name and parser."""
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, inner in action.choices.items():
                yield from parsers(inner, f"{name} {word}".strip())


PARSERS = dict(parsers(make_parser()))


@pytest.mark.parametrize("command", ARGUMENTS)
def test_arguments_stay(command):
    arguments = {}
    for action in PARSERS[command]._actions:
        if not isinstance(action, argparse._SubParsersAction):
            for name in action.option_strings or [action.metavar or action.dest]:
                arguments[name] = action.choices or ()
    expected = [each.partition("=")[::2] for each in ARGUMENTS[command].split()]
    for name, choices in expected:
        assert name in arguments, f"{command} {name} is gone"
        missing = {*choices.split("|")} - {"", *arguments[name]}
        assert not missing, f"{command} {name} no longer takes {missing}"
    positional = [name for name, _ in expected if not name.startswith("-")]
    assert [name for name in arguments if not name.startswith("-")] == positional


@pytest.mark.parametrize("command", PARSERS)
def test_every_argument_has_a_help(command):
    for action in PARSERS[command]._actions:
        assert action.help or isinstance(action, argparse._SubParsersAction), action.option_strings
    assert PARSERS[command].description
