#!/usr/bin/env python3
"""Trains the tiny model in `model`: a byte-level vocabulary and a Llama of two layers, on the shipped text.

    python model.py ROOT OUTPUT

Needs torch 2.15, transformers 5.24 and tokenizers.
"""

import sys, torch
from pathlib import Path
from tokenizers import Tokenizer, models, pre_tokenizers, decoders, trainers
from transformers import PreTrainedTokenizerFast, LlamaConfig, LlamaForCausalLM
root = Path(sys.argv[1]); out = Path(sys.argv[2])
text = (root/"examples/data/shakespeare.txt").read_text()[:60000]
tok = Tokenizer(models.BPE())
tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tok.decoder = decoders.ByteLevel()
tr = trainers.BpeTrainer(vocab_size=384, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
tok.train_from_iterator([text], tr)
fast = PreTrainedTokenizerFast(tokenizer_object=tok, eos_token="<|endoftext|>", bos_token="<|endoftext|>", pad_token="<|endoftext|>", model_max_length=128)
torch.manual_seed(3)
config = LlamaConfig(vocab_size=384, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, bos_token_id=0, eos_token_id=0, pad_token_id=0, tie_word_embeddings=True, initializer_range=0.02)
model = LlamaForCausalLM(config)
ids = torch.tensor(fast.encode(text))
opt = torch.optim.AdamW(model.parameters(), lr=1e-2)
model.train()
for step in range(150):
    at = torch.randint(0, len(ids)-65, (16,))
    b = torch.stack([ids[a:a+64] for a in at])
    loss = model(b, labels=b).loss
    opt.zero_grad(); loss.backward(); opt.step()
print("loss", loss.item())
model.eval()
model.save_pretrained(out); fast.save_pretrained(out)
