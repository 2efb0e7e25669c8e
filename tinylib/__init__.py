"""The helpers of the course, to be read in one sitting, in the order in which a chat walks through them.

| room | takes | gives |
|---|---|---|
| `quiet` | | what the libraries say unasked, collected or hidden; errors of a command in one line |
| `fetch`, `models` | a name | a chat model and its tokenizer, loaded or saved; the shipped one is fetched |
| `jsonl` | a file of JSON | its rows, one by one |
| `messages` | a chat in any of the usual forms | messages |
| `data` | a name or a file | chats |
| `chat` | messages | what is read and what is said, as token ids, cut at the exact boundary |
| `labels` | those ids | labels, and the losses of both conventions |
| `padding` | rows of ids | a rectangle: `input_ids`, `attention_mask`, `position_ids` |
| `collate` | a list of examples | one batch, padded or packed |
| `generate` | model, prompts | answers, and how far they are from each prompt's answer alone |
| `show` | batches, masks, answers | text grids |

No room imports one that comes below it, nor `chattune`, `batchaudit` or `classroom`, which stand on these.
"""
