"""Tunes a model of half of the telephone vocabulary to the other half, in several ways.

    python examples/finetune/halves.py runs/halves
    python examples/finetune/halves.py runs/halves --ways scratch,adapters --steps 300

The base is the quickstart's TDT, trained on phone numbers and digits. Each way then gets the same
number of steps on amounts, dates and times, with a tokenizer of their own, and is tested on both
halves. Started again, it continues. On two CPU cores the base takes 15 minutes, a way 5.

    scratch            a new model
    full               all parameters, from the base
    full_replay        the same, with utterances of the first half in a quarter of the steps
    adapters           low-rank adapters, and the rows of the new tokens
    adapters_replay    the same, with replay
    head               predictor, joint network and CTC head; the encoder stays
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import tdt_jax as tdt
from tdt_jax import tokenizer as tokenizers
from tdt_jax.data.manifest import read_manifest, write_manifest
from tdt_jax.data.telephone.compose import Telephone
from tdt_jax.inference.evaluation import evaluate

ROOT = Path(__file__).parents[2]
HALVES = {"first": ("digits", "phone"), "second": ("amount", "date", "time")}
RATE = 16000
PARTS = "predictor.*,joint.*,ctc.*"
WAYS = {
    "scratch": [],
    "full": ["tuning.vocabulary=replaced", "optimizer.learning_rate=1e-3"],
    "adapters": ["tuning.vocabulary=replaced", "tuning.rank=8", "optimizer.learning_rate=3e-3"],
    "head": [
        "tuning.vocabulary=replaced", f"tuning.train={PARTS}", "optimizer.learning_rate=3e-3",
    ],
}  # fmt: skip
WAYS |= {f"{way}_replay": [*WAYS[way], "data.replay_share=0.25"] for way in ("full", "adapters")}


def prepare(folder: Path, num_replay: int, num_test: int) -> None:
    """Writes utterances of both halves to test on, of the first to replay, and a tokenizer."""
    if (folder / "tokenizer.model").exists():
        return
    texts = []
    for name, kinds in HALVES.items():
        options = tdt.TelephoneConfig(kinds=kinds, num_test=num_test)
        telephone = Telephone(options, sample_rate=RATE, seed=7)
        write_manifest(folder / f"{name}.jsonl", telephone.test_set(), RATE)
        # A few texts of the first half, so that its characters have tokens.
        texts += telephone.texts(20_000 if name == "second" else 200)
    options = tdt.TelephoneConfig(kinds=HALVES["first"], num_test=num_replay)
    replay = Telephone(options, sample_rate=RATE, seed=8).test_set()
    write_manifest(folder / "replay.jsonl", replay, RATE)
    tokenizers.train_sentencepiece(texts, 160).save(folder)


def train(folder: Path, name: str, kinds, num_steps: int, overrides) -> dict:
    """Runs train.py; returns seconds per step and the peak of its memory."""
    assignments = [
        f"training.folder={folder / name}", f"training.num_steps={num_steps}",
        f"training.eval_every={num_steps}", f"data.telephone.kinds={','.join(kinds)}",
        "data.telephone.num_test=4", *overrides,
    ]  # fmt: skip
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        "--config",
        str(ROOT / "configs/quickstart.py"),
    ]
    for assignment in assignments:
        command += ["--set", assignment]
    with (folder / f"{name}.log").open("a+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"{name} failed: see {log.name}")
        log.seek(0)
        text = log.read()
    found = re.findall(r"^(\d+) steps in (\d+) s, (\d+) s of them", text, re.M)
    steps, seconds, compiling = (sum(map(int, column)) for column in zip(*found, strict=True))
    trained = re.search(r"([\d.]+) M trained", text) or re.search(r"([\d.]+) M parameters", text)
    return {
        "ms_per_step": round(1000 * (seconds - compiling) / max(1, steps)),
        "peak_gb": round(usage.ru_maxrss / 1e6, 2),
        "trained_millions": float(trained[1]) if trained else None,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="for runs, utterances and results.json")
    parser.add_argument("--ways", default=",".join(WAYS), help="some of them [all]")
    parser.add_argument("--base-steps", type=int, default=2400, help="of the base [2400]")
    parser.add_argument("--steps", type=int, default=800, help="of each way [800]")
    parser.add_argument("--utterances", type=int, default=200, help="of each test set [200]")
    parser.add_argument("--set", action="append", default=[], help="a field, in all runs")
    options = parser.parse_args(arguments)
    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder, num_replay=2 * options.utterances, num_test=options.utterances)

    results_file = folder / "results.json"
    results = json.loads(results_file.read_text()) if results_file.exists() else {}
    tests = {name: read_manifest(folder / f"{name}.jsonl") for name in HALVES}
    for way in ["base", *options.ways.split(",")]:
        if way not in results:
            if way == "base":
                half, steps, overrides = "first", options.base_steps, []
            else:
                half, steps = "second", options.steps
                marks = [[0, 0], [steps // 6, 1], [steps // 3, 2]] if way == "scratch" else []
                overrides = [
                    f"tokenizer.model={folder / 'tokenizer.model'}",
                    f"data.telephone.curriculum={json.dumps(marks)}",
                    f"optimizer.warmup_steps={max(1, steps // 12)}",
                    *([] if way == "scratch" else [f"training.init_from={folder / 'base'}"]),
                    *([f"data.replay={folder / 'replay.jsonl'}"] if "replay" in way else []),
                    *WAYS[way],
                ]
            cost = train(folder, way, HALVES[half], steps, [*overrides, *options.set])
            recogniser = tdt.load(folder / way)
            rates = {name: evaluate(recogniser, test).words.rate for name, test in tests.items()}
            results[way] = {f"wer_{name}": round(rate, 4) for name, rate in rates.items()} | cost
            results_file.write_text(json.dumps(results, indent=2))
        row = results[way]
        print(
            f"{way:16} WER first half {100 * row['wer_first']:5.1f} %, second "
            f"{100 * row['wer_second']:5.1f} %; {row['trained_millions']} M trained, "
            f"{row['ms_per_step']} ms a step, {row['peak_gb']} GB",
            flush=True,
        )


if __name__ == "__main__":
    main()
