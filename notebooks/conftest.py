"""What pytest leaves out among the lessons: what a library cannot do."""

import sys

import transformers
from packaging.version import Version

# Lesson 08 starts several processes, which PyTorch does not on Windows, and
# resumes them on the CPU: transformers 4 asks torch to load a checkpoint onto
# "cpu:0", which it refuses.
MAJOR = Version(transformers.__version__).major
collect_ignore = (
    ["08_scale_up.ipynb"] if sys.platform == "win32" or MAJOR < 5 else []
)
