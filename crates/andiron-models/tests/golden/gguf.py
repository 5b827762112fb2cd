#!/usr/bin/env python3
"""Makes the GGUF fixtures with the `gguf` package: a file with a tensor of each type, and the values it means.

    python3 gguf.py

Needs `gguf` 0.19, numpy, safetensors and `sentencepiece` 0.2. `gguf/types.gguf` holds one tensor `[3, 512]` of each element type and some
metadata of each type; `gguf/types.safetensors` holds the tensors as f32, as the package dequantises them. What the
package cannot quantise is made of random bytes with scales of a usual size.

`gguf/gpt2.gguf` is the fixture `gpt2`, with the names and layouts of llama.cpp's converter; `gguf/llama.gguf` is a tiny
Llama of random weights, with `gguf/llama.safetensors` for what they are in Hugging Face's names and layouts;
`gguf/bert.gguf` is the fixture `bert` without its pooler, with a small vocabulary of word pieces.

`gguf/sentence_piece.gguf` is a tiny Llama with the tokenizer that `sentencepiece` 0.2 learns from a few sentences, with bytes to
fall back to, as Llama 2 has it; `gguf/sentence_piece.json` is what it makes of some texts.
"""
import json
import pathlib
import sys

# Beside this file lie folders, and the file itself is called like the package.
HERE = pathlib.Path(__file__).resolve().parent
sys.path = [path for path in sys.path if path and pathlib.Path(path).resolve() != HERE]

import gguf
import numpy
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import load_file, save_file

SHAPE = (3, 512)
# Where a block's f16 scales begin, for types that the package does not write.
SCALES = {
    Type.Q2_K: (80, 82),
    Type.Q3_K: (108,),
    Type.Q4_K: (0, 2),
    Type.Q5_K: (0, 2),
    Type.Q6_K: (208,),
}
WRITTEN = [Type.F32, Type.F16, Type.BF16, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0]


def random_blocks(rng, kind):
    block_len, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    rows = SHAPE[0] * SHAPE[1] // block_len
    blocks = rng.integers(0, 256, (rows, block_bytes), dtype=numpy.uint8)
    for at in SCALES[kind]:
        scales = rng.normal(0, 0.01, (rows, 1)).astype(numpy.float16)
        blocks[:, at : at + 2] = scales.view(numpy.uint8)
    return blocks.reshape(SHAPE[0], -1)


def types():
    rng = numpy.random.default_rng(7)
    folder = HERE / "gguf"
    folder.mkdir(exist_ok=True)
    writer = gguf.GGUFWriter(folder / "types.gguf", "test")
    for width in (8, 16, 32, 64):
        getattr(writer, f"add_uint{width}")(f"test.u{width}", 2**width - 1)
        getattr(writer, f"add_int{width}")(f"test.i{width}", -(2 ** (width - 1)))
    writer.add_float32("test.f32", 1e-5)
    writer.add_float64("test.f64", -0.1)
    writer.add_bool("test.bool", True)
    writer.add_string("test.string", "grüße")
    writer.add_array("test.strings", ["a", "", "ß"])
    writer.add_array("test.integers", [3, -1, 7])
    writer.add_array("test.floats", [0.5, -2.0])
    writer.add_array("test.nested", [[1, 2], [3]])
    expected = {}
    for kind in WRITTEN + list(SCALES):
        name = f"tensor.{kind.name.lower()}"
        values = rng.normal(0, 1, SHAPE).astype(numpy.float32)
        values[1, 32:64] = 0.0  # A block without any scale.
        data = gguf.quants.quantize(values, kind) if kind in WRITTEN else random_blocks(rng, kind)
        expected[name] = numpy.ascontiguousarray(gguf.quants.dequantize(data, kind)).reshape(SHAPE)
        assert numpy.isfinite(expected[name]).all(), name
        writer.add_tensor(name, data, raw_dtype=kind)
    finish(writer)
    save_file(expected, folder / "types.safetensors")


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def renamed(name, pairs):
    for theirs, ours in pairs:
        name = name.replace(theirs, ours)
    return name


def gpt2():
    config = json.loads((HERE / "gpt2/config.json").read_text())
    writer = gguf.GGUFWriter(HERE / "gguf/gpt2.gguf", "gpt2")
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(4 * config["n_embd"])
    writer.add_block_count(config["n_layer"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    pairs = [("transformer.h.", "blk."), ("transformer.wte", "token_embd"), ("transformer.wpe", "position_embd"),
             ("transformer.ln_f", "output_norm"), ("ln_1", "attn_norm"), ("ln_2", "ffn_norm"),
             ("attn.c_attn", "attn_qkv"), ("attn.c_proj", "attn_output"),
             ("mlp.c_fc", "ffn_up"), ("mlp.c_proj", "ffn_down")]
    for name, values in load_file(HERE / "gpt2/model.safetensors").items():
        if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
            values = values.T
        writer.add_tensor(renamed(name, pairs), numpy.ascontiguousarray(values))
    finish(writer)


def llama():
    rng = numpy.random.default_rng(8)
    width, inner, n_heads, n_kv, n_vocab = 32, 40, 4, 2, 11
    head_dim = width // n_heads
    writer = gguf.GGUFWriter(HERE / "gguf/llama.gguf", "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(inner)
    writer.add_block_count(2)
    writer.add_head_count(n_heads)
    writer.add_head_count_kv(n_kv)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(100_000.0)
    writer.add_rope_dimension_count(head_dim)
    writer.add_vocab_size(n_vocab)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    expected = {}

    def add(ours, theirs, shape, heads=None):
        values = rng.normal(0, 1, shape).astype(numpy.float16)
        expected[theirs] = values.astype(numpy.float32)
        if heads:
            # llama.cpp rotates neighbours where Hugging Face rotates halves.
            split = values.reshape(heads, 2, shape[0] // heads // 2, shape[1])
            values = numpy.ascontiguousarray(split.swapaxes(1, 2)).reshape(shape)
        writer.add_tensor(ours, values if len(shape) > 1 else values.astype(numpy.float32))

    add("token_embd.weight", "model.embed_tokens.weight", (n_vocab, width))
    for n in range(2):
        ours, theirs = f"blk.{n}.", f"model.layers.{n}."
        add(ours + "attn_norm.weight", theirs + "input_layernorm.weight", (width,))
        add(ours + "attn_q.weight", theirs + "self_attn.q_proj.weight", (n_heads * head_dim, width), n_heads)
        add(ours + "attn_k.weight", theirs + "self_attn.k_proj.weight", (n_kv * head_dim, width), n_kv)
        add(ours + "attn_v.weight", theirs + "self_attn.v_proj.weight", (n_kv * head_dim, width))
        add(ours + "attn_output.weight", theirs + "self_attn.o_proj.weight", (width, width))
        add(ours + "ffn_norm.weight", theirs + "post_attention_layernorm.weight", (width,))
        add(ours + "ffn_gate.weight", theirs + "mlp.gate_proj.weight", (inner, width))
        add(ours + "ffn_up.weight", theirs + "mlp.up_proj.weight", (inner, width))
        add(ours + "ffn_down.weight", theirs + "mlp.down_proj.weight", (width, inner))
    add("output_norm.weight", "model.norm.weight", (width,))
    finish(writer)
    save_file(expected, HERE / "gguf/llama.safetensors")


def write_bert(path, config, weights, vocab, control):
    """An embedding model as llama.cpp's converter writes it: without pooler, words marked instead of their parts."""
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_tokenizer_model("bert")
    writer.add_token_type_count(config["type_vocab_size"])
    marked = lambda word: word if word in control else word[2:] if word.startswith("##") else "▁" + word
    writer.add_token_list([marked(word) for word in vocab])
    writer.add_token_types([gguf.TokenType.CONTROL if word in control else gguf.TokenType.NORMAL for word in vocab])
    for add, word in [(writer.add_bos_token_id, "[CLS]"), (writer.add_sep_token_id, "[SEP]"),
                      (writer.add_unk_token_id, "[UNK]"), (writer.add_pad_token_id, "[PAD]"),
                      (writer.add_mask_token_id, "[MASK]")]:
        add(vocab.index(word))
    pairs = [("bert.", ""), ("encoder.layer.", "blk."), ("embeddings.word_embeddings", "token_embd"),
             ("embeddings.position_embeddings", "position_embd"), ("embeddings.token_type_embeddings", "token_types"),
             ("embeddings.LayerNorm", "token_embd_norm"), ("attention.output.LayerNorm", "attn_output_norm"),
             ("attention.output.dense", "attn_output"), ("attention.self.query", "attn_q"),
             ("attention.self.key", "attn_k"), ("attention.self.value", "attn_v"),
             ("intermediate.dense", "ffn_up"), ("output.dense", "ffn_down"), ("output.LayerNorm", "layer_output_norm")]
    for name, values in weights.items():
        if "pooler" not in name and "position_ids" not in name:
            writer.add_tensor(renamed(name, pairs), numpy.ascontiguousarray(values))
    finish(writer)


def bert():
    config = json.loads((HERE / "bert/config.json").read_text())
    control = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab = control + ["the", "cat", "##s", "sat", "cafe"] + [chr(ord("a") + n) for n in range(26)]
    vocab += [f"word{n}" for n in range(config["vocab_size"] - len(vocab))]
    write_bert(HERE / "gguf/bert.gguf", config, load_file(HERE / "bert/model.safetensors"), vocab, control)


SENTENCES = [
    "The quick brown fox jumps over the lazy dog, and the dog does not mind.",
    "A model reads tokens; a tokenizer reads text. Between them stand 32000 pieces.",
    "Where the spaces  go is what makes it hard: one, two   or three of them.",
    "Der Fuchs springt über den faulen Hund, während die Katze schläft.",
    "for i in range(10):\n    print(i, end=' ')\n",
]


def sentence_piece():
    import io
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 3), model_writer=model, model_type="bpe", vocab_size=420, byte_fallback=True,
        character_coverage=1.0, normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True,
        allow_whitespace_only_pieces=True, user_defined_symbols=["<|sep|>"], minloglevel=2)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    kinds = gguf.TokenType
    names, scores, types = [], [], []
    for id in range(processor.vocab_size()):
        names.append(processor.id_to_piece(id))
        scores.append(processor.get_score(id))
        types.append(kinds.UNKNOWN if processor.is_unknown(id) else kinds.CONTROL if processor.is_control(id)
                     else kinds.BYTE if processor.is_byte(id)
                     else kinds.USER_DEFINED if names[-1] == "<|sep|>" else kinds.NORMAL)
    writer = gguf.GGUFWriter(HERE / "gguf/sentence_piece.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(names)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    for add, id in [(writer.add_bos_token_id, processor.bos_id()), (writer.add_eos_token_id, processor.eos_id()),
                    (writer.add_unk_token_id, processor.unk_id())]:
        add(id)
    writer.add_add_bos_token(True)
    rng = numpy.random.default_rng(9)
    width, inner, n_heads = 8, 8, 2
    writer.add_context_length(128)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(inner)
    writer.add_block_count(1)
    writer.add_head_count(n_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(width // n_heads)
    writer.add_vocab_size(len(names))
    shapes = {"token_embd": (len(names), width), "output_norm": (width,)} | {f"blk.0.{name}": shape for name, shape in {
        "attn_norm": (width,), "attn_q": (width, width), "attn_k": (width, width), "attn_v": (width, width),
        "attn_output": (width, width), "ffn_norm": (width,), "ffn_gate": (inner, width), "ffn_up": (inner, width),
        "ffn_down": (width, inner)}.items()}
    for name, shape in shapes.items():
        kind = numpy.float16 if len(shape) > 1 else numpy.float32
        writer.add_tensor(f"{name}.weight", rng.normal(0, 1, shape).astype(kind))
    finish(writer)
    texts = SENTENCES + ["", " ", "the", " the", "  two spaces", "tab\there", "日本語 🦊", "é ü ß", "thethethe", "fox\n\n dog ",
                         "\u00a0 quick\u2014brown", "0123456789", "aaaaaaaaaaaaaaaaaaaaaaaa", "in range of the dog's tokenizer"]
    expected = [{"text": text, "ids": processor.encode(text), "decoded": processor.decode(processor.encode(text))}
                for text in texts]
    (HERE / "gguf/sentence_piece.json").write_text(json.dumps(expected, ensure_ascii=False))


if __name__ == "__main__":
    types()
    gpt2()
    llama()
    bert()
    sentence_piece()
    print(f"made {HERE / 'gguf'}")
