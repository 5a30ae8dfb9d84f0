"""What a run that fine-tunes prepares: architecture, tokens, data with replay, checks."""

import dataclasses
from typing import Any

from tdt_jax import tokenizer as tokenizers
from tdt_jax.config import Config, ModelConfig
from tdt_jax.data.mixture import Mixture
from tdt_jax.data.selection import Selection
from tdt_jax.data.task import Task, make_task
from tdt_jax.models.adapters import is_partial
from tdt_jax.tokenizer import Tokenizer

MAX_UNALIGNED = 0.01  # share of the utterances that no alignment fits
# Of the encoder, what does not change the meaning of parameters.
SETTINGS = "dropout", "attention_dropout", "remat", "remat_policy", "unroll", "precision"


def check_source(config: Config) -> None:
    """Raises ValueError if a configuration tunes a checkpoint and names none."""
    tuning = config.tuning
    needed = is_partial(tuning) or tuning.vocabulary != "kept" or tuning.same_model
    if needed and not config.training.init_from:
        raise ValueError(
            "this configuration fine-tunes a checkpoint and names none: add "
            "--set training.init_from=PATH"
        )


def with_model_of(config: Config, model: ModelConfig) -> Config:
    """Returns the configuration with the architecture of `model`, if tuning.same_model.

    Dropout, dtype and what else only training and speed depend on stay as they are. The weight of
    the CTC loss becomes 0 if the model has no CTC head.
    """
    if not config.tuning.same_model:
        return config
    own = config.model
    encoder = {name: getattr(own.encoder, name) for name in SETTINGS}
    parts: dict[str, Any] = {"encoder": dataclasses.replace(model.encoder, **encoder)}
    if model.predictor is not None and own.predictor is not None:
        dropout = own.predictor.dropout
        parts["predictor"] = dataclasses.replace(model.predictor, dropout=dropout)
    if model.joint is not None and own.joint is not None:
        parts["joint"] = dataclasses.replace(model.joint, dropout=own.joint.dropout)
    model = dataclasses.replace(model, dtype=own.dtype, piece_seconds=own.piece_seconds, **parts)
    loss = config.loss if model.ctc else dataclasses.replace(config.loss, ctc_weight=0.0)
    return dataclasses.replace(config, model=model, loss=loss)


def make_tuning_task(config: Config, tokenizer: Tokenizer | None, *, is_new: bool) -> Task:
    """Returns the task of a run, with replay if it is configured.

    Args:
      config: the run's.
      tokenizer: of the run, or of what it starts from; None: to be trained.
      is_new: the run starts from a checkpoint, and its tokens are yet to be chosen.

    Raises:
      ValueError: as of `make_task`; and of a run that starts from a checkpoint, if no alignment
        fits more than 1 % of the utterances.
    """
    if is_new and config.tuning.vocabulary == "replaced":
        tokenizer = None
    elif is_new and tokenizer is not None and config.tuning.vocabulary == "extended":
        own = config.tokenizer.model
        other = tokenizers.load(own) if own else make_task(config).tokenizer
        tokenizer = tokenizers.extend(tokenizer, other)
    task = make_task(config, tokenizer)
    if config.training.init_from:
        check_alignments(getattr(task.batches, "selection", None))
    return with_replay(task, config) if config.data.replay else task


def check_alignments(selection: Selection | None) -> None:
    """Raises ValueError if too many utterances have more labels than any alignment fits."""
    if selection is None:
        return
    reasons = "with too few frames for any alignment", "with more labels than frames allow"
    unaligned = [name for reason in reasons for name in selection.skipped.get(reason, [])]
    total = len(selection.entries) + sum(map(len, selection.skipped.values()))
    if len(unaligned) > MAX_UNALIGNED * total:
        raise ValueError(
            f"{len(unaligned)} of {total} utterances, such as {unaligned[0]}, have more labels "
            "than any alignment to their frames fits: their texts or durations are probably those "
            "of other recordings; correct them or leave them out"
        )


def with_replay(task: Task, config: Config) -> Task:
    """Returns the task with batches of data.replay in data.replay_share of the steps."""
    data = config.data
    share = data.replay_share
    data = dataclasses.replace(data, train=data.replay, dev=(), test=(), telephone=None)
    replay = make_task(dataclasses.replace(config, data=data), task.tokenizer)
    name = f"replay in {100 * share:g} % of the steps"
    report = [line.replace("training", name, 1) for line in replay.report]
    return task._replace(
        batches=Mixture(task.batches, replay.batches, share), report=[*task.report, *report]
    )


def describe_tokens(known: Tokenizer, tokenizer: Tokenizer, source: str) -> str:
    """Returns a line about the tokens of a run, and those of the checkpoint it starts from."""
    if tokenizer.pieces == known.pieces:
        return f"tokens: the {known.vocab_size} of {source}"
    num_shared = len(set(tokenizer.pieces) & set(known.pieces))
    return (
        f"tokens: {tokenizer.vocab_size}, {num_shared} of them among the {known.vocab_size} of "
        f"{source}"
    )
