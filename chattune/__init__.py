"""Fine-tune a Llama-type chat model on chats of your own, without the bugs that the course is about.

``from chattune import fine_tune``; or in a terminal ``python -m chattune --help``.

| room | takes | gives |
|---|---|---|
| `examples` | chats | what is trained on, in a file |
| `trainable` | a model | its last layers, or adapters beside it, as what is trained |
| `attention` | a packed row | each sample's attention on its own; whether a model keeps samples apart |
| `trainer` | batches | a Trainer that scores only where a label is, and an evaluation of tokens |
| `runs` | a folder | one that knows whose it is, in which nothing is lost or left half-written |
| `watch` | a training | a bar, and an end where it diverges |
| `train` | model, chats | a trained model and its losses |
| `__main__` | a command line | the same, from files |

No room imports one that comes below it.
"""

from chattune.examples import prepare
from chattune.train import fine_tune
from chattune.trainable import add_adapters, train_last_layers

__all__ = ["add_adapters", "fine_tune", "prepare", "train_last_layers"]
