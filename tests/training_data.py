"""Chats and examples that several tests train on."""

from hypothesis import strategies as st

from tinylib.labels import IGNORE_INDEX

PAD = 2
CHATS = [
    {"prompt": f"Name {n} fruits{' and a bird' * (n % 3)}.", "completion": " ".join(["Bananas."] * n)}
    for n in range(1, 13)
]
# Rows in which the pad id is a real token too, as EOS is; at least the last token is supervised.
EXAMPLES = st.lists(
    st.builds(
        lambda read, said: {
            "input_ids": [*read, *said, PAD],
            "labels": [IGNORE_INDEX] * len(read) + [*said, PAD],
        },
        st.lists(st.sampled_from([PAD, *range(5, 60)]), min_size=1, max_size=12),
        st.lists(st.sampled_from([PAD, *range(5, 60)]), max_size=8),
    ),
    min_size=1,
    max_size=4,
)
