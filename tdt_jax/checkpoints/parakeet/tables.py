"""Which tensor of a Parakeet checkpoint is which parameter of the model.

A row says: this parameter is that tensor in this layout. Layouts name dimensions by letters, theirs
first ("oi1->io": a pointwise convolution's weight is a kernel); 1 stands for itself. "{}" is the
number of the layer; a parameter of the blocks stacks those of all layers.

The names are NeMo's; `hugging_face_name` gives transformers' for the same tensor.
"""

from typing import NamedTuple

from tdt_jax.config import ModelConfig


class Row(NamedTuple):
    """A parameter and the tensor that holds it."""

    ours: str  # "encoder.blocks.attention.query.kernel"
    theirs: str  # "encoder.layers.{}.self_attn.linear_q.weight"
    layout: str  # "oi->io"

    @property
    def is_stacked(self) -> bool:
        return "{}" in self.theirs


def rows(config: ModelConfig) -> list[Row]:
    """Every parameter of the model, once; where several share a tensor, in the order of its rows.

    BatchNorms are not here: see `batch_norms`.
    """
    table = _subsampling() + _blocks(config)
    if config.predictor is not None:
        table += _predictor(config) + _joint(config)
    if config.ctc:
        table += _linear("ctc", ctc_head(config), layout="oi1->io")
    return table


def ctc_head(config: ModelConfig) -> str:
    """The name of the CTC head in a hybrid, or in a CTC model."""
    return ("decoder" if config.predictor is None else "ctc_decoder") + ".decoder_layers.0"


def batch_norms(config: ModelConfig) -> list[tuple[str, str]]:
    """Affine norms of ours with the BatchNorms of theirs that they are folded from."""
    if config.encoder.convolution_norm != "affine":
        return []
    return [("encoder.blocks.convolution.norm", "encoder.layers.{}.conv.batch_norm")]


def _linear(ours: str, theirs: str, *, bias: bool = True, layout: str = "oi->io") -> list[Row]:
    weight = Row(f"{ours}.kernel", f"{theirs}.weight", layout)
    return [weight] + [Row(f"{ours}.bias", f"{theirs}.bias", "o->o")] * bias


def _norm(ours: str, theirs: str) -> list[Row]:
    return [Row(f"{ours}.scale", f"{theirs}.weight", "d->d"),
            Row(f"{ours}.bias", f"{theirs}.bias", "d->d")]  # fmt: skip


def _subsampling() -> list[Row]:
    ours, theirs = "encoder.subsampling", "encoder.pre_encode"
    return [
        *_linear(f"{ours}.convolution", f"{theirs}.conv.0", layout="c1ij->ij1c"),
        Row(f"{ours}.depthwise1", f"{theirs}.conv.2.weight", "c1ij->ijc"),
        Row(f"{ours}.depthwise1_bias", f"{theirs}.conv.2.bias", "c->c"),
        *_linear(f"{ours}.pointwise1", f"{theirs}.conv.3", layout="oi11->io"),
        Row(f"{ours}.depthwise2", f"{theirs}.conv.5.weight", "c1ij->ijc"),
        Row(f"{ours}.depthwise2_bias", f"{theirs}.conv.5.bias", "c->c"),
        *_linear(f"{ours}.pointwise2", f"{theirs}.conv.6", layout="oi11->io"),
        *_linear(f"{ours}.output", f"{theirs}.out"),
    ]


def _blocks(config: ModelConfig) -> list[Row]:
    ours, theirs, bias = "encoder.blocks", "encoder.layers.{}", config.encoder.use_bias
    table = []
    for mine, other in (
        ("feed_forward1_norm", "norm_feed_forward1"),
        ("attention_norm", "norm_self_att"),
        ("convolution_norm", "norm_conv"),
        ("feed_forward2_norm", "norm_feed_forward2"),
        ("output_norm", "norm_out"),
    ):
        table += _norm(f"{ours}.{mine}", f"{theirs}.{other}")
    for name in ("feed_forward1.linear1", "feed_forward1.linear2",
                 "feed_forward2.linear1", "feed_forward2.linear2"):  # fmt: skip
        table += _linear(f"{ours}.{name}", f"{theirs}.{name}", bias=bias)
    for mine, other in (("query", "linear_q"), ("key", "linear_k"), ("value", "linear_v"),
                        ("output", "linear_out")):  # fmt: skip
        table += _linear(f"{ours}.attention.{mine}", f"{theirs}.self_attn.{other}", bias=bias)
    ours_conv, theirs_conv = f"{ours}.convolution", f"{theirs}.conv"
    for mine, other in (("pointwise1", "pointwise_conv1"), ("pointwise2", "pointwise_conv2")):
        names = f"{ours_conv}.{mine}", f"{theirs_conv}.{other}"
        table += _linear(*names, bias=bias, layout="oi1->io")
    table += [
        *_linear(f"{ours}.attention.position", f"{theirs}.self_attn.linear_pos", bias=False),
        Row(f"{ours}.attention.content_bias", f"{theirs}.self_attn.pos_bias_u", "hk->hk"),
        Row(f"{ours}.attention.position_bias", f"{theirs}.self_attn.pos_bias_v", "hk->hk"),
        Row(f"{ours_conv}.depthwise", f"{theirs_conv}.depthwise_conv.weight", "d1k->kd"),
    ]
    if bias:
        names = f"{ours_conv}.depthwise_bias", f"{theirs_conv}.depthwise_conv.bias"
        table.append(Row(*names, "d->d"))
    if config.encoder.convolution_norm == "layer_norm":
        table += _norm(f"{ours_conv}.norm", f"{theirs_conv}.batch_norm")  # so it is named there
    return table


def _predictor(config: ModelConfig) -> list[Row]:
    lstm = "decoder.prediction.dec_rnn.lstm"
    table = [Row("predictor.embedding", EMBEDDING, "vp->vp")]
    for layer in range(config.predictor.num_layers):
        for mine, other in (("input", "ih"), ("recurrent", "hh")):
            ours = f"predictor.layers.{layer}.{mine}"
            table += [
                Row(f"{ours}.kernel", f"{lstm}.weight_{other}_l{layer}", "oi->io"),
                Row(f"{ours}.bias", f"{lstm}.bias_{other}_l{layer}", "o->o"),
            ]
    return table


EMBEDDING = "decoder.prediction.embed.weight"  # has a row for blank, the last, which may be zero


def _joint(config: ModelConfig) -> list[Row]:
    # NeMo's list of layers has no place for a dropout of zero.
    head = f"joint.joint_net.{2 if config.joint.dropout else 1}"
    heads = ["token_head"] + ["duration_head"] * (config.durations is not None)
    table = _linear("joint.frame_projection", "joint.enc")
    table += _linear("joint.state_projection", "joint.pred")
    for name in heads:
        table += _linear(f"joint.{name}", head)
    return table


_RENAMED = (  # NeMo's part of a name, transformers'
    ("encoder.pre_encode.conv.", "encoder.subsampling.layers."),
    ("encoder.pre_encode.out.", "encoder.subsampling.linear."),
    (".self_attn.linear_q.", ".self_attn.q_proj."),
    (".self_attn.linear_k.", ".self_attn.k_proj."),
    (".self_attn.linear_v.", ".self_attn.v_proj."),
    (".self_attn.linear_out.", ".self_attn.o_proj."),
    (".self_attn.linear_pos.", ".self_attn.relative_k_proj."),
    (".self_attn.pos_bias_", ".self_attn.bias_"),
    (".conv.batch_norm.", ".conv.norm."),
    ("decoder.prediction.embed.", "decoder.embedding."),
    ("decoder.prediction.dec_rnn.lstm.", "decoder.lstm."),
    ("joint.enc.", "encoder_projector."),
    ("joint.pred.", "decoder.decoder_projector."),
    ("joint.joint_net.1.", "joint.head."),
    ("joint.joint_net.2.", "joint.head."),
    ("decoder.decoder_layers.0.", "ctc_head."),
)


def nemo_name(name: str) -> str:
    return name


def hugging_face_name(name: str) -> str:
    """What transformers calls the tensor that NeMo calls `name`."""
    for nemo, hugging_face in _RENAMED:
        name = name.replace(nemo, hugging_face)
    return name
