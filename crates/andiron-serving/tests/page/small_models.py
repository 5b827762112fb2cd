"""Small models with random weights, one for each tab of the web page, as `transformers` saves them.

    python small_models.py FOLDER
"""

import pathlib
import sys

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "The cat sat on the mat because it was tired.", "The capital of France is Paris.", "How do I keep warm?",
    "A wool blanket helps on cold nights.", "Ada Lovelace was born in London in 1815. She wrote the first algorithm.",
    "Marie Curie was born in Warsaw and worked in Paris.", "Compare tea and coffee in a small table.",
    "고양이는 피곤해서 매트 위에 앉았다.", "프랑스의 수도는 파리이다.", "추운 밤에는 양털 담요가 좋다.",
]
CHAT = ("{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def byte_level():
    """A tokenizer as of a chat model."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|im_end|>", pad_token="<|endoftext|>",
                                   chat_template=CHAT)


def word_pieces():
    """A tokenizer as of BERT."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.train_from_iterator(TEXTS, trainer)
    ids = [("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]"))]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
                                   mask_token="[MASK]", model_input_names=["input_ids", "token_type_ids", "attention_mask"])


def unigrams():
    """A tokenizer as of T5."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=220, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>")
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def save(folder, name, tokenizer, model):
    model.eval().save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / name)


def make(folder):
    """The models' names."""
    torch.manual_seed(7)
    folder = pathlib.Path(folder)
    transformers.logging.set_verbosity_error()
    chat, bert, t5 = byte_level(), word_pieces(), unigrams()
    llama = transformers.LlamaConfig(vocab_size=len(chat), hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
                                     num_key_value_heads=2, max_position_embeddings=512, bos_token_id=0, eos_token_id=2, initializer_range=0.3)
    save(folder, "small-chat", chat, transformers.LlamaForCausalLM(llama))
    encoder = dict(vocab_size=len(bert), hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
                   max_position_embeddings=128, initializer_range=0.3, pad_token_id=0)
    labels = lambda *names: dict(id2label=dict(enumerate(names)), label2id={name: at for at, name in enumerate(names)})
    config = transformers.BertConfig
    save(folder, "small-mask", bert, transformers.BertForMaskedLM(config(**encoder)))
    save(folder, "small-labels", bert, transformers.BertForSequenceClassification(config(**encoder, **labels("good", "bad", "neutral"))))
    save(folder, "small-entities", bert, transformers.BertForTokenClassification(config(**encoder, **labels("O", "B-PER", "I-PER", "B-LOC"))))
    save(folder, "small-answers", bert, transformers.BertForQuestionAnswering(config(**encoder)))
    save(folder, "small-vectors", bert, transformers.BertModel(config(**encoder)))
    seq2seq = transformers.T5Config(vocab_size=len(t5), d_model=48, d_kv=12, d_ff=96, num_layers=2, num_heads=4, decoder_start_token_id=0,
                                    pad_token_id=0, eos_token_id=1, initializer_factor=3.0)
    save(folder, "small-targets", t5, transformers.T5ForConditionalGeneration(seq2seq))
    return sorted(path.name for path in folder.iterdir())


if __name__ == "__main__":
    print(" ".join(make(sys.argv[1])))
