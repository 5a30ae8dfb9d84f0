"""Makes tiny streaming models with NeMo and transformers, and the arrays that they compute.

    pip install torch==2.13.0 'nemo_toolkit[asr]==3.0.0'
    python tests/golden/make_streaming.py nemo          # nemotron.nemo, nemotron_nemo.npz
    python tests/golden/make_streaming.py unified       # unified_contexts.npz
    pip install torch==2.13.0 transformers==5.24.0 sentencepiece protobuf
    python tests/golden/make_streaming.py transformers  # nemotron/, nemotron_transformers.npz

The first and the last are causal RNN-Ts with the settings of nemotron-3.5-asr-streaming-0.6b and a
language prompt; the tokenizer of the first also has the `<EOU>` and `<EOB>` of
parakeet_realtime_eou_120m-v1. Each encodes random utterances whole and chunk by chunk, in every
context, and decodes 200 of them. The second encodes utterances with the model that make_nemo.py
made, in contexts of left, chunk and right.
"""

import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from streaming_cases import (
    CONTEXTS,
    MAX_FEATURES,
    MELS,
    PROMPTS,
    UNIFIED,
    train_tokenizer,
    utterances,
)

HERE = Path(__file__).parent


def is_good(labels):
    counts = np.bincount(np.concatenate(labels).astype(int), minlength=64)
    print("labels", counts.sum(), "different", np.count_nonzero(counts))
    return 800 <= counts.sum() <= 4000 and np.count_nonzero(counts) >= 25


def packed(context, labels, times):
    """Returns arrays of a golden file for what is decoded in a context."""
    name = context[1]
    return {
        f"counts{name}": np.array([len(each) for each in labels], np.int16),
        f"labels{name}": np.concatenate(labels).astype(np.int16),
        f"times{name}": np.concatenate(times).astype(np.int16),
    }


def chunks(size, right):
    """Yields (start, end) of the features of each chunk, NeMo's and transformers' division."""
    start, end = 0, 1 + 8 * right
    while start < size:
        yield start, min(end, size)
        start, end = end, end + 8 * (right + 1)


# NeMo


def nemo_config(folder):
    from make_nemo import unified_config

    config = unified_config(folder)
    for name in ("att_chunk_context_size", "conv_context_style"):
        del config.encoder[name]
    config.encoder.update({
        "att_context_style": "chunked_limited", "att_context_size": CONTEXTS,
        "att_context_probs": [0.25] * 4, "causal_downsampling": True,
        "conv_context_size": "causal", "conv_norm_type": "layer_norm",
    })  # fmt: skip
    config.preprocessor.update({"normalize": "NA", "dither": 0.0})
    config.model_defaults.update({
        "initialize_prompt_feature": True, "num_prompts": 7, "prompt_dictionary": PROMPTS,
    })  # fmt: skip
    return config


@torch.no_grad()
def nemo_encode(model, features, lengths, prompt=None):
    """Returns the frames [B, T, D] of whole utterances, and their lengths."""
    encoded, num_frames = model.encoder(
        audio_signal=torch.tensor(features).transpose(1, 2), length=torch.tensor(lengths)
    )
    return _nemo_prompted(model, encoded, prompt).transpose(1, 2), num_frames


@torch.no_grad()
def nemo_stream(model, features, right, prompt=None):
    """Returns the frames [1, T, D] of features [M, F], encoded chunk by chunk.

    A chunk comes with the nine features before it, or all that there are, and the frames of those
    are dropped.
    """
    cache = model.encoder.get_initial_cache_state(batch_size=1)
    frames = []
    for start, end in chunks(len(features), right):
        first = max(0, start - 9)
        signal = torch.tensor(features[None, first:end]).transpose(1, 2)
        encoded, num_frames, *cache = model.encoder.cache_aware_stream_step(
            processed_signal=signal,
            processed_signal_length=torch.tensor([end - first]),
            cache_last_channel=cache[0],
            cache_last_time=cache[1],
            cache_last_channel_len=cache[2],
            keep_all_outputs=end == len(features),
            drop_extra_pre_encoded=(start - first + 7) // 8,
        )
        frames.append(_nemo_prompted(model, encoded, prompt)[:, :, : num_frames[0]])
    return torch.cat(frames, -1).transpose(1, 2)


def _nemo_prompted(model, encoded, prompt):
    if getattr(model, "concat", False):
        model.set_inference_prompt(prompt or "auto")
        encoded = model._apply_prompt_to_encoded(encoded)
    return encoded


@torch.no_grad()
def nemo_decode(model, frames):
    """Returns the labels and times of frames [1, T, D]."""
    (hypothesis,) = model.decoding.rnnt_decoder_predictions_tensor(
        frames.transpose(1, 2), torch.tensor([frames.shape[1]]), return_hypotheses=True
    )
    times = np.array([int(t) for t in hypothesis.timestamp], np.int64)
    return np.array(hypothesis.y_sequence.tolist(), np.int64), times


def nemo_stages(model, features, lengths):
    """Returns frames and logits of a few utterances."""
    from make_nemo import stages

    computed = stages(model, features, lengths)
    frames, _ = nemo_encode(model, features, lengths)
    states = computed["states"]
    with torch.no_grad():
        computed["logits"] = model.joint.joint_net(
            model.joint.project_encoder(frames)[:, :, None]
            + model.joint.project_prednet(states)[:, None]
        )
    return {**computed, "frames": frames}


def make_nemo_files():
    import make_nemo
    from nemo.collections.asr.models.rnnt_bpe_models_prompt import EncDecRNNTBPEModelWithPrompt

    features, lengths = utterances()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = train_tokenizer()
        (Path(folder) / "tokenizer.model").write_bytes(tokenizer)
        processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer)
        pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
        (Path(folder) / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
        model = EncDecRNNTBPEModelWithPrompt(nemo_config(folder)).eval()
        for seed in range(20):
            make_nemo.randomize(model, seed, len(pieces), nemo_stages)
            whole = [nemo_encode(model, x[None, :n], [n])[0]
                     for x, n in zip(features, lengths, strict=True)]  # fmt: skip
            if is_good([nemo_decode(model, frames)[0] for frames in whole]):
                break
        else:
            raise SystemExit("no seed gives what is needed")
        model.cfg.tokenizer.dir = None  # a folder that is gone
        model.save_to(str(HERE / "nemotron.nemo"))
    computed = nemo_stages(model, features[:2], lengths[:2])
    golden = {name: computed[name].numpy() for name in ("labels", "states")}
    golden["logits"] = computed["logits"][0].numpy()
    x, num_frames = model.encoder.pre_encode(
        x=torch.tensor(features[:2]), lengths=torch.tensor(lengths[:2])
    )
    golden |= {"subsampled": x.detach().numpy(), "num_frames": num_frames.numpy()}
    golden["german"] = nemo_encode(model, features[:2], lengths[:2], "de-DE")[0].numpy()
    for context in CONTEXTS:
        model.encoder.set_default_att_context_size(context)
        labels, times, errors = [], [], []
        for x, n in zip(features, lengths, strict=True):
            whole, _ = nemo_encode(model, x[None, :n], [n])
            streamed = nemo_stream(model, x[:n], context[1])
            errors.append(float((whole - streamed).abs().max()))
            decoded = nemo_decode(model, streamed)
            assert all(map(np.array_equal, decoded, nemo_decode(model, whole)))
            labels.append(decoded[0])
            times.append(decoded[1])
        print(context, "streamed against whole:", max(errors))
        assert max(errors) < 1e-5
        for i in range(2):
            golden[f"frames{context[1]}_{i}"] = nemo_stream(
                model, features[i, : lengths[i]], context[1]
            )[0].numpy()
        golden |= packed(context, labels, times)
    np.savez_compressed(HERE / "nemotron_nemo.npz", **golden)


def make_unified_file():
    from nemo.collections.asr.models import EncDecRNNTBPEModel
    from omegaconf import OmegaConf

    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(HERE / "parakeet_unified.nemo") as archive:
            archive.extractall(folder, filter="data")
        for name in ("tokenizer.model", "vocab.txt"):
            next(Path(folder).glob(f"*_{name}")).rename(Path(folder) / name)
        config = OmegaConf.load(Path(folder) / "model_config.yaml")
        config.tokenizer = {"dir": folder, "type": "bpe"}
        model = EncDecRNNTBPEModel(config).eval()
        model.load_state_dict(torch.load(Path(folder) / "model_weights.ckpt"))
    features, lengths = utterances(count=2, size=640)
    lengths[1] = 500
    golden = {}
    for context in UNIFIED:
        model.encoder.set_default_att_context_size(list(context))
        frames, num_frames = nemo_encode(model, features, lengths)
        golden["_".join(map(str, context))] = frames.numpy()
    np.savez_compressed(HERE / "unified_contexts.npz", num_frames=num_frames.numpy(), **golden)


# transformers


def transformers_frames(model, x, right, prompt=None, mask=None):
    """Returns the frames [B, T, D] of whole utterances [B, M, F], as the joint network has them."""
    options = {} if prompt is None else {"prompt_ids": torch.full((len(x),), prompt)}
    return model.get_audio_features(x, mask, num_lookahead_tokens=right, **options).pooler_output


def transformers_stream(model, x, right):
    """Returns the frames of features [1, M, F], encoded chunk by chunk."""
    options, frames = {}, []
    for start, end in chunks(x.shape[1], right):
        out = model.get_audio_features(
            x[:, start:end], num_lookahead_tokens=right, use_cache=True, **options
        )
        options = {"cache": out.cache, "padding_cache": out.padding_cache}
        frames.append(out.pooler_output)
    return torch.cat(frames, 1)


def transformers_decode(model, x, right):
    """Returns the labels and times of features [1, M, F], or of a generator of their chunks."""
    blank = model.config.blank_token_id
    is_whole = isinstance(x, torch.Tensor)
    out = model.generate(
        input_features=x, num_lookahead_tokens=right, decoder_start_token_id=blank,
        max_new_tokens=400, **({"attention_mask": torch.ones(x.shape[:2])} if is_whole else {}),
    )  # fmt: skip
    advances = out.durations[0, 1:].numpy()
    tokens = out.sequences[0, 1 : 1 + len(advances)].numpy()
    times, is_label = np.cumsum(advances) - advances, tokens != blank
    return tokens[is_label], times[is_label]


def transformers_stages(model, features, lengths):
    x, mask = torch.tensor(features), torch.tensor(
        np.arange(features.shape[1])[None] < np.asarray(lengths)[:, None]
    )  # fmt: skip
    labels = torch.tensor(np.random.default_rng(3).integers(0, 20, (len(features), 3)))
    start = torch.full((len(features), 1), model.config.blank_token_id)
    states = model.decoder(torch.cat([start, labels], 1))
    right = model.config.encoder_config.default_num_lookahead_tokens
    frames = transformers_frames(model, x, right, mask=mask)
    hidden = model.encoder(x, mask, output_hidden_states=True).hidden_states
    return {
        "subsampled": model.encoder.subsampling(x, mask),
        **{f"block{i}": block for i, block in enumerate(hidden[1:])},
        "labels": labels,
        "states": states,
        "logits": model.joint(states[:, None], frames[:, :, None]),
    }


def make_transformers_files():
    import make_parakeet
    import transformers
    from tokenizers import AddedToken
    from transformers.convert_slow_tokenizer import ParakeetConverter

    tokens = train_tokenizer()
    blank = sentencepiece.SentencePieceProcessor(model_proto=tokens).get_piece_size()
    encoder = make_parakeet.encoder(
        sliding_window=CONTEXTS[0][0] + 1, default_num_lookahead_tokens=CONTEXTS[0][1]
    )
    config = transformers.Nemotron3_5AsrConfig(
        vocab_size=blank + 1, blank_token_id=blank, pad_token_id=0, decoder_hidden_size=12,
        num_decoder_layers=2, encoder_config=encoder, num_prompts=7, prompt_intermediate_size=20,
        default_prompt_id=5,
    )  # fmt: skip
    model = transformers.Nemotron3_5AsrForRNNT(config).eval()
    features, lengths = utterances()
    inputs = [torch.tensor(x[None, :n]) for x, n in zip(features, lengths, strict=True)]
    for seed in range(20):
        make_parakeet.randomize(model, seed, transformers_stages, blank=blank, blank_bias=3.0)
        if is_good([transformers_decode(model, x, CONTEXTS[0][1])[0] for x in inputs]):
            break
    else:
        raise SystemExit("no seed gives what is needed")
    folder = HERE / "nemotron"
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    path = folder / "tokenizer.model"
    path.write_bytes(tokens)
    tokenizer = transformers.ParakeetTokenizer(
        tokenizer_object=ParakeetConverter(str(path)).converted(),
        clean_up_tokenization_spaces=False,
    )
    path.unlink()
    tokenizer.add_tokens([AddedToken("<blank>", normalized=False, special=True)])
    tokenizer.add_special_tokens({"pad_token": "<unk>", "unk_token": "<unk>"})
    extractor = transformers.NemotronAsrStreamingFeatureExtractor(feature_size=MELS)
    transformers.Nemotron3_5AsrProcessor(
        extractor, tokenizer, prompt_dictionary=PROMPTS, num_prompts=7,
        supported_num_lookahead_tokens=[right for _, right in CONTEXTS],
    ).save_pretrained(folder)  # fmt: skip

    with torch.no_grad():
        computed = transformers_stages(model, features[:2], lengths[:2])
        golden = {name: each.numpy() for name, each in computed.items()}
        golden["logits"] = golden["logits"][0]
        golden["german"] = transformers_frames(model, inputs[0], 3, prompt=2).numpy()
        for context in CONTEXTS:
            right = context[1]
            decoded = [transformers_decode(model, x, right) for x in inputs]
            golden |= packed(context, *zip(*decoded, strict=True))
            # Its chunks are whole: 8 (R + 1) k - 7 features.
            size = (MAX_FEATURES + 7) // (8 * (right + 1)) * 8 * (right + 1) - 7
            x = inputs[0][:, :size]
            streamed = transformers_stream(model, x, right)
            whole = transformers_frames(model, x, right)
            print(context, "streamed against whole:", float((whole - streamed).abs().max()))
            assert (whole - streamed).abs().max() < 1e-5
            cut = (x[:, start:end] for start, end in chunks(size, right))
            both = transformers_decode(model, cut, right), transformers_decode(model, x, right)
            assert all(map(np.array_equal, *both))
            golden[f"frames{right}"] = streamed[0].numpy()
        samples = [np.random.default_rng(5).normal(size=n).astype(np.float32) * 0.1
                   for n in (4000, 6543)]  # fmt: skip
        out = extractor(samples, sampling_rate=16000)
    golden["log_mel"] = out["input_features"].numpy()
    golden["num_log_mel"] = out["attention_mask"].sum(-1).numpy()
    np.savez_compressed(HERE / "nemotron_transformers.npz", **golden)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    {
        "nemo": make_nemo_files,
        "unified": make_unified_file,
        "transformers": make_transformers_files,
    }[sys.argv[1]]()
