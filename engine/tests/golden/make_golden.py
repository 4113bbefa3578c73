"""Makes the golden data beside this script with Python's own implementations: a small random Qwen3 model (transformers),
its GGUF files (gguf), the truth of its forward pass (every step in float64), token ids (tokenizers) and chat prompts
(jinja2, as transformers drives it). See SOURCE.md.

    pip install -r requirements.txt
    python make_golden.py [--qwen3-template FILE] [--qwen2-vocabulary FILE]

The tokenizer (pico/hf/tokenizer.json, tokenizer_config.json), the texts in pico/tokenizer_cases.json and the messages in
chat_cases.json are inputs; everything else is written. Seeds are fixed: the same versions give the same bytes.
"""

import argparse
import json
import math
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AddedToken, AutoTokenizer, Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen3 import modeling_qwen3
from transformers.utils.chat_template_utils import render_jinja_template

HERE = Path(__file__).parent
PICO = HERE / "pico"
HF = PICO / "hf"
CHATML = HERE / "../../data/chatml.jinja"

TEXT = (
    "Hello world, it's 2024!\n\n  def foo(x):\n    return x + 1  # Grüße 你好\n<|im_start|>user\nwhy?<|im_end|>\n"
)


def make_model():
    """Weights are not the usual N(0, 0.02): a forgotten norm weight, a wrong rotary pairing or a wrong head mapping must
    be loud. Every weight is exact in bfloat16. n_heads * head_dim is not hidden, and the output matrix is untied."""
    ids = {token["content"]: token["id"] for token in json.loads((HF / "tokenizer.json").read_text())["added_tokens"]}
    config = Qwen3Config(
        num_hidden_layers=2, hidden_size=64, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
        intermediate_size=160, vocab_size=1024, tie_word_embeddings=False, max_position_embeddings=40960,
        rms_norm_eps=1e-6, hidden_act="silu", attention_bias=False, attention_dropout=0.0, use_sliding_window=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        bos_token_id=ids["<|endoftext|>"], eos_token_id=ids["<|im_end|>"], dtype="bfloat16",
    )
    with torch.device("meta"):
        model = Qwen3ForCausalLM(config)
    model = model.to_empty(device="cpu").float()
    generator = torch.Generator().manual_seed(20260101)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                mean = 1.4 if "q_norm" in name or "k_norm" in name else 1.0
                weight.copy_(mean + 0.2 * torch.randn(weight.shape, generator=generator))
            elif "embed_tokens" in name or "lm_head" in name:
                weight.normal_(0, 2 / math.sqrt(weight.shape[1]), generator=generator)
            else:
                deviation = 1 / math.sqrt(weight.shape[1])
                if "o_proj" in name or "down_proj" in name:
                    deviation *= 0.5
                weight.normal_(0, deviation, generator=generator)
    model = model.to(torch.bfloat16)
    model.config.dtype = "bfloat16"
    model.save_pretrained(HF)


# Tensor names: transformers to GGUF.
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
BLOCK = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}


def gguf_name(name):
    stem = name.removesuffix(".weight")
    if stem in TOP:
        return TOP[stem] + ".weight"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{BLOCK[rest]}.weight"


def make_gguf(model, file, quantisation, file_type):
    """Norms stay F32, every matrix takes the file's type: what llama.cpp's converter does."""
    config = model.config
    writer = gguf.GGUFWriter(PICO / file, "qwen3")
    writer.add_name("Pico")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_file_type(file_type)
    add_tokenizer(writer, config)
    for name, weight in model.state_dict().items():
        values = weight.float().numpy()
        kind = gguf.GGMLQuantizationType.F32 if values.ndim == 1 else quantisation
        writer.add_tensor(gguf_name(name), gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer, config):
    tokenizer = json.loads((HF / "tokenizer.json").read_text())
    tokens = {id: token for token, id in tokenizer["model"]["vocab"].items()}
    types = dict.fromkeys(tokens, gguf.TokenType.NORMAL)
    for token in tokenizer["added_tokens"]:
        tokens[token["id"]] = token["content"]
        types[token["id"]] = gguf.TokenType.CONTROL if token["special"] else gguf.TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([tokens[id] for id in range(len(tokens))])
    writer.add_token_types([types[id] for id in range(len(tokens))])
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
    writer.add_eos_token_id(config.eos_token_id)
    writer.add_bos_token_id(config.bos_token_id)
    writer.add_add_bos_token(False)
    writer.add_chat_template(json.loads((HF / "tokenizer_config.json").read_text())["chat_template"])


class Truth:
    """The forward pass with every step in float64. transformers computes RMSNorm, rotary angles and softmax in float32
    whatever the weights are, so those three are replaced."""

    def __init__(self):
        self.model = Qwen3ForCausalLM.from_pretrained(HF, dtype=torch.float64, attn_implementation="eager").eval()
        self.seen = {}
        for module in self.model.modules():
            if module.__class__.__name__ == "Qwen3RMSNorm":
                module.forward = self._rms_norm.__get__(module)
        self.model.model.rotary_emb.forward = self._rotary
        softmax = torch.nn.functional.softmax
        modeling_qwen3.nn.functional.softmax = lambda x, dim=None, dtype=None, **_: softmax(x, dim=dim)

    @staticmethod
    def _rms_norm(module, x):
        return module.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon))

    def _rotary(self, x, position_ids, **_):
        width = self.model.config.head_dim
        frequency = 1e6 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
        angle = position_ids[0].double()[:, None] * frequency
        angle = torch.cat([angle, angle], -1)[None]
        return angle.cos(), angle.sin()

    def logits(self, ids):
        with torch.no_grad():
            return self.model(torch.tensor([ids]), use_cache=False).logits[0]

    def logits_and_steps(self, ids):
        """Logits, and every intermediate value by name: [tokens, width], q and k [tokens, heads, head_dim]."""
        self.seen = {}
        hooks = list(self._hooks())
        rotate, layer = modeling_qwen3.apply_rotary_pos_emb, iter(range(self.model.config.num_hidden_layers))

        def rotate_and_keep(*args, **kwargs):
            q, k = rotate(*args, **kwargs)
            index = next(layer)
            self.seen[f"l{index}.q_rope"], self.seen[f"l{index}.k_rope"] = q.transpose(1, 2), k.transpose(1, 2)
            return q, k

        modeling_qwen3.apply_rotary_pos_emb = rotate_and_keep
        logits = self.logits(ids)
        modeling_qwen3.apply_rotary_pos_emb = rotate
        for hook in hooks:
            hook.remove()
        return logits, {name: value[0].float().contiguous().clone() for name, value in self.seen.items()}

    def _hooks(self):
        def output(module, name):
            def keep(_module, _inputs, out):
                self.seen[name] = out[0] if isinstance(out, tuple) else out
            return module.register_forward_hook(keep)

        def first_input(module, name):
            def keep(_module, inputs):
                self.seen[name] = inputs[0]
            return module.register_forward_pre_hook(keep)

        body = self.model.model
        yield output(body.embed_tokens, "embed")
        for index, layer in enumerate(body.layers):
            name, attention = f"l{index}.", layer.self_attn
            yield output(layer.input_layernorm, name + "attn_norm")
            yield output(attention.q_norm, name + "q_norm")
            yield output(attention.k_norm, name + "k_norm")
            yield output(attention.v_proj, name + "v")
            yield first_input(attention.o_proj, name + "attn_heads")
            yield output(attention.o_proj, name + "attn_out")
            yield first_input(layer.post_attention_layernorm, name + "resid_mid")
            yield output(layer.post_attention_layernorm, name + "ffn_norm")
            yield output(layer.mlp, name + "ffn_out")
            yield output(layer, name + "out")
        yield output(body.norm, "final_norm")


def int32(ids):
    return torch.tensor(ids, dtype=torch.int32)


def next_logprob(logits, ids):
    """Log probability of each token given those before it: [tokens - 1]."""
    logprob, following = torch.log_softmax(logits, -1), torch.tensor(ids[1:])
    return logprob[torch.arange(len(following)), following].float().contiguous()


def make_truth(tokenizer):
    truth = Truth()
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    logits, steps = truth.logits_and_steps(ids)
    save_file({"ids": int32(ids), "logits": logits.float().contiguous(), **steps}, PICO / "text_full.safetensors")

    random = np.random.default_rng(7)
    vocab = truth.model.config.vocab_size
    short, long = random.integers(0, vocab, 700).tolist(), random.integers(0, vocab, 4096).tolist()
    logits = truth.logits(short)
    top = logits.topk(2, -1)
    save_file({
        "ids": int32(short), "logits_last4": logits[-4:].float().contiguous(),
        "argmax": top.indices[:, 0].int().contiguous(),
        "margin": (top.values[:, 0] - top.values[:, 1]).float().contiguous(),
        "next_logprob": next_logprob(logits, short),
    }, PICO / "rand700.safetensors")
    logits = truth.logits(long)
    save_file({
        "ids": int32(long), "logits_last4": logits[-4:].float().contiguous(), "next_logprob": next_logprob(logits, long),
    }, PICO / "long4096.safetensors")

    sequence, margins = list(ids), []
    for _ in range(48):
        top = truth.logits(sequence)[-1].topk(2)
        margins.append(float(top.values[0] - top.values[1]))
        sequence.append(int(top.indices[0]))
    greedy = {"text": TEXT, "prompt_ids": ids, "greedy_ids": sequence[len(ids):], "top1_minus_top2_logit": margins}
    (PICO / "greedy.json").write_text(json.dumps(greedy, ensure_ascii=False))


def make_tokenizer_cases(tokenizer):
    path = PICO / "tokenizer_cases.json"
    texts = [case["text"] for case in json.loads(path.read_text())]
    cases = [{"text": text, "ids": tokenizer.encode(text, add_special_tokens=False)} for text in texts]
    path.write_text(json.dumps(cases, ensure_ascii=False, indent=0))


def make_qwen2_cases(vocabulary):
    """The same texts in the real vocabulary, by transformers' own Qwen2 tokenizer class over the tables of a GGUF file."""
    fields = gguf.GGUFReader(vocabulary).fields
    tokens, types = fields["tokenizer.ggml.tokens"].contents(), fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Qwen2Tokenizer(vocab={token: id for id, token in enumerate(tokens)}, merges=merges)
    control = [token for token, kind in zip(tokens, types) if kind == gguf.TokenType.CONTROL]
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in control], special_tokens=True)
    texts = [case["text"] for case in json.loads((PICO / "tokenizer_cases.json").read_text())]
    cases = [{"text": text, "ids": tokenizer.encode(text, add_special_tokens=False)} for text in texts]
    (HERE / "qwen2_tokenizer_cases.json").write_text(json.dumps(cases, ensure_ascii=False, indent=0))


def as_transformers(message):
    """A recorded message as users of transformers pass it: content is a text, arguments are parsed objects."""
    message = {**message, "content": message.get("content") or ""}
    if "tool_calls" in message:
        message["tool_calls"] = [as_transformers_call(call) for call in message["tool_calls"]]
    return message


def as_transformers_call(call):
    arguments = call["function"]["arguments"]
    try:
        parsed = json.loads(arguments)
    except json.JSONDecodeError:
        parsed = None
    function = {**call["function"], "arguments": parsed if isinstance(parsed, dict) else arguments}
    return {**call, "function": function}


def make_chat_cases(qwen3_template):
    """Fills in what each template writes for each case. Without the Qwen3 template its outputs stay as they are."""
    path = HERE / "chat_cases.json"
    cases = json.loads(path.read_text())
    templates = {"chatml": CHATML.read_text()}
    if qwen3_template:
        templates["qwen3"] = qwen3_template.read_text()
    for case in cases:
        thinking = {} if case["thinking"] is None else {"enable_thinking": case["thinking"]}
        for name, template in templates.items():
            rendered, _ = render_jinja_template(
                [[as_transformers(message) for message in case["messages"]]], tools=case["tools"] or None,
                chat_template=template, add_generation_prompt=case["generation_prompt"], **thinking,
            )
            case[name] = rendered[0]
    path.write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--qwen3-template", type=Path, help="Qwen3's chat template (third party, not in this folder)")
    parser.add_argument("--qwen2-vocabulary", type=Path, help="Qwen2's vocabulary as GGUF (third party, not here either)")
    parser.add_argument("--only-text", action="store_true", help="make the chat and tokenizer cases alone")
    arguments = parser.parse_args()
    make_chat_cases(arguments.qwen3_template)
    tokenizer = AutoTokenizer.from_pretrained(HF)
    make_tokenizer_cases(tokenizer)
    if arguments.qwen2_vocabulary:
        make_qwen2_cases(arguments.qwen2_vocabulary)
    if arguments.only_text:
        return
    torch.manual_seed(0)
    make_model()
    model = Qwen3ForCausalLM.from_pretrained(HF, dtype=torch.float32)
    kinds, types = gguf.GGMLQuantizationType, gguf.LlamaFileType
    make_gguf(model, "pico-f32.gguf", kinds.F32, types.ALL_F32)
    make_gguf(model, "pico-f16.gguf", kinds.F16, types.MOSTLY_F16)
    make_gguf(model, "pico-bf16.gguf", kinds.BF16, types.MOSTLY_BF16)
    make_gguf(model, "pico-q8_0.gguf", kinds.Q8_0, types.MOSTLY_Q8_0)
    make_truth(tokenizer)


if __name__ == "__main__":
    main()
