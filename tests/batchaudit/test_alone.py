"""The auditor stands alone: it needs torch, transformers and numpy, and none of what the course needs."""

import subprocess
import sys
from pathlib import Path

AUDIT = """
import sys
from pathlib import Path

for name in ("accelerate", "datasets", "gguf", "ipywidgets", "matplotlib", "pandas", "peft", "psutil", "trl"):
    sys.modules[name] = None  # an import of it fails

from transformers import AutoModelForCausalLM, AutoTokenizer
from batchaudit import audit
from batchaudit.chats import audit_chats

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
texts = ["Name three fruits.", "The capital of France is Paris."]
batch = tokenizer(texts, return_tensors="pt", padding=True)
labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100).roll(-1, dims=1)
print(audit({**batch, "labels": labels}, tokenizer=tokenizer, model=model).codes)
Path(sys.argv[2]).write_text('{"prompt": "Hi!", "completion": ""}\\n')
print(audit_chats(sys.argv[2], tokenizer).codes)
"""


def test_it_audits_where_nothing_of_the_course_is_installed(tinyllama_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", AUDIT, str(tinyllama_folder), str(tmp_path / "chats.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "['labels.shifted_twice']\n['chat.empty_answer']\n", done.stderr
