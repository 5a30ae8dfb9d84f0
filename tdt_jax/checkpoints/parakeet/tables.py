"""Which tensor of a Parakeet checkpoint is which parameter of the model.

A row of the table names a parameter, the tensor that holds it and the tensor's layout. Layouts name
dimensions by letters, the tensor's first: "oi1->io" says that the weight [output, input, 1] of a
pointwise convolution is a kernel [input, output]. "{}" in a tensor's name is the number of a layer;
a parameter of the blocks stacks the tensors of all layers.

The names of tensors are NeMo's; `hugging_face_name` translates them.
"""

from typing import NamedTuple

from tdt_jax.config import EncoderConfig, ModelConfig, PredictorConfig

EMBEDDING = "decoder.prediction.embed.weight"  # its last row is blank's, and may be zero


class Row(NamedTuple):
    """A parameter and the tensor that holds it."""

    parameter: str  # "encoder.blocks.attention.query.kernel"
    tensor: str  # "encoder.layers.{}.self_attn.linear_q.weight"
    layout: str  # "oi->io"

    @property
    def is_stacked(self) -> bool:
        return "{}" in self.tensor


def rows(config: ModelConfig) -> list[Row]:
    """Returns a row for each parameter of a model, but for norms that `batch_norms` names.

    Parameters that share a tensor lie behind one another in it, in the order of their rows.
    """
    table = _subsampling() + _blocks(config.encoder)
    if config.predictor is not None:
        table += _predictor(config.predictor) + _joint(config)
    if config.prompt is not None:
        table += _linear("prompt.linear1", "prompt_kernel.0")
        table += _linear("prompt.linear2", "prompt_kernel.2")
    if config.ctc:
        table += _linear("ctc", ctc_head(config), layout="oi1->io")
    return table


def batch_norms(config: ModelConfig) -> list[tuple[str, str]]:
    """Returns pairs of an affine norm of the model and the BatchNorm that it is folded from."""
    if config.encoder.convolution_norm != "affine":
        return []
    return [("encoder.blocks.convolution.norm", "encoder.layers.{}.conv.batch_norm")]


def ctc_head(config: ModelConfig) -> str:
    """Returns the name of the CTC head, which in a CTC model is not that in a hybrid."""
    return ("decoder" if config.predictor is None else "ctc_decoder") + ".decoder_layers.0"


def nemo_name(name: str) -> str:
    """Returns `name`, which is NeMo's."""
    return name


def hugging_face_name(name: str) -> str:
    """Returns transformers' name of the tensor that NeMo calls `name`."""
    for nemo, hugging_face in _RENAMED:
        name = name.replace(nemo, hugging_face)
    return name


def hugging_face_streaming_name(name: str) -> str:
    """Returns the name that the tensor has in transformers' streaming models."""
    for nemo, hugging_face in _RENAMED_STREAMING:
        name = name.replace(nemo, hugging_face)
    return hugging_face_name(name)


_RENAMED = (  # a part of NeMo's names, and transformers' for it
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
_RENAMED_STREAMING = (
    ("encoder.pre_encode.conv.0.", "encoder.subsampling.conv_in."),
    ("encoder.pre_encode.conv.2.", "encoder.subsampling.layers.0.depthwise_conv."),
    ("encoder.pre_encode.conv.3.", "encoder.subsampling.layers.0.pointwise_conv."),
    ("encoder.pre_encode.conv.5.", "encoder.subsampling.layers.1.depthwise_conv."),
    ("encoder.pre_encode.conv.6.", "encoder.subsampling.layers.1.pointwise_conv."),
    ("prompt_kernel.0.", "prompt_projector.linear_1."),
    ("prompt_kernel.2.", "prompt_projector.linear_2."),
)


# The parts of the table


def _linear(parameter: str, tensor: str, *, bias: bool = True, layout: str = "oi->io") -> list[Row]:
    weight = Row(f"{parameter}.kernel", f"{tensor}.weight", layout)
    return [weight] + [Row(f"{parameter}.bias", f"{tensor}.bias", "o->o")] * bias


def _norm(parameter: str, tensor: str) -> list[Row]:
    return [Row(f"{parameter}.scale", f"{tensor}.weight", "d->d"),
            Row(f"{parameter}.bias", f"{tensor}.bias", "d->d")]  # fmt: skip


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


def _blocks(config: EncoderConfig) -> list[Row]:
    ours, theirs, bias = "encoder.blocks", "encoder.layers.{}", config.use_bias
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
    if config.convolution_norm == "layer_norm":  # NeMo calls it batch_norm all the same
        table += _norm(f"{ours_conv}.norm", f"{theirs_conv}.batch_norm")
    return table


def _predictor(config: PredictorConfig) -> list[Row]:
    lstm = "decoder.prediction.dec_rnn.lstm"
    table = [Row("predictor.embedding", EMBEDDING, "vp->vp")]
    for layer in range(config.num_layers):
        for mine, other in (("input", "ih"), ("recurrent", "hh")):
            ours = f"predictor.layers.{layer}.{mine}"
            table += [
                Row(f"{ours}.kernel", f"{lstm}.weight_{other}_l{layer}", "oi->io"),
                Row(f"{ours}.bias", f"{lstm}.bias_{other}_l{layer}", "o->o"),
            ]
    return table


def _joint(config: ModelConfig) -> list[Row]:
    # The head follows the activation in NeMo's list of layers, and a dropout that is not zero.
    has_dropout = config.joint is not None and config.joint.dropout > 0
    head = f"joint.joint_net.{2 if has_dropout else 1}"
    table = _linear("joint.frame_projection", "joint.enc")
    table += _linear("joint.state_projection", "joint.pred")
    table += _linear("joint.token_head", head)
    if config.durations is not None:
        table += _linear("joint.duration_head", head)
    return table
