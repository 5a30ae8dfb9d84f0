"""Makes parakeet_*/ and parakeet.npz with transformers: tiny models and the arrays they compute.

    pip install torch==2.13.0 transformers==5.23.0 sentencepiece protobuf
    python tests/golden/make_parakeet.py

`save_pretrained` writes the folders. Each model decodes 200 ragged random utterances; transformers'
TDT has no limit of labels at a frame, so utterances that go beyond ours are left out.
"""

import io
import shutil
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from tokenizers import AddedToken
from transformers import (
    ParakeetCTCConfig,
    ParakeetFeatureExtractor,
    ParakeetForCTC,
    ParakeetForRNNT,
    ParakeetForTDT,
    ParakeetProcessor,
    ParakeetRNNTConfig,
    ParakeetTDTConfig,
    ParakeetTokenizer,
)
from transformers.convert_slow_tokenizer import ParakeetConverter

HERE = Path(__file__).parent
MELS = 16
NUM_UTTERANCES, NUM_KEPT, MAX_FEATURES = 400, 200, 96
TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "hello world, again and again",
    "it's a test, isn't it? yes.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich",
    "voix ambiguë d'un cœur qui au zéphyr préfère les jattes de kiwis",
]


def encoder(**changes):
    return {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "num_mel_bins": MELS, "subsampling_conv_channels": 6,
        "conv_kernel_size": 5, **changes,
    }  # fmt: skip


def utterances(seed=1):
    """Returns random features [400, 96, 16] of ragged lengths, zero beyond them."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, MAX_FEATURES + 1, NUM_UTTERANCES)
    lengths[0] = MAX_FEATURES
    features = rng.normal(size=(NUM_UTTERANCES, MAX_FEATURES, MELS)).astype(np.float32)
    features[np.arange(MAX_FEATURES)[None] >= lengths[:, None]] = 0
    return features, lengths


@torch.no_grad()
def randomize(model, seed, stages, *, blank, blank_bias):
    """Sets weights that all matter, and heads that emit blanks, labels and all durations."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2, generator=generator)
        elif "norm" in name and name.endswith("weight"):
            tensor.uniform_(0.8, 1.2, generator=generator)
        elif tensor.ndim > 1:
            tensor.normal_(0, 1 / np.sqrt(np.prod(tensor.shape[1:])), generator=generator)
        else:
            tensor.normal_(0, 0.1, generator=generator)
    head = model.joint.head if hasattr(model, "joint") else model.ctc_head
    if hasattr(model, "joint"):
        model.decoder.embedding.weight[blank] = 0
    features, lengths = utterances()
    logits = stages(model, features[:20], lengths[:20])["logits"].flatten(0, -2)
    deviation = logits.std(0)
    head.weight /= deviation.reshape(-1, *[1] * (head.weight.ndim - 1))
    head.bias -= logits.mean(0)  # so that every output is emitted
    head.bias /= deviation
    head.bias[blank] += blank_bias
    if len(head.bias) > blank + 1:
        head.bias[blank + 1] -= 0.3  # else duration 0 for ever


def train_tokenizer(normalization):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 3), model_writer=model, vocab_size=120, model_type="bpe",
        hard_vocab_limit=False, bos_id=-1, eos_id=-1, unk_id=0, minloglevel=2,
        normalization_rule_name=normalization, control_symbols=["<pad>"],
        user_defined_symbols=["<|x|>"],
    )  # fmt: skip
    return model.getvalue()


def save(model, folder, sentencepiece_model, decoder_type):
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    path = folder / "tokenizer.model"
    path.write_bytes(sentencepiece_model)
    tokenizer = ParakeetTokenizer(
        tokenizer_object=ParakeetConverter(str(path)).converted(),
        clean_up_tokenization_spaces=False,
    )
    path.unlink()
    special = "<blank>" if decoder_type != "ctc" else "<ctc_blank>"
    tokenizer.add_tokens([AddedToken(special, normalized=False, special=True)])
    tokenizer.add_special_tokens({"pad_token": "<pad>", "unk_token": "<unk>"})
    extractor = ParakeetFeatureExtractor(feature_size=MELS)
    ParakeetProcessor(extractor, tokenizer, decoder_type=decoder_type).save_pretrained(folder)
    return tokenizer


@torch.no_grad()
def stages(model, features, lengths):
    """Returns the output of every stage of a model on a few utterances."""
    mask = torch.tensor(np.arange(features.shape[1])[None] < lengths[:, None])
    x = torch.tensor(features)
    if not hasattr(model, "joint"):
        return {"logits": model(x, mask).logits}
    hidden = model.encoder(x, mask, output_hidden_states=True).hidden_states
    labels = torch.tensor(np.random.default_rng(3).integers(0, 20, (len(features), 3)))
    start = torch.full((len(features), 1), model.config.blank_token_id)
    states = model.decoder(torch.cat([start, labels], 1))
    frames = model.get_audio_features(x, mask).pooler_output
    logits = model.joint(states[:, None], frames[:, :, None])
    return {
        "subsampled": model.encoder.subsampling(x, mask),
        **{f"block{i}": block for i, block in enumerate(hidden[1:])},
        "labels": labels,
        "states": states,
        "logits": logits,
    }


@torch.no_grad()
def decode(model, features, lengths, max_symbols=10):
    """Returns which utterances are within the limit, their labels, times and durations."""
    kept, labels, times, durations = [], [], [], []
    blank = model.config.blank_token_id
    num_durations = len(getattr(model.config, "durations", ()))
    options = dict(decoder_start_token_id=blank)
    if num_durations:
        options["suppress_tokens"] = list(range(blank + 1, blank + 1 + num_durations))
    for index, (x, length) in enumerate(zip(features, lengths, strict=True)):
        out = model.generate(
            input_features=torch.tensor(x[None, :length]),
            attention_mask=torch.ones(1, length, dtype=torch.bool),
            max_new_tokens=12 * -(-length // 8),  # by default it stops one label early
            **options,
        )
        advances = out.durations[0, 1:].numpy()
        tokens = out.sequences[0, 1 : 1 + len(advances)].numpy()
        at = np.cumsum(advances) - advances
        is_label = tokens != blank
        if num_durations and np.bincount(at[is_label], minlength=1).max() >= max_symbols:
            continue
        kept.append(index)
        labels.append(tokens[is_label])
        times.append(at[is_label])
        durations.append(advances[is_label])
        if len(kept) == NUM_KEPT:
            return kept, labels, times, durations
    raise SystemExit(f"only {len(kept)} utterances are within the limit")


def packed(lists):
    return np.concatenate(lists).astype(np.int16)


def main():
    torch.set_num_threads(1)
    # NeMo's normalisation in one of them: its table takes 300 kB.
    spm, plain = train_tokenizer("nmt_nfkc"), train_tokenizer("identity")
    blank = sentencepiece.SentencePieceProcessor(model_proto=plain).get_piece_size()
    assert blank == sentencepiece.SentencePieceProcessor(model_proto=spm).get_piece_size()
    features, lengths = utterances()
    golden = {"features": features[:3], "lengths": lengths[:3]}

    sizes = dict(vocab_size=blank + 1, blank_token_id=blank, pad_token_id=1,
                 decoder_hidden_size=12, num_decoder_layers=2)  # fmt: skip
    tdt = ParakeetTDTConfig(**sizes, encoder_config=encoder(scale_input=True))
    rnnt = ParakeetRNNTConfig(
        **sizes,
        encoder_config=encoder(attention_bias=False, convolution_bias=False, scale_input=False),
    )
    for kind, model, bias in (
        ("tdt", ParakeetForTDT(tdt), 0.8),
        ("rnnt", ParakeetForRNNT(rnnt), 4.0),
    ):
        for seed in range(20):
            randomize(model.eval(), seed, stages, blank=blank, blank_bias=bias)
            kept, *results = decode(model, features, lengths)
            durations = np.bincount(np.concatenate(results[2]), minlength=5)
            if kind == "rnnt" or durations.min() >= 5:
                break
        print(f"{kind}: seed {seed}, {durations.sum()} labels of durations {durations}")
        tokens = spm if kind == "tdt" else plain
        tokenizer = save(model, HERE / f"parakeet_{kind}", tokens, kind)
        ids = [np.array(tokenizer(text)["input_ids"]) for text in TEXTS]
        golden[f"{kind}_tokenized"] = packed(ids)
        golden |= {f"{kind}_{name}": each.numpy() for name, each in
                   stages(model, features[:2], lengths[:2]).items()}  # fmt: skip
        golden[f"{kind}_kept"] = np.array(kept, np.int16)
        golden[f"{kind}_counts"] = np.array([len(each) for each in results[0]], np.int16)
        for name, each in zip(("labels", "times", "durations"), results, strict=True):
            golden[f"{kind}_decoded_{name}"] = packed(each)

    ctc = ParakeetForCTC(
        ParakeetCTCConfig(vocab_size=blank + 1, pad_token_id=blank, encoder_config=encoder())
    ).eval()
    randomize(ctc, 0, stages, blank=blank, blank_bias=2.0)
    save(ctc, HERE / "parakeet_ctc", plain, "ctc")
    mask = torch.tensor(np.arange(MAX_FEATURES)[None] < lengths[:, None])
    with torch.no_grad():
        golden["ctc_logits"] = stages(ctc, features[:3], lengths[:3])["logits"].numpy()
        decoded = ctc.generate(torch.tensor(features), mask).numpy()[:NUM_KEPT]
    collapsed = [[t for i, t in enumerate(row) if t != blank and (i == 0 or row[i - 1] != t)]
                 for row in decoded]  # fmt: skip
    golden["ctc_counts"] = np.array([len(each) for each in collapsed], np.int16)
    golden["ctc_decoded_labels"] = packed([np.array(each) for each in collapsed])
    print("ctc labels", len(golden["ctc_decoded_labels"]))

    rng = np.random.default_rng(5)
    samples = [rng.normal(size=n).astype(np.float32) * 0.1 for n in (4000, 6543)]
    out = ParakeetFeatureExtractor(feature_size=MELS)(samples, sampling_rate=16000)
    golden["log_mel"] = out["input_features"].numpy()
    golden["num_log_mel"] = out["attention_mask"].sum(-1).numpy()
    np.savez_compressed(HERE / "parakeet.npz", **golden)


if __name__ == "__main__":
    main()
