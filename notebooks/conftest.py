"""What pytest leaves out among the lessons, where a library cannot do what a lesson shows."""

import sys

import transformers
from packaging.version import Version

# It starts several processes, which PyTorch does not on Windows, and resumes them on the CPU: transformers 4
# asks torch to load a checkpoint onto "cpu:0", which it refuses.
collect_ignore = (
    ["08_scale_up.ipynb"] if sys.platform == "win32" or Version(transformers.__version__).major < 5 else []
)
