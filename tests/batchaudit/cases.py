"""Small batches of each kind on which an auditor goes wrong, and what is so of them.

Each case is what `audit` is called with, and what must be found at which rows; ``may`` lists what else is so,
and with ``or_unchecked`` the report may say instead that it cannot tell. Reduced from what public pipelines
and public reports made.
"""

import copy
from collections.abc import Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from tiny_models import make_tokenizer
from tokenizers import normalizers
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from tinylib import models
from tinylib.labels import IGNORE_INDEX as N
from tinylib.labels import plain_loss, shifting_loss

GLMS = ("[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|system|>")
# Forms of chat templates.
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HEADER_IN_USER = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ '<|im_start|>system\n' + m.content + '<|im_end|>\n' }}"
    "{% elif m.role == 'user' %}{{ '<|im_start|>user\n' + m.content + '<|im_end|>\n<|im_start|>assistant\n' }}"
    "{% else %}{{ m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
)
INST = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}"
)
THINK_LAST = CHATML.replace(
    "m.content +", "('<think>\n\n</think>\n\n' if m.role == 'assistant' and loop.last else '') + m.content +"
).replace("assistant\n' }}{% endif", "assistant\n<think>\n' }}{% endif")
NO_ENDS = (
    "{{ '[gMASK]<sop>' }}{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
LAST_EOS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
    "{% if m.role == 'assistant' and loop.last %}{{ eos_token }}{% else %}{{ '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
END_ONCE = (
    "{% for m in messages %}{{ '\n\n' if not loop.first else '' }}{{ m.role.capitalize() + ': ' + m.content }}"
    "{% if loop.last and not add_generation_prompt %}{{ eos_token }}{% endif %}{% endfor %}"
)


def llama(template: str | None = None, special: tuple = (), prefix: bool = False) -> PreTrainedTokenizerBase:
    """A Llama-type tokenizer; with ``prefix`` it writes a space after BOS, as Llama-2's."""
    tokenizer = make_tokenizer()
    if prefix:
        spaces = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(spaces)
    tokenizer.chat_template = template or tokenizer.chat_template
    if special:
        tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    return tokenizer


@cache
def _shipped() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(models.resolve("smollm2"))


def smol(template: str | None = None, special: tuple = ()) -> PreTrainedTokenizerBase:
    tokenizer = copy.deepcopy(_shipped())
    tokenizer.chat_template = template or tokenizer.chat_template
    if special:
        tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    return tokenizer


def tiny(size: int, kind: type = LlamaForCausalLM) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size, hidden_size=64, intermediate_size=176, num_hidden_layers=2, num_attention_heads=8,
        num_key_value_heads=2, tie_word_embeddings=False, initializer_range=0.2, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return kind(config).eval()


def enc(t: PreTrainedTokenizerBase, text: str) -> list[int]:
    return t(text, add_special_tokens=False)["input_ids"]


def lab(t: PreTrainedTokenizerBase, parts: list[tuple[str, int]]) -> tuple[list[int], list[int]]:
    """Tokenize parts apart; of each the text, and whether it is learned."""
    ids, labels = [], []
    for text, learned in parts:
        ids += enc(t, text)
        labels += enc(t, text) if learned else [N] * len(enc(t, text))
    return ids, labels


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    t = smol()
    m = tiny(len(t))
    g = smol(NO_ENDS, GLMS)
    i, y = lab(g, [("[gMASK]<sop><|user|>\nHi<|assistant|>", 0), ("\nHello there.", 1)])
    yield (
        "GLM no end, one turn",
        dict(tok=g, input_ids=[i], labels=[y], may=["labels.no_end_written"], or_unchecked=True),
    )
    i, y = lab(g, [("[gMASK]<sop><|user|>\nHi<|assistant|>", 0), ("\nHello there.<|user|>", 1)])
    yield "GLM learned <|user|> end", dict(tok=g, input_ids=[i], labels=[y])
    i, y = lab(
        g,
        [
            ("[gMASK]<sop><|user|>\nHi<|assistant|>", 0),
            ("\nHello there.", 1),
            ("<|user|>\nBye<|assistant|>", 0),
            ("\nCiao.", 1),
        ],
    )
    yield "GLM two turns, no ends", dict(tok=g, input_ids=[i], labels=[y], may=["labels.no_end_written"])
    e = llama(LAST_EOS, special=["<|im_start|>", "<|im_end|>"])
    i, y = lab(
        e,
        [
            ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", 0),
            ("Yes.<|im_end|>", 1),
            ("\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", 0),
            ("No.</s>", 1),
        ],
    )
    yield "LAST_EOS right", dict(tok=e, input_ids=[i], labels=[y])
    i2, y2 = lab(
        e,
        [
            ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", 0),
            ("Yes.<|im_end|>", 1),
            ("\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", 0),
            ("No.", 1),
            ("</s>", 0),
        ],
    )
    yield (
        "LAST_EOS last end not learned",
        dict(tok=e, input_ids=[i2], labels=[y2], must={"labels.end_of_turn": [0]}),
    )
    yield "LAST_EOS prompt learned", dict(tok=e, input_ids=[i], labels=[i], must={"labels.prompt": [0]})

    # alpaca
    def alp(q, a, end=""):
        return lab(t, [(f"### Instruction:\n{q}\n\n### Response:\n", 0), (a + end, 1)])

    def batch(rows, pad=2, mask=True):  # rows of ids and labels
        w = max(len(r[0]) for r in rows)
        d = dict(
            input_ids=[r[0] + [pad] * (w - len(r[0])) for r in rows],
            labels=[r[1] + [N] * (w - len(r[1])) for r in rows],
        )
        if mask:
            d["attention_mask"] = [[1] * len(r[0]) + [0] * (w - len(r[0])) for r in rows]
        return d

    def joined(*said):  # ends are written between turns only
        turns = [f"<|im_start|>{role}\n{s}" for role, s in zip(["user", "assistant"] * 2, said)]
        ends = ["<|im_end|>\n"] * (len(said) - 1) + [""]
        return lab(t, [(x + end, "assistant" in x) for x, end in zip(turns, ends)])

    rows = [joined("Hi", "Hello.", "And you?", "Fine, thanks."), joined("Hi", "Yes.", "Bye", "See you")]
    cut = [[ids[:12] for ids in row] for row in rows]
    for name, made, blamed in (
        ("no end of the last answer", batch(rows, 0), "Truncation"),
        ("last answers cut by a limit", batch(cut), "joins the turns"),
    ):
        must, may = {"labels.end_cut_off": [0, 1]}, ["labels.starts_early"]  # the header, here
        yield name, dict(tok=t, **made, must=must, may=may, cause_not=blamed)
    rows = [alp("Name fruits", "Bananas, oranges and grapes."), alp("Hi", "Hello"), alp("Sum 2 and 3", "5")]
    yield "alpaca no ends (2)", dict(tok=t, **batch(rows), must={"labels.no_end_written": [0, 1, 2]})
    yield (
        "alpaca no ends, no mask",
        dict(tok=t, **batch(rows, mask=False), must={"labels.no_end_written": [0, 1, 2]}, or_unchecked=True),
    )
    rows = [
        alp("Name fruits", "Bananas, oranges and grapes.", "<|im_end|>"),
        alp("Hi", "Hello", "<|im_end|>"),
    ]
    yield "alpaca right", dict(tok=t, **batch(rows))
    yield "alpaca right, no mask", dict(tok=t, **batch(rows, mask=False))
    d = batch(rows)
    d["labels"] = [[N if x == 2 else x for x in r] for r in d["labels"]]
    yield "alpaca ends masked by id", dict(tok=t, **d, must={"labels.end_of_turn": [0, 1]})
    d = batch(rows)
    d["labels"] = [[N if x == 2 else x for x in r] for r in d["input_ids"]]
    d["attention_mask"] = [[int(x != 2) for x in r] for r in d["input_ids"]]
    yield (
        "alpaca DataCollatorForLM + mask from ids",
        dict(
            tok=t,
            **d,
            must={"labels.end_of_turn": [0, 1]},
            may=["mask.hides_tokens", "labels.no_end_written", "labels.prompt"],
            or_unchecked=True,
        ),
    )
    d = batch(rows)
    d["labels"] = [list(r) for r in d["input_ids"]]
    yield (
        "alpaca all learned with pads",
        dict(
            tok=t,
            **d,
            must={"labels.padding": [1], "labels.prompt": [0, 1]},
        ),
    )
    # long single cut row
    yield (
        "alpaca single row no end (cut or none): must be nothing",
        dict(tok=t, **batch([alp("Name", "Bananas and")]), or_unchecked=True, may=["labels.no_end_written"]),
    )
    # bos
    L = llama()
    L0 = llama()
    L0.chat_template = None
    i = [1] + enc(L, "Name three fruits.") + [1] + enc(L, "Bananas.") + [2]
    k = len(enc(L, "Name three fruits.")) + 2
    yield (
        "bos between prompt and response",
        dict(tok=L0, input_ids=[i], labels=[[N] * k + i[k:]], must={"chat.bos_inside": [0]}),
    )
    i = [1] + enc(L, "Name.") + enc(L, "Bananas.") + [2] + [1] + enc(L, "Hi!") + enc(L, "Paris.") + [2]
    a = 1 + len(enc(L, "Name."))
    b = a + len(enc(L, "Bananas.")) + 1
    c = b + 1 + len(enc(L, "Hi!"))
    yield (
        "plain joined with bos",
        dict(
            tok=L0,
            input_ids=[i],
            labels=[[N] * a + i[a:b] + [N] * (c - b) + i[c:]],
            must={"packing.positions_run_on": [0]},
            or_unchecked=True,
            may=["chat.bos_inside"],
        ),
    )
    # zephyr: template on llama, right padded with bos left
    z = enc(L, "<|user|>\nHi!</s>\n<|assistant|>\nParis.</s>")
    s = len(enc(L, "<|user|>\nHi!</s>\n<|assistant|>\n"))
    yield (
        "left padded with bos, mask",
        dict(
            tok=L,
            input_ids=[[1, 1, 1] + z, [1] * 4 + z[:0] + z[1:]] if 0 else [[1, 1, 1] + z],
            attention_mask=[[0, 0, 1] + [1] * len(z)],
            labels=[[N] * 3 + [N] * s + z[s:]],
        ),
    )
    # sliced + llama model loss shifting etc
    r1 = enc(L, "There are seven days in a week.") + [2]
    r2 = enc(L, "Paris.") + [2]

    def sl(r, w):
        return (
            r[:-1] + [0] * (w - len(r) + 1),
            [N] + r[2:] + [N] * (w - len(r) + 1),
            [1] * (len(r) - 1) + [0] * (w - len(r) + 1),
        )

    w = len(r1) - 1
    A, B = sl(r1, w), sl(r2, w)
    yield (
        "sliced first with tokenizer, pad 0",
        dict(
            tok=L0, input_ids=[A[0], B[0]], labels=[A[1], B[1]], attention_mask=[A[2], B[2]], loss=plain_loss
        ),
    )
    A, B = sl(r1, w), sl(r2, w)
    f = lambda x: [2 if v == 0 else v for v in x]
    yield (
        "sliced first pad=eos",
        dict(
            tok=L0,
            input_ids=[A[0], f(B[0])],
            labels=[A[1], B[1]],
            attention_mask=[A[2], B[2]],
            loss=plain_loss,
        ),
    )
    yield (
        "sliced first pad=eos no mask",
        dict(tok=L0, input_ids=[A[0], f(B[0])], labels=[A[1], B[1]], loss=plain_loss),
    )
    # zephyr sliced
    z2 = enc(L, "<|user|>\nHi!</s>\n<|assistant|>\nBananas, oranges and grapes.</s>")

    def slz(r, w):
        return (
            r[:-1] + [2] * (w - len(r) + 1),
            ([N] * s + r[s:])[1:] + [N] * (w - len(r) + 1),
            [1] * (len(r) - 1) + [0] * (w - len(r) + 1),
        )

    w = len(z2) - 1
    A, B = slz(z2, w), slz(z, w)
    yield (
        "zephyr sliced first",
        dict(
            tok=L, input_ids=[A[0], B[0]], labels=[A[1], B[1]], attention_mask=[A[2], B[2]], loss=plain_loss
        ),
    )
    yield (
        "zephyr sliced first, with shifting loss",
        dict(
            tok=L,
            input_ids=[A[0], B[0]],
            labels=[A[1], B[1]],
            attention_mask=[A[2], B[2]],
            loss=shifting_loss,
            must={"labels.shifted_twice": [0, 1]},
        ),
    )
    # -1
    Lm = tiny(len(L))

    class NanoGPT(torch.nn.Module):
        def __init__(s):
            super().__init__()
            s.m = Lm

        def forward(s, input_ids, attention_mask=None, labels=None, position_ids=None):
            lo = s.m(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids).logits
            return SimpleNamespace(
                logits=lo,
                loss=None
                if labels is None
                else cross_entropy(lo.flatten(0, 1), labels.flatten(), ignore_index=-1),
            )

    y = ([-1] * s + z[s:])[1:] + [-1]
    yield (
        "-1 with a model that ignores it",
        dict(tok=L, model=NanoGPT(), input_ids=torch.tensor([z]), labels=torch.tensor([y])),
    )
    yield (
        "-1 with transformers",
        dict(
            tok=L,
            model=Lm,
            input_ids=torch.tensor([z]),
            labels=torch.tensor([[-1] * s + z[s:]]),
            must={"labels.out_of_vocabulary": [0]},
        ),
    )
    yield (
        "-1 with a loss that counts it",
        dict(tok=L, input_ids=[z], labels=[y], loss=plain_loss, must={"labels.out_of_vocabulary": [0]}),
    )

    # nan
    def nan_pads(input_ids, attention_mask=None, labels=None, position_ids=None, **_):
        lo = Lm(input_ids=input_ids).logits
        lo = lo.masked_fill((attention_mask == 0)[..., None], float("nan"))
        return SimpleNamespace(logits=lo, loss=None)

    zz = [[2, 2] + z]
    yield (
        "nan at pads",
        dict(
            tok=L,
            model=nan_pads,
            input_ids=torch.tensor(zz),
            attention_mask=torch.tensor([[0, 0] + [1] * len(z)]),
            labels=torch.tensor([[N] * (s + 2) + z[s:]]),
            must={"model.nan": [0]},
        ),
    )

    def ninf(input_ids, labels=None, **_):
        lo = Lm(input_ids=input_ids).logits.clone()
        lo[..., 0] = float("-inf")
        return lo

    yield (
        "-inf logits for one token: right",
        dict(tok=L, model=ninf, input_ids=torch.tensor([z]), labels=torch.tensor([[N] * s + z[s:]])),
    )

    # blame
    def twice(lo, la):
        return plain_loss(lo[:, :-2], la[:, 2:])

    yield (
        "given loss shifts twice",
        dict(
            tok=L,
            input_ids=[z],
            labels=[[N] * s + z[s:]],
            loss=twice,
            must={"labels.shifted_twice": [0]},
            cause_not="The data are shifted",
        ),
    )
    yield (
        "early & end: mask shifted",
        dict(
            tok=L,
            input_ids=[z],
            labels=[[N] * (s - 1) + z[s - 1 : -1] + [N]],
            must={"labels.starts_early": [0], "labels.end_of_turn": [0]},
            cause_not="The prompt's length",
        ),
    )
    # masks as labels
    yield "completion_mask", dict(tok=L, input_ids=[z], completion_mask=[[0] * s + [1] * (len(z) - s)])
    yield (
        "completion_mask w/o end",
        dict(
            tok=L,
            input_ids=[z],
            completion_mask=[[0] * s + [1] * (len(z) - s - 1) + [0]],
            must={"labels.end_of_turn": [0]},
        ),
    )
    yield (
        "assistant_masks learned prompt",
        dict(tok=L, input_ids=[z], assistant_masks=[[1] * len(z)], must={"labels.prompt": [0]}),
    )
    yield (
        "loss_mask nothing",
        dict(tok=L, input_ids=[z], loss_mask=[[0] * len(z)], must={"labels.nothing_in_batch": [0]}),
    )
    yield "strings extra", dict(tok=L, input_ids=[z], labels=[[N] * s + z[s:]], names=np.array(["a"]))
    yield (
        "DPO",
        dict(
            tok=L,
            chosen_input_ids=[z],
            chosen_labels=[[N] * s + z[s:]],
            rejected_input_ids=[z],
            rejected_labels=[[N] * s + z[s:-1] + [N]],
            must={"labels.end_of_turn": [0]},
        ),
    )
    # some answers, first only
    two = [
        {"role": "user", "content": "Hi!"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "No."},
    ]
    r = lambda ms, **k: enc(t, t.apply_chat_template(ms, tokenize=False, **k))
    ff = r(two)
    p1 = len(r(two[:1], add_generation_prompt=True))
    p2 = len(r(two[:2]))
    yield (
        "only first learned",
        dict(
            tok=t,
            input_ids=[ff],
            labels=[[N] * p1 + ff[p1 : p2 - 1] + [N] * (len(ff) - p2 + 1)],
            must={"labels.some_answers": [0]},
        ),
    )
    # prompts
    ask = [{"role": "user", "content": "Hi!"}]
    op = r(ask, add_generation_prompt=True)
    yield "prompt ok", dict(tok=t, purpose="generate", input_ids=[op])
    yield "prefilled ok", dict(tok=t, purpose="generate", input_ids=[op + enc(t, "Sure, the")])
    yield (
        "lone space",
        dict(tok=t, purpose="generate", input_ids=[op + enc(t, " ")], must={"prompt.not_open": [0]}),
    )
    yield "finished", dict(tok=t, purpose="generate", input_ids=[r(two)], must={"prompt.not_open": [0]})
    yield "truncated", dict(tok=t, purpose="generate", input_ids=[op[:-5]], must={"prompt.not_open": [0]})
    yield "left-truncated ok", dict(tok=t, purpose="generate", input_ids=[op[5:]])
    yield (
        "two prompts padded left ok",
        dict(
            tok=t,
            purpose="generate",
            input_ids=[[2, 2] + op, op + enc(t, "Sure,")],
            attention_mask=[[0, 0] + [1] * len(op), [1] * (len(op) + 2)],
        ),
    )
    yield (
        "llama INST ok prompt",
        dict(tok=llama(INST), purpose="generate", input_ids=[enc(llama(INST), "<s>[INST] Hi! [/INST]")]),
    )
    yield (
        "header in user prompt ok",
        dict(
            tok=smol(HEADER_IN_USER),
            purpose="generate",
            input_ids=[enc(t, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")],
        ),
    )
    yield "raw prompts chat tok", dict(tok=t, purpose="generate", input_ids=[enc(t, "Once upon a time")])
    mm = tiny(len(t))
    mm.generation_config.eos_token_id = [0, 2]
    yield "eos list ok", dict(tok=t, model=mm, purpose="generate", input_ids=[op])
    mm = tiny(len(t))
    mm.generation_config.eos_token_id = None
    yield (
        "no eos",
        dict(tok=t, model=mm, purpose="generate", input_ids=[op], must={"generation.other_end": [0]}),
    )

    # later tokens
    class BadCache(type(m)):
        def prepare_inputs_for_generation(self, input_ids, **kwargs):
            out = super().prepare_inputs_for_generation(input_ids, **kwargs)
            if out["input_ids"].shape[1] == 1 and out.get("position_ids") is not None:
                out["position_ids"] = out["position_ids"] * 0
            return out

    bc = tiny(len(t), BadCache)
    yield (
        "bad cache positions",
        dict(
            tok=t,
            model=bc,
            purpose="generate",
            input_ids=torch.tensor([[2] * 3 + op, op + enc(t, "Sure, I")[:3]]),
            attention_mask=torch.tensor([[0] * 3 + [1] * len(op), [1] * (len(op) + 3)]),
            must={"generation.later_tokens": [0]},
        ),
    )
    yield (
        "good cache",
        dict(
            tok=t,
            model=tiny(len(t)),
            purpose="generate",
            input_ids=torch.tensor([[2] * 3 + op, op + enc(t, "Sure, I")[:3]]),
            attention_mask=torch.tensor([[0] * 3 + [1] * len(op), [1] * (len(op) + 3)]),
        ),
    )
    # embeddings
    c = llama(CHATML, special=["<|im_start|>", "<|im_end|>"])
    cm = tiny(len(c) - 2)
    cm.resize_token_embeddings(len(c))
    i, y = lab(c, [("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", 0), ("Yes.<|im_end|>", 1)])
    yield (
        "resized",
        dict(
            tok=c,
            model=cm,
            input_ids=torch.tensor([i]),
            labels=torch.tensor([y]),
            must={"embeddings.untrained": [0]},
        ),
    )
    cm = tiny(len(c))
    with torch.no_grad():
        cm.get_input_embeddings().weight[-2:] = 0
    yield (
        "zero rows",
        dict(
            tok=c,
            model=cm,
            input_ids=torch.tensor([i]),
            labels=torch.tensor([y]),
            must={"embeddings.untrained": [0]},
        ),
    )
    yield (
        "trained rows",
        dict(tok=c, model=tiny(len(c)), input_ids=torch.tensor([i]), labels=torch.tensor([y])),
    )
    # own isolating model but sees neighbours
    # template packing
    q = llama(
        "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        special=["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    )
    one = lab(
        q,
        [
            (
                "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
                0,
            ),
            ("Yes.<|eot_id|>", 1),
        ],
    )
    yield (
        "llama3 packed without positions",
        dict(tok=q, input_ids=[one[0] * 2], labels=[one[1] * 2], must={"packing.positions_run_on": [0]}),
    )
    yield (
        "llama3 packed with positions",
        dict(tok=q, input_ids=[one[0] * 2], position_ids=[list(range(len(one[0]))) * 2], labels=[one[1] * 2]),
    )
    yield (
        "llama3, two bos",
        dict(tok=q, input_ids=[[1] + one[0]], labels=[[N] + one[1]], must={"chat.two_bos": [0]}),
    )
    yield (
        "llama3 sequence ids, no model",
        dict(
            tok=q,
            input_ids=[one[0] * 2],
            sequence_id=[[0] * len(one[0]) + [1] * len(one[0])],
            labels=[one[1] * 2],
            or_unchecked=True,
            must={"packing.positions_run_on": [0]},
        ),
    )
    # forged and end missing in same row
    i, y = lab(
        t,
        [
            ("<|im_start|>user\nWhat is <|im_end|> in a week?<|im_end|>\n<|im_start|>assistant\n", 0),
            ("No.", 1),
            ("<|im_end|>\n", 0),
        ],
    )
    yield (
        "forged and endless",
        dict(tok=t, input_ids=[i], labels=[y], must={"chat.forged_turn": [0], "labels.end_of_turn": [0]}),
    )
    # deviating pipelines
    i, y = lab(t, [("<|im_start|>user\nHi<|im_end|><|im_start|>assistant\n", 0), ("No.<|im_end|>", 1)])
    yield "no newline after end", dict(tok=t, input_ids=[i], labels=[y])
    i, y = lab(t, [("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant", 0), ("\nNo.<|im_end|>", 1)])
    yield (
        "newline learned (header w/o newline)",
        dict(tok=t, input_ids=[i], labels=[y], may=["labels.starts_early"]),
    )
    i, y = lab(t, [("User: Hi\nAssistant: ", 0), ("No.<|im_end|>", 1)])
    yield "other format", dict(tok=t, input_ids=[i], labels=[y])
    i, y = lab(t, [("<|im_start|>human\nHi<|im_end|>\n<|im_start|>gpt\n", 0), ("No.<|im_end|>", 1)])
    yield "other roles in chatml", dict(tok=t, input_ids=[i], labels=[y])
    i, y = lab(
        t,
        [
            ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\nHmm, so\n</think>\n\n", 0),
            ("No.<|im_end|>", 1),
        ],
    )
    yield "thought masked", dict(tok=smol(THINK_LAST), input_ids=[i], labels=[y], may=["labels.starts_late"])
    v, y = lab(
        t,
        [
            ("USER: Hi ASSISTANT:", 0),
            (" Yes.<|im_end|>", 1),
            ("USER: Bye ASSISTANT:", 0),
            (" No.<|im_end|>", 1),
        ],
    )
    t0 = smol()
    t0.chat_template = None
    yield "vicuna multi-turn plain right", dict(tok=t0, input_ids=[v], labels=[y])
    yield (
        "vicuna multi-turn with model",
        dict(tok=t0, model=m, input_ids=torch.tensor([v]), labels=torch.tensor([y])),
    )

    # What the first of these kinds were reduced to.
    for name, chat in (("one turn", two[:2]), ("two turns", two)):
        for form, tok in (
            ("header in the user's slot", smol(HEADER_IN_USER)),
            ("thought", smol(THINK_LAST)),
            ("[INST]", llama(INST)),
            ("[INST], a space after BOS", llama(INST, prefix=True)),
            ("an end once", llama(END_ONCE)),
        ):
            text = tok.apply_chat_template(chat, tokenize=False)
            got = tok(text, add_special_tokens=False, return_offsets_mapping=True)
            spans = []
            for said in chat[1::2]:
                at = text.index(said["content"])
                end = text.find(tok.eos_token, at)
                stop = (
                    at + len(said["content"])
                    if end < 0 or ("once" in form and said is not chat[-1])
                    else end + len(tok.eos_token)
                )
                spans.append((at, stop))
            ids = got["input_ids"]
            good = [
                i if any(b > s and a < e and b <= e for s, e in spans) else N
                for i, (a, b) in zip(ids, got["offset_mapping"])
            ]
            yield f"{form}, {name}, right", dict(tok=tok, input_ids=[ids], labels=[good])
            yield (
                f"{form}, {name}, all learned",
                dict(tok=tok, input_ids=[ids], labels=[ids], must={"labels.prompt": [0]}),
            )
            bad = [N if i == tok.eos_token_id else i for i in good]
            if not ("once" in form and name == "two turns"):
                yield (
                    f"{form}, {name}, no end learned",
                    dict(tok=tok, input_ids=[ids], labels=[bad], must={"labels.end_of_turn": [0]}),
                )
    i, y = lab(
        L,
        [
            ("<|user|>\nHi!\n<|assistant|>\n", 0),
            ("Paris.</s>", 1),
            ("\n<s><|user|>\nHi!\n<|assistant|>\n", 0),
            ("Bananas.</s>", 1),
        ],
    )
    yield (
        "a BOS inside, users' turns without an end",
        dict(tok=L, input_ids=[[1] + i], labels=[[N] + y], must={"chat.bos_inside": [0]}),
    )
    # Two mistakes of a newcomer in one script, that are not one mask shifted too often.
    t1 = smol()
    rows = []
    for chat in (two, two[:2]):
        ids = t1.apply_chat_template(chat, return_dict=False)
        at = len(t1.apply_chat_template(chat[:-1], return_dict=False))
        rows.append((ids, [N if place < at or i == 2 else i for place, i in enumerate(ids)]))
    yield (
        "the header is learned, and no end",
        dict(
            tok=t1,
            **batch(rows),
            must={"labels.end_of_turn": [0, 1], "labels.starts_early": [0, 1]},
            may=["labels.some_answers"],
            cause_not="shifted",
        ),
    )
    prompts = [
        t1.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        for chat in (two[:1], two[:3])
    ]
    padded = batch([(prompt, []) for prompt in prompts])
    yield (
        "prompts padded on the right, without their mask",
        dict(
            tok=t1,
            purpose="generate",
            input_ids=padded["input_ids"],
            must={"padding.right_side": [0], "mask.missing": [0]},
        ),
    )
    width = len(padded["input_ids"][0])
    visible = [
        [[[j <= i and (j < len(p) or i == j) for j in range(width)] for i in range(width)]] for p in prompts
    ]
    yield (
        "the same, hidden by a mask of four dimensions",
        dict(
            tok=t1,
            purpose="generate",
            input_ids=padded["input_ids"],
            attention_mask=torch.tensor(visible),
            must={"padding.right_side": [0]},
        ),
    )
    b = [enc(t, "The sun is big.") + [2] + enc(t, "The moon") + [2] + enc(t, "is not")]
    yield (
        "plain text, no EOS inside learned",
        dict(
            tok=t,
            input_ids=b,
            labels=[[N if x == 2 else x for x in r] for r in b],
            must={"labels.end_of_turn": [0]},
        ),
    )
    texts = [enc(L, "Paris.") + [2] * 4, enc(L, "Paris.") + enc(L, "Bananas")]
    w = len(texts[0]) - 4
    texts[1] = (texts[1] * 3)[: w + 4]
    yield (
        "the first pad is learned in place of an end",
        dict(
            tok=L0,
            input_ids=texts,
            attention_mask=[[1] * w + [0] * 4, [1] * (w + 4)],
            labels=[[N] + texts[0][1 : w + 1] + [N] * 3, [N] + texts[1][1:]],
            must={"labels.padding": [0]},
            may=["labels.no_end_written"],
        ),
    )
    pairs = ("Name a fruit.", "A banana."), ("Where does the cat live?", "In the red house.")
    rows = [alp(*pair, "<|im_end|>") for pair in pairs]
    yield (
        "prompt and response in plain text, all learned",
        dict(
            tok=t0,
            **batch([(ids, ids) for ids, _ in rows]),
            must={"labels.prompt": [0, 1]},
            notes=["labels.prompt"],
        ),
    )
    yield "the same, the response only; right", dict(tok=t0, **batch(rows))
    rows = [alp(*pair, "<|endoftext|>") for pair in pairs]  # generate() stops at <|im_end|>
    yield (
        "the response learned, with an end that generate() does not know",
        dict(
            tok=t0,
            model=tiny(len(t0)),
            must={"generation.other_end": [0, 1]},
            **{name: torch.tensor(values) for name, values in batch(rows).items()},
        ),
    )
    plain = [
        enc(t0, text) + [2] for text in ("The cat lives in the red house.", "Bananas are yellow, they say.")
    ]
    plain = [row[: min(map(len, plain))] for row in plain]
    yield "plain texts, all learned; right", dict(tok=t0, input_ids=plain, labels=plain)
    yield (
        "padded with BOS, no mask",
        dict(tok=L, input_ids=[[1] + z + [1] * 4], labels=[[N] * (s + 1) + z[s:] + [N] * 4]),
    )
    yield (
        "all NaN",
        dict(
            model=lambda input_ids, **_: torch.full((*input_ids.shape, 9), float("nan")),
            input_ids=[[4, 5, 6]],
            labels=[[N, 5, 6]],
            must={"model.nan": [0]},
        ),
    )
    row = one[0] * 2
    seq = torch.tensor([[0] * len(one[0]) + [1] * len(one[0])])

    def apart(
        input_ids: Any, attention_mask: Any = None, sequence_id: Any = None, labels: Any = None, **_: Any
    ) -> Any:
        same = (sequence_id[:, None, :, None] == sequence_id[:, None, None, :]) & torch.ones(
            seq.shape[1], seq.shape[1]
        ).tril().bool()
        return qm(
            input_ids=input_ids,
            attention_mask=torch.where(same, 0.0, torch.finfo(torch.float32).min),
            labels=labels,
        )

    qm = tiny(len(q))
    yield (
        "kept apart by an input of its own",
        dict(
            tok=q,
            model=apart,
            input_ids=torch.tensor([row]),
            sequence_id=seq,
            labels=torch.tensor([one[1] * 2]),
        ),
    )
    yield (
        "not kept apart by it",
        dict(
            tok=q,
            model=qm,
            input_ids=torch.tensor([row]),
            labels=torch.tensor([one[1] * 2]),
            must={"packing.positions_run_on": [0]},
        ),
    )
    # what public frameworks make of a dozen chats
    joined = dict(tok=q, input_ids=[row], labels=[one[1] * 2])
    n = len(one[0])
    yield "the samples' lengths beside them", dict(**joined, num_tokens=torch.tensor([n, n]))
    yield "where the samples end, a list a row", dict(**joined, cumulative=[torch.tensor([0, n, 2 * n])])
    yield (
        "numbers that are no lengths",
        dict(**joined, scores=torch.tensor([1, 2]), must={"packing.positions_run_on": [0]}),
    )
    i, y = lab(
        g,
        [
            ("[gMASK]<sop><|user|>\nHi<|assistant|>", 0),
            ("\nHello there.", 1),
            ("<|user|>\nBye<|assistant|>", 0),
            ("\nCiao.<|im_end|>", 1),
        ],
    )
    y[i.index(g.convert_tokens_to_ids("<|user|>"), 3)] = g.eos_token_id
    yield (
        "an end of text as the target under the next header",
        dict(tok=g, input_ids=[i], labels=[y], must={"labels.other_tokens": [0]}),
    )

    def sliced_and_packed(*samples: tuple[list[int], list[int]]) -> dict[str, Any]:
        return dict(
            tok=q,
            input_ids=[[i for ids, _ in samples for i in ids[:-1]]],
            labels=[[y for _, labels in samples for y in labels[1:]]],
            position_ids=[[i for ids, _ in samples for i in range(len(ids) - 1)]],
            loss=plain_loss,
        )

    yield "sliced, then packed", sliced_and_packed(one, one)
    yield (
        "cut, sliced, then packed",
        dict(
            **sliced_and_packed((one[0][:-1], one[1][:-1]), one),
            must={"labels.end_cut_off": [0]},
        ),
    )
    yield (
        "packed, then shifted",
        dict(
            tok=q,
            input_ids=[row],
            labels=[[*one[1][1:], one[0][0], *one[1][1:], N]],
            position_ids=[[*range(n)] * 2],
            loss=plain_loss,
            must={"packing.first_label": [0]},
        ),
    )
    yield (
        "a loss_mask that may be of the predictions",
        dict(tok=L, input_ids=[z], loss_mask=[[0] * (s - 1) + [1] * (len(z) - s) + [0]]),
    )
    yield (
        "a loss_mask with more of the prompt",
        dict(
            tok=L,
            input_ids=[z],
            loss_mask=[[0] * (s - 2) + [1] * (len(z) - s + 2)],
            must={"labels.starts_early": [0]},
        ),
    )
    # what scripts of people who fine-tune make, read in their own repositories
    rows = [
        lab(L0, [("<s>" + asked, 0), (said, 1)])
        for asked, said in (("Name fruits\n", "Bananas and</s>"), ("Hi\n", "Seven days, from M"))
    ]
    yield (
        "cut after a letter that the vocabulary has as a byte only: <0x4D> is no mark",
        dict(tok=L0, **batch(rows), must={"labels.end_cut_off": [1]}),
    )
    rows = [
        lab(L0, [("<s>" + asked, 0), (said + "</s>", 1)])
        for asked, said in (("Name fruits\n", "Bananas"), ("Name three\n", "Bananas, oranges"))
    ]
    more = -len(rows[1][0]) % 8  # a collator may have padded to this width
    rows[1] = [1] * more + rows[1][0], [N] * more + rows[1][1]
    by_id = batch(rows)
    by_id["attention_mask"] = [[int(i != 2) for i in ids] for ids in by_id["input_ids"]]
    yield (
        "a mask of ids hides each row's end, which is learned; as many tokens as a multiple of 8",
        dict(tok=L0, **by_id, must={"mask.hides_tokens": [0, 1]}, may=["chat.two_bos"]),
    )
    asked = [enc(t0, text) + [2] for text in ("Name a fruit.", "Where does the cat live?")]
    left = [[2] * (len(asked[1]) - len(ids)) + ids for ids in asked]
    yield (
        "prompts that end with EOS, padded with it on the left: the mask of ids hides their last token",
        dict(
            tok=t0,
            model=m,
            purpose="generate",
            input_ids=torch.tensor(left),
            attention_mask=torch.tensor(left).ne(2).long(),
            must={"mask.hides_tokens": [0, 1]},
            may=["prompt.not_open"],
        ),
    )
    rows = [lab(t, [("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", 0), (said, 1)])
            for said in ("Yes.<|im_end|>\n<|im_end|>", "Yes, and seven days in a week")]  # fmt: skip
    yield (
        "one row ends with an EOS of the script's own, visible and learned, another was cut",
        dict(tok=t, **batch(rows), must={"labels.end_cut_off": [1]}),
    )
    chatml = smol(CHATML)
    chatml.pad_token = "<|endoftext|>"  # as Qwen's, whose end of turn is another
    rows = [
        lab(chatml, [(f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n", 0), (said, 1)])
        for asked, said in (("Hi", "Yes.<|endoftext|>"), ("Name fruits", "Bananas and grapes.<|endoftext|>"))
    ]
    by_pad = {name: torch.tensor(values) for name, values in batch(rows, pad=0).items()}
    for stops, must in ((2, {"generation.other_end": [0, 1]}), ([2, 0], {})):
        knows = tiny(len(chatml))
        knows.generation_config.eos_token_id = stops
        yield (
            f"answers end with the pad token, the config stops at {stops}",
            dict(tok=chatml, model=knows, **by_pad, must=must),
        )
    yield "the same without a model", dict(tok=chatml, **by_pad)
    rows = [(i[:-1] + [2, 198, 0], y[:-1] + [2, 198, 0]) for i, y in rows]
    yield (
        "answers have their end, and the first pad after it is shown and learned too",
        dict(
            tok=chatml,
            **batch([(i + [0], y + [N]) for i, y in rows], pad=0, mask=False),
            attention_mask=[[1] * len(i) + [0] * (1 + len(rows[1][0]) - len(i)) for i, _ in rows],
            must={"mask.shows_pads": [0, 1], "labels.padding": [0, 1]},
        ),
    )
    marked = smol(special=("### Done", "<over>"))
    marked.chat_template = None
    for end in ("\n\n### Done", "<over>\n"):
        rows = [lab(marked, [(f"Question: {q}\nAnswer:\n", 0), (a + end, 1)]) for q, a in pairs]
        done = tiny(len(marked))
        done.generation_config.eos_token_id = marked.convert_tokens_to_ids(end.strip())
        rows = {name: torch.tensor(values) for name, values in batch(rows).items()}
        yield (
            f"answers end with a special token of the script's own, {end!r}",
            dict(tok=marked, model=done, **rows),
        )
        yield (
            f"the same, and generate() does not know it, {end!r}",
            dict(tok=marked, model=tiny(len(marked)), **rows, must={"generation.other_end": [0, 1]}),
        )
    i, y = lab(L0, [("<s>Name fruits\n", 0), ("Bananas</s>", 1)])
    i2, y2 = lab(L0, [("<s>Name fruits\n", 0), ("Bananas, oranges and grapes</s>", 1)])
    ids, named = [i[:-1], i2[:-1]], [y[1:], y2[1:]]
    width = len(ids[1])
    yield (
        "sliced, and filled up with <unk>, without a mask",
        dict(
            tok=L0,
            loss=plain_loss,
            input_ids=[row + [0] * (width - len(row)) for row in ids],
            labels=[row + [N] * (width - len(row)) for row in named],
        ),
    )
    # what packing has divided into rows, or samples
    chat = [[("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", 0), (said + "<|im_end|>", 1), ("\n", 0)]
            for said in ("Yes, and seven days in a week.", "Paris.", "Bananas, oranges and grapes.")]  # fmt: skip
    ids, named = lab(chatml, [part for parts in chat for part in parts])
    plain = [[("Question: Hi\nAnswer:", 0), (said + "</s>", 1)] for said in (" Yes, a week.", " Paris.") * 3]
    texts = lab(L0, [part for parts in plain for part in parts])
    for name, tokenizer, x, y, wide, rows in (
        ("chats", chatml, ids, named, 15, [0]),
        ("texts", L0, *texts, 21, [0]),
    ):
        full = range(0, len(x) - wide + 1, wide)
        made = {"input_ids": [x[i : i + wide] for i in full], "labels": [y[i : i + wide] for i in full]}
        must, may = {"labels.end_cut_off": rows}, ["packing.positions_run_on"]
        yield (
            f"{name} wrapped into rows",
            dict(tok=tokenizer, **made, must=must, may=may, cause_not="Truncation"),
        )
    half = len(ids) - 6  # in the last answer
    yield (
        "a long sample split in two, and packed",
        dict(
            tok=chatml,
            input_ids=[ids[half:] + ids[:half]],
            labels=[named[half:] + named[:half]],
            position_ids=[[*range(len(ids) - half), *range(half)]],
            must={"labels.end_cut_off": [0]},
            cause_not="Truncation",
        ),
    )
    i, y = lab(L, [("<|user|>\nHi!</s>\n<|assistant|>\n", 0), ("Paris.</s>", 1)])
    made = LlamaForCausalLM(LlamaConfig(vocab_size=len(L), hidden_size=32, intermediate_size=64,
        num_hidden_layers=1, num_attention_heads=4, pad_token_id=2, eos_token_id=2)).eval()  # fmt: skip
    yield (
        "the end of a turn was the pad when the model was made",
        dict(
            tok=L,
            model=made,
            input_ids=torch.tensor([i]),
            labels=torch.tensor([y]),
            must={"embeddings.untrained": [0]},
            cause_not="resize_token_embeddings",
        ),
    )
    # what is ignored has a token's id: that of the pad
    rows = [
        ([1] + enc(L0, asked), enc(L0, said) + [2])
        for asked, said in (("Hi\n", "Paris."), ("Name\n", "Oranges"))
    ]
    wide = max(len(asked + said) for asked, said in rows) + 1
    by_pad = {
        "input_ids": [asked + said + [0] * (wide - len(asked + said)) for asked, said in rows],
        "labels": [[0] * len(asked) + said + [0] * (wide - len(asked + said)) for asked, said in rows],
    }

    def leaves_out_0(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=0)

    fills = llama()
    fills.pad_token, fills.chat_template = "<unk>", None
    yield "labels are the pad's id, and the loss leaves it out", dict(tok=fills, **by_pad, loss=leaves_out_0)
    yield (
        "labels are the pad's id, and the loss counts it",
        dict(
            tok=fills,
            **by_pad,
            loss=shifting_loss,
            must={"labels.other_tokens": [0, 1], "labels.padding": [0, 1]},
        ),
    )
    rows = [lab(t, [(f"Question: {q}\nAnswer: ", 0), (a + "<|im_end|>", 1)]) for q, a in pairs]
    yield (
        "the prompts' labels are the pad's id: no copy of the input",
        dict(
            tok=marked,
            **batch([(i, [0 if label == N else label for label in y]) for i, y in rows], pad=0),
            must={"labels.other_tokens": [0, 1]},
        ),
    )
    rows = [
        lab(L0, [(asked, 0), ("<s>", 0), (said + "</s>", 1)])
        for asked, said in (("Hi", "Paris."), ("Name", "Yes"))
    ]
    yield (
        "a BOS separates prompt and answer, and begins no text",
        dict(tok=L0, **batch(rows, 0), must={"chat.bos_inside": [0, 1]}, notes=["chat.bos_inside"]),
    )
    said = [("<|im_start|>human\nHi<|im_end|>\n<|im_start|>assistant\n", 0), ("Yes.<|im_end|>", 1), ("\n", 0)]
    i, y = lab(chatml, said * 2)
    yield (
        "a role that the template does not write is no forged turn",
        dict(tok=chatml, input_ids=[i], labels=[y], or_unchecked=True),
    )
    rows = [lab(L0, [(f"<s>Question: {q}\nAnswer: ", 0), (a + " [END]", 1)]) for q, a in pairs]
    yield (
        "answers end in letters that are no token",
        dict(
            tok=L0,
            **batch(rows),
            must={"labels.no_end_written": [0, 1]},
            notes=["labels.no_end_written"],
            cause_not="put together without",
        ),
    )
    i, y = lab(chatml, chat[0])
    mask = [[int(label != N) for label in y]]
    both = {"input_ids": torch.tensor([i]), "labels": torch.tensor([i])}
    for name in ("loss_mask", "response_mask"):
        masked = both | {name: torch.tensor(mask)}
        yield f"labels for all tokens beside a {name}", dict(tok=chatml, **masked)
        yield f"the same, beside a {name}, and a loss", dict(tok=chatml, **masked, loss=shifting_loss)
        yield (
            f"labels for all tokens beside a {name}, and a model whose loss does not take it",
            dict(tok=chatml, model=tiny(len(chatml)), **masked, must={"labels.prompt": [0]}),
        )
    yield (
        "right labels beside a mask of the predictions",
        dict(tok=chatml, input_ids=[i], labels=[y], loss_mask=[mask[0][1:] + [0]]),
    )
    yield (
        "a response_mask in place of labels",
        dict(tok=chatml, input_ids=[i], response_mask=[[0] + mask[0][:-1]], must={"labels.starts_late": [0]}),
    )
    yield (
        "a response_mask of the responses alone",
        dict(tok=chatml, input_ids=[i], response_mask=[mask[0][-6:]]),
    )
